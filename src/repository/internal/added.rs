//! Hands over what a session's new commits would bring to a forge, in a child process: added lines, names, the commits themselves, and the
//! paths that differ at the end.
//!
//! Every new commit counts, not only the last: what was added and taken away again would be pushed all the same. What the forge has already
//! is left out. Looks for nothing itself, holds no secret, checks nothing out, and ends with an error when it cannot hand over everything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use git2::{
    Delta, DiffDelta, DiffFindOptions, DiffOptions, FileMode, ObjectType, Odb, Oid, Patch, Repository, Tree, TreeEntry,
};

use crate::repository::policy;
use crate::repository::scan::frame::{self, Header, LARGEST_COMMIT, LARGEST_PIECE, LONGEST_PATH};

/// Files above this are not compared line by line: all of it counts as new.
const LARGEST_COMPARED: usize = 8 * 1024 * 1024;
/// Most files of a commit among which renames are looked for.
const MOST_RENAMED: usize = 200;

pub(super) fn run(directory: &Path, head: &str, most: &str, output: &mut impl Write) -> Result<(), String> {
    let policy = super::enter(directory)?;
    let mut hand_over = HandOver {
        output: std::io::BufWriter::with_capacity(64 * 1024, output),
        left: most
            .parse()
            .map_err(|_| "the number of bytes does not read".to_owned())?,
        most: most.to_owned(),
    };
    let done = Added::open(directory)
        .and_then(|added| added.all(policy.base_commit.as_str(), head, &mut hand_over))
        .and_then(|()| hand_over.write(&Header::End, b""))
        .and_then(|()| hand_over.output.flush().map_err(Failed::from));
    done.map_err(|Failed(text)| text)
}

struct Failed(String);

impl From<git2::Error> for Failed {
    fn from(error: git2::Error) -> Self {
        Self(error.message().to_owned())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The output, with how much may still be handed over.
struct HandOver<W: Write> {
    output: std::io::BufWriter<W>,
    left: usize,
    most: String,
}

impl<W: Write> HandOver<W> {
    fn write(&mut self, header: &Header, bytes: &[u8]) -> Result<(), Failed> {
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| {
            Failed(format!(
                "they add more than {} bytes (session.secret_scan.largest_bytes)",
                self.most
            ))
        })?;
        Ok(frame::write(&mut self.output, header, bytes)?)
    }

    /// Lines of a file that follow each other; `line` is the number of the first.
    fn lines(&mut self, commit: Oid, path: &[u8], line: u64, bytes: &[u8]) -> Result<(), Failed> {
        let (mut line, mut joined) = (line, false);
        for piece in bytes.chunks(LARGEST_PIECE) {
            let header = Header::Lines {
                commit: commit.to_string(),
                path: text(path)?,
                line,
                joined,
                bytes: piece.len(),
            };
            self.write(&header, piece)?;
            line += memchr::memchr_iter(b'\n', piece).count() as u64;
            joined = true;
        }
        Ok(())
    }
}

/// What is read from.
struct Added<'a> {
    repository: Repository,
    /// The objects that the forge showed, without what was pushed.
    known: Odb<'a>,
    shown: Vec<Oid>,
}

impl Added<'_> {
    fn open(directory: &Path) -> Result<Self, Failed> {
        let repository = super::open(directory)?;
        let known = Odb::new()?;
        let store = directory.join(policy::STORE).join("objects");
        let store = store
            .to_str()
            .ok_or_else(|| Failed("the store's path is not text".to_owned()))?;
        known.add_disk_alternate(store)?;
        let shown = super::shown(&repository, directory)?;
        Ok(Self {
            repository,
            known,
            shown,
        })
    }

    fn all<W: Write>(&self, base: &str, head: &str, output: &mut HandOver<W>) -> Result<(), Failed> {
        let (base, head) = (Oid::from_str(base)?, Oid::from_str(head)?);
        let mut walk = self.repository.revwalk()?;
        walk.push(head)?;
        walk.hide(base)?;
        for id in &self.shown {
            walk.hide(*id)?;
        }
        for id in walk {
            self.commit(id?, output)?;
        }
        self.changed(base, head, output)
    }

    /// One commit: itself as it is stored, then what it adds to its parents.
    fn commit<W: Write>(&self, id: Oid, output: &mut HandOver<W>) -> Result<(), Failed> {
        let objects = self.repository.odb()?;
        let stored = objects.read(id)?;
        if stored.len() > LARGEST_COMMIT {
            return Err(Failed(format!("the commit {id} is larger than {LARGEST_COMMIT} bytes")));
        }
        let header = Header::Commit {
            commit: id.to_string(),
            bytes: stored.len(),
        };
        output.write(&header, stored.data())?;
        let commit = self.repository.find_commit(id)?;
        let (tree, parents) = (commit.tree()?, commit.parents().map(|parent| parent.tree()));
        let parents = parents.collect::<Result<Vec<_>, _>>()?;
        let mut diff = self
            .repository
            .diff_tree_to_tree(parents.first(), Some(&tree), Some(&mut options()))?;
        if parents.len() == 1 && diff.deltas().len() <= MOST_RENAMED {
            // A file that only moved brings no new line.
            diff.find_similar(Some(DiffFindOptions::new().renames(true).rename_limit(MOST_RENAMED)))?;
        }
        let others = parents.get(1..).unwrap_or_default();
        for index in 0..diff.deltas().len() {
            let Some(delta) = diff.get_delta(index) else {
                return Err(Failed("a changed file cannot be read".to_owned()));
            };
            if delta.status() == Delta::Deleted {
                continue;
            }
            let path = delta.new_file().path_bytes().unwrap_or_default();
            if delta.status() != Delta::Modified && !others.iter().any(|other| entry(other, path).is_some()) {
                let header = Header::Name {
                    commit: id.to_string(),
                    bytes: path.len(),
                };
                check_length(path)?;
                output.write(&header, path)?;
            }
            let new = delta.new_file().id();
            // What the forge has already is no news, and what another parent has was handed over with that one.
            let is_known = self.known.exists(new) || others.iter().any(|other| file(other, path) == Some(new));
            if is_file(delta.new_file().mode()) && !is_known {
                self.file(id, &diff, index, &delta, others, output)?;
            }
        }
        Ok(())
    }

    /// The lines that a commit adds to one file, compared with every parent.
    fn file<W: Write>(
        &self,
        commit: Oid,
        diff: &git2::Diff<'_>,
        index: usize,
        delta: &DiffDelta<'_>,
        others: &[Tree<'_>],
        output: &mut HandOver<W>,
    ) -> Result<(), Failed> {
        let path = delta.new_file().path_bytes().unwrap_or_default();
        let (old, new) = (delta.old_file().id(), delta.new_file().id());
        // A submodule's entry is no earlier state of a file: its id may be that of any object, the new file's as well.
        let was_other = !old.is_zero() && !is_file(delta.old_file().mode());
        if was_other || self.size(new)? > LARGEST_COMPARED || self.size(old)? > LARGEST_COMPARED {
            let whole = self.repository.find_blob(new)?;
            return output.lines(commit, path, 1, whole.content());
        }
        let patch =
            Patch::from_diff(diff, index)?.ok_or_else(|| Failed("a changed file cannot be compared".to_owned()))?;
        let mut lines = added(&patch)?;
        for other in others {
            let Some(blob) = file(other, path).and_then(|id| self.repository.find_blob(id).ok()) else {
                continue;
            };
            let whole = self.repository.find_blob(new)?;
            let compared = Patch::from_blobs(&blob, None, &whole, None, Some(&mut options()))?;
            let new_to_it: BTreeSet<u64> = added(&compared)?.into_keys().collect();
            lines.retain(|number, _| new_to_it.contains(number));
        }
        let mut run: (u64, u64, Vec<u8>) = (0, 0, Vec::new());
        for (number, content) in lines {
            if number != run.1 && !run.2.is_empty() {
                output.lines(commit, path, run.0, &std::mem::take(&mut run.2))?;
            }
            if run.2.is_empty() {
                run.0 = number;
            }
            run.1 = number + 1;
            run.2.extend_from_slice(&content);
        }
        output.lines(commit, path, run.0, &run.2)
    }

    fn size(&self, id: Oid) -> Result<usize, Failed> {
        if id.is_zero() {
            return Ok(0);
        }
        let (size, kind) = self.repository.odb()?.read_header(id)?;
        Ok(if kind == ObjectType::Blob { size } else { 0 })
    }

    /// The paths that a change request will show: from where the branch left the base.
    fn changed<W: Write>(&self, base: Oid, head: Oid, output: &mut HandOver<W>) -> Result<(), Failed> {
        let old = match self.repository.merge_base(base, head) {
            Ok(fork) => Some(self.repository.find_commit(fork)?.tree()?),
            Err(error) if error.code() == git2::ErrorCode::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let new = self.repository.find_commit(head)?.tree()?;
        let diff = self
            .repository
            .diff_tree_to_tree(old.as_ref(), Some(&new), Some(&mut options()))?;
        for delta in diff.deltas() {
            let file = if delta.status() == Delta::Deleted {
                delta.old_file()
            } else {
                delta.new_file()
            };
            let target = if delta.status() != Delta::Deleted && file.mode() == FileMode::Link {
                let blob = self.repository.find_blob(file.id())?;
                Some(text(blob.content())?)
            } else {
                None
            };
            let path = text(file.path_bytes().unwrap_or_default())?;
            output.write(&Header::Changed { path, target }, b"")?;
        }
        Ok(())
    }
}

/// What a comparison shows: every difference of content as text, whatever the content is.
fn options() -> DiffOptions {
    let mut options = DiffOptions::new();
    options
        .force_text(true)
        .context_lines(0)
        .interhunk_lines(0)
        .include_typechange(true);
    options
}

fn is_file(mode: FileMode) -> bool {
    matches!(
        mode,
        FileMode::Blob | FileMode::BlobExecutable | FileMode::BlobGroupWritable | FileMode::Link
    )
}

/// What a tree has at a path.
fn entry(tree: &Tree<'_>, path: &[u8]) -> Option<TreeEntry<'static>> {
    use std::os::unix::ffi::OsStrExt as _;
    tree.get_path(Path::new(std::ffi::OsStr::from_bytes(path))).ok()
}

/// The contents of the file that a tree has at a path. A submodule there, whose id may be any, is none.
fn file(tree: &Tree<'_>, path: &[u8]) -> Option<Oid> {
    entry(tree, path)
        .filter(|entry| entry.kind() == Some(ObjectType::Blob))
        .map(|entry| entry.id())
}

/// Added lines by their number.
fn added(patch: &Patch<'_>) -> Result<BTreeMap<u64, Vec<u8>>, Failed> {
    let mut lines = BTreeMap::new();
    for hunk in 0..patch.num_hunks() {
        for line in 0..patch.num_lines_in_hunk(hunk)? {
            let line = patch.line_in_hunk(hunk, line)?;
            if line.origin() == '+'
                && let Some(number) = line.new_lineno()
            {
                lines.insert(u64::from(number), line.content().to_vec());
            }
        }
    }
    Ok(lines)
}

fn check_length(path: &[u8]) -> Result<(), Failed> {
    if path.len() > LONGEST_PATH {
        return Err(Failed("a path is longer than 4096 bytes".to_owned()));
    }
    Ok(())
}

fn text(path: &[u8]) -> Result<String, Failed> {
    check_length(path)?;
    Ok(String::from_utf8_lossy(path).into_owned())
}
