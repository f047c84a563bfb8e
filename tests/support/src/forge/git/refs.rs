//! The references of a bare repository as git keeps them in files: every answer of the forge asks for them, and a git each time would be a
//! good part of what a test waits for. Never writes, and never follows a symbolic one: a bare repository of the forge has none but HEAD.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// Full name to object id.
pub(super) fn read(repository: &Path) -> io::Result<BTreeMap<String, String>> {
    // The loose ones first: git packs one before it removes its file.
    let mut loose = BTreeMap::new();
    read_loose(&repository.join("refs"), "refs", &mut loose)?;
    let packed = match fs::read_to_string(repository.join("packed-refs")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    // Comments begin with `#`, and what an annotated tag stands for with `^`.
    let mut all: BTreeMap<String, String> = packed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(id, _)| is_id(id))
        .map(|(id, name)| (name.to_owned(), id.to_owned()))
        .collect();
    all.append(&mut loose);
    Ok(all)
}

fn read_loose(directory: &Path, name: &str, all: &mut BTreeMap<String, String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // git removes directories that a deleted branch leaves empty.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_loose(&entry.path(), &name, all)?;
            continue;
        }
        match fs::read_to_string(entry.path()) {
            // A lock may hold what is to be.
            Ok(text) if is_id(text.trim()) && !name.ends_with(".lock") => {
                all.insert(name, text.trim().to_owned());
            }
            Ok(_) => {}
            // Packed or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_and_loose_ones_are_read_as_git_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let output = std::process::Command::new("git")
                .arg("-C")
                .arg(directory.path())
                .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        git(&["init", "--quiet", "--bare", "--initial-branch=main"]);
        let tree = git(&["mktree"]);
        let commit = |message: &str| git(&["commit-tree", tree.trim(), "-m", message]).trim().to_owned();
        let (one, other) = (commit("one"), commit("other"));
        for name in ["refs/heads/main", "refs/heads/deep/er", "refs/merge-requests/1/head"] {
            git(&["update-ref", name, &one]);
        }
        git(&["tag", "-a", "-m", "annotated", "v1", &one]);
        git(&["pack-refs", "--all"]);
        git(&["update-ref", "refs/heads/deep/er", &other]);
        git(&["update-ref", "refs/heads/new", &other]);
        fs::write(directory.path().join("refs/heads/new.lock"), &other).unwrap();
        let said = git(&["for-each-ref", "--format=%(objectname) %(refname)"]);
        let expected: BTreeMap<String, String> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(id, name)| (name.to_owned(), id.to_owned()))
            .collect();
        assert_eq!(expected.len(), 5);
        assert_eq!(read(directory.path()).unwrap(), expected);
    }
}
