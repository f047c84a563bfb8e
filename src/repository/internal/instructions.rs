//! Reads what a branch that the forge showed says to agents, in a child process. Never follows a link, never looks at what was pushed.

use std::io::Write;
use std::path::Path;

use git2::{ErrorCode, ObjectType, Repository, Tree};

use crate::repository::instructions::{Instruction, LARGEST, MOST};
use crate::repository::policy;

/// Most text of one file, in bytes: a long one leaves room for others.
const LONGEST_FILE: usize = LARGEST / 2;
/// A file with a longer name is left out, in bytes.
const LONGEST_NAME: usize = 255;
/// The largest file that is opened at all, in bytes.
const MOST_OPENED: usize = 1024 * 1024;

/// The files that the patterns name, as a JSON list in the patterns' order.
pub(super) fn run(directory: &Path, reference: &str, patterns: &[&str], output: &mut impl Write) -> Result<(), String> {
    super::enter(directory)?;
    let refs = crate::repository::bare::read_refs(&directory.join(policy::STORE)).map_err(|error| error.to_string())?;
    let shown = refs
        .iter()
        .find(|shown| shown.name == reference)
        .ok_or_else(|| format!("the forge shows no {reference}"))?;
    let found = read(directory, shown.target.as_str(), patterns).map_err(|error| error.message().to_owned())?;
    let text = serde_json::to_vec(&found).map_err(|error| error.to_string())?;
    output
        .write_all(&text)
        .and_then(|()| output.flush())
        .map_err(|error| error.to_string())
}

fn read(directory: &Path, commit: &str, patterns: &[&str]) -> Result<Vec<Instruction>, git2::Error> {
    let repository = super::open(directory)?;
    let tree = repository.find_commit(git2::Oid::from_str(commit)?)?.tree()?;
    let mut found = Vec::new();
    let mut room = LARGEST;
    for pattern in patterns {
        for path in paths(&repository, &tree, pattern)? {
            let Some(instruction) = one(&repository, &tree, path, room)? else {
                continue;
            };
            if found.len() == MOST {
                return Ok(found);
            }
            room = room.saturating_sub(instruction.text.len() + instruction.path.len());
            found.push(instruction);
        }
    }
    Ok(found)
}

/// What a pattern may mean: itself, or with `*` as its last part's beginning the files of that directory in the order of their names.
fn paths(repository: &Repository, tree: &Tree<'_>, pattern: &str) -> Result<Vec<String>, git2::Error> {
    let Some((directory, ending)) = pattern.rsplit_once("/*") else {
        return Ok(vec![pattern.to_owned()]);
    };
    let entry = match tree.get_path(Path::new(directory)) {
        Ok(entry) => entry,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if entry.kind() != Some(ObjectType::Tree) {
        return Ok(Vec::new());
    }
    let tree = repository.find_tree(entry.id())?;
    let name = |entry: git2::TreeEntry<'_>| Some(entry.name().ok()?.to_owned());
    // A name stands in the prompt as it is: one with a line's end in it would say more than a name.
    let is_plain = |name: &String| name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
    let named = tree
        .iter()
        .filter_map(name)
        .filter(|name| name.ends_with(ending) && is_plain(name));
    Ok(named.take(MOST).map(|name| format!("{directory}/{name}")).collect())
}

/// One file, cut to what there is room for; `None` where there is none of that name.
fn one(
    repository: &Repository,
    tree: &Tree<'_>,
    path: String,
    room: usize,
) -> Result<Option<Instruction>, git2::Error> {
    let entry = match tree.get_path(Path::new(&path)) {
        Ok(entry) => entry,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let left_out = |why: &str| Instruction {
        path: path.clone(),
        text: String::new(),
        note: Some(format!("left out: {why}")),
    };
    if entry.kind() != Some(ObjectType::Blob) || !matches!(entry.filemode(), 0o100_644 | 0o100_755) {
        return Ok(Some(left_out("it is a link or a directory, which is not followed")));
    }
    let (size, _) = repository.odb()?.read_header(entry.id())?;
    if size > MOST_OPENED {
        return Ok(Some(left_out("it is larger than 1 MiB")));
    }
    let blob = repository.find_blob(entry.id())?;
    let text = match std::str::from_utf8(blob.content()) {
        Ok(text) if !text.contains('\0') => text,
        Ok(_) | Err(_) => return Ok(Some(left_out("it is no text in UTF-8"))),
    };
    // Characters that move a terminal's cursor or end a program's argument are no part of any text.
    let mut text: String = text
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let mut note = None;
    if room == 0 && !text.is_empty() {
        return Ok(Some(left_out("there is too much of this")));
    }
    if text.len() > room.min(LONGEST_FILE) {
        let mut cut = room.min(LONGEST_FILE);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        text.truncate(cut);
        note = Some(format!("cut: the file has {size} bytes, and {cut} are told"));
    }
    Ok(Some(Instruction { path, text, note }))
}
