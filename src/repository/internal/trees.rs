//! Walks the trees of pushed commits: how much they come to when they are checked out, and whether their new entries may be there.
//!
//! The same directory may be in a tree a thousand times, and in each of those a thousand times the next: so sizes are summed up without
//! walking anything twice. The rules for entries are in [`push_check`](crate::repository::push_check). Checks nothing out.

use std::collections::HashMap;

use git2::{Commit, ObjectType, Oid, Repository, Tree, TreeEntry};

use super::pre_receive::Failure;
use crate::message::CommitId;
use crate::repository::push_check::{self, Refusal};

/// Deepest directory.
const DEEPEST: usize = 128;
/// Trees that are read to sum up sizes; what a larger project has beyond is counted as one entry each.
const MOST_READ: usize = 500_000;
/// Entries of trees that are compared in one push.
const MOST_COMPARED: u64 = 20_000_000;
/// Largest `.gitmodules` that is read, in bytes; git refuses larger ones itself.
const LARGEST_MODULES: usize = 10 * 1024 * 1024;
/// How the mode of a symbolic link and of a directory are written.
const LINK: i32 = 0o120_000;

/// How far a tree goes.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    files: u64,
    depth: usize,
}

/// What all commits of one push share.
pub(super) struct Trees<'r> {
    repository: &'r Repository,
    most_files: u64,
    extents: HashMap<Oid, Extent>,
    compared: u64,
}

impl<'r> Trees<'r> {
    pub(super) fn new(repository: &'r Repository, most_files: u64) -> Self {
        Self {
            repository,
            most_files,
            extents: HashMap::new(),
            compared: 0,
        }
    }

    /// Looks at one new commit.
    ///
    /// # Errors
    /// What it must not have.
    pub(super) fn check(&mut self, commit: &Commit<'_>, id: &CommitId) -> Result<(), Failure> {
        let tree = commit.tree()?;
        let too_deep = || Refusal::TooDeep {
            id: id.clone(),
            most: DEEPEST,
        };
        let extent = self.extent(tree.id(), 0)?.ok_or_else(too_deep)?;
        if extent.files > self.most_files {
            return Err(self.too_many(id));
        }
        if extent.depth > DEEPEST {
            return Err(too_deep().into());
        }
        let parents = commit
            .parents()
            .map(|parent| parent.tree())
            .collect::<Result<Vec<_>, _>>()?;
        self.compare(id, &tree, &parents, &mut Vec::new())
    }

    fn too_many(&self, id: &CommitId) -> Failure {
        let refusal = Refusal::TooManyFiles {
            id: id.clone(),
            most: self.most_files,
        };
        refusal.into()
    }

    /// How far a tree goes; `None` when it is too deep to tell.
    fn extent(&mut self, id: Oid, depth: usize) -> Result<Option<Extent>, git2::Error> {
        if let Some(known) = self.extents.get(&id) {
            return Ok(Some(*known));
        }
        if depth > DEEPEST {
            return Ok(None);
        }
        if self.extents.len() >= MOST_READ {
            return Ok(Some(Extent { files: 1, depth: 1 }));
        }
        let tree = self.repository.find_tree(id)?;
        let mut extent = Extent { files: 0, depth: 1 };
        for entry in &tree {
            extent.files = extent.files.saturating_add(1);
            if entry.kind() == Some(ObjectType::Tree) {
                let Some(below) = self.extent(entry.id(), depth + 1)? else {
                    return Ok(None);
                };
                extent.files = extent.files.saturating_add(below.files);
                extent.depth = extent.depth.max(below.depth + 1);
            }
        }
        self.extents.insert(id, extent);
        Ok(Some(extent))
    }

    /// Looks at the entries that no parent has in the same place.
    fn compare(
        &mut self,
        id: &CommitId,
        tree: &Tree<'_>,
        parents: &[Tree<'_>],
        path: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for entry in tree {
            self.compared += 1;
            if self.compared > MOST_COMPARED {
                return Err(self.too_many(id));
            }
            let name = entry.name_bytes();
            let before: Vec<TreeEntry<'_>> = parents
                .iter()
                .filter_map(|parent| parent.get_name_bytes(name))
                .map(|entry| entry.to_owned())
                .collect();
            let is_known = |old: &TreeEntry<'_>| old.id() == entry.id() && old.filemode_raw() == entry.filemode_raw();
            if before.iter().any(is_known) {
                continue;
            }
            path.push(shown(name));
            if entry.kind() == Some(ObjectType::Tree) {
                let below = self.repository.find_tree(entry.id())?;
                if below.is_empty() {
                    // No file, so no difference shows it: its name would leave unseen.
                    return Err(Refusal::EmptyDirectory {
                        id: id.clone(),
                        path: path.join("/"),
                    }
                    .into());
                }
                let parents = before
                    .iter()
                    .filter(|old| old.kind() == Some(ObjectType::Tree))
                    .map(|old| self.repository.find_tree(old.id()))
                    .collect::<Result<Vec<_>, _>>()?;
                self.compare(id, &below, &parents, path)?;
            } else if entry.kind() == Some(ObjectType::Blob) {
                self.file(id, &entry, &before, path)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn file(
        &self,
        id: &CommitId,
        entry: &TreeEntry<'_>,
        before: &[TreeEntry<'_>],
        path: &[String],
    ) -> Result<(), Failure> {
        let name = entry.name_bytes();
        if entry.filemode_raw() & 0o170_000 == LINK {
            let target = self.repository.find_blob(entry.id())?;
            push_check::check_link(name, target.content(), path.len() - 1).map_err(|why| Refusal::Link {
                id: id.clone(),
                path: path.join("/"),
                why,
            })?;
        } else if push_check::is_modules(name) {
            let texts = before
                .iter()
                .filter(|old| old.kind() == Some(ObjectType::Blob))
                .map(|old| self.modules(old.id()))
                .collect::<Result<Vec<_>, _>>()?;
            let known: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            push_check::check_modules(&self.modules(entry.id())?, &known).map_err(|url| Refusal::Submodule {
                id: id.clone(),
                path: path.join("/"),
                url,
            })?;
        }
        Ok(())
    }

    fn modules(&self, id: Oid) -> Result<Vec<u8>, git2::Error> {
        let blob = self.repository.find_blob(id)?;
        if blob.size() > LARGEST_MODULES {
            return Err(git2::Error::from_str("a .gitmodules is too large"));
        }
        Ok(blob.content().to_vec())
    }
}

/// An agent's bytes as harmless text.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}
