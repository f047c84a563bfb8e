//! A commit object, taken apart and put together byte for byte. It knows nothing of what its fields mean beyond that,
//! and keeps every header that it does not know.

use std::collections::HashMap;

/// Header lines, each with its continuation lines, and the message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) message: Vec<u8>,
}

impl Commit {
    /// Takes what `git cat-file commit` prints.
    pub(super) fn parse(raw: &[u8]) -> Option<Self> {
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut rest = raw;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if line.is_empty() {
                return Some(Self {
                    headers,
                    message: rest.to_vec(),
                });
            }
            if line.starts_with(b" ") {
                let (_, value) = headers.last_mut()?;
                value.push(b'\n');
                value.extend_from_slice(line);
                continue;
            }
            let space = line.iter().position(|byte| *byte == b' ')?;
            headers.push((line[..space].to_vec(), line[space + 1..].to_vec()));
        }
        // Some tools write a commit without a message and without the empty line before it.
        Some(Self {
            headers,
            message: Vec::new(),
        })
    }

    /// What `git hash-object -t commit` takes.
    pub(super) fn format(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        for (name, value) in &self.headers {
            raw.extend_from_slice(name);
            raw.push(b' ');
            raw.extend_from_slice(value);
            raw.push(b'\n');
        }
        raw.push(b'\n');
        raw.extend_from_slice(&self.message);
        raw
    }

    /// Puts replaced commits in the place of their originals; says whether there were any.
    pub(super) fn replace_parents(&mut self, replaced: &HashMap<String, String>) -> bool {
        let mut any = false;
        for (name, value) in &mut self.headers {
            if name == b"parent"
                && let Some(new) = str::from_utf8(value).ok().and_then(|id| replaced.get(id))
            {
                *value = new.clone().into_bytes();
                any = true;
            }
        }
        any
    }

    /// `Name <e-mail>` of the committer.
    pub(super) fn committer(&self) -> Option<&[u8]> {
        let value = self
            .headers
            .iter()
            .find_map(|(name, value)| (name == b"committer").then_some(value))?;
        split_ident(value).map(|(identity, _)| identity)
    }

    /// Sets the committer and keeps the date.
    pub(super) fn set_committer(&mut self, identity: &[u8]) {
        self.set_identity(b"committer", identity);
    }

    /// Sets the author and keeps the date.
    pub(super) fn set_author(&mut self, identity: &[u8]) {
        self.set_identity(b"author", identity);
    }

    /// A signature of the original is none of its replacement.
    pub(super) fn drop_signatures(&mut self) {
        self.headers
            .retain(|(name, _)| name != b"gpgsig" && name != b"gpgsig-sha256");
    }

    fn set_identity(&mut self, role: &[u8], identity: &[u8]) {
        for (name, value) in &mut self.headers {
            if name == role {
                let date = split_ident(value).map(|(_, date)| date.to_vec()).unwrap_or_default();
                *value = [identity, &date].concat();
            }
        }
    }
}

/// `Name <e-mail>` and the rest, which is the date with the space before it.
pub(super) fn split_ident(ident: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = ident.iter().rposition(|byte| *byte == b'>')? + 1;
    let (identity, date) = ident.split_at(end);
    Some((identity, date.trim_ascii_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &[u8] = b"tree 1\nparent a\nparent b\nauthor J\xf6rg <j@x> 1 +0100\ncommitter C <c@x> 2 +0000\n\
        gpgsig -----BEGIN\n line\n \n -----END\nencoding ISO-8859-1\n\nsubject \xff\n\nbody without newline";

    #[test]
    fn puts_together_what_it_took_apart() {
        assert_eq!(Commit::parse(RAW).unwrap().format(), RAW);
        assert_eq!(Commit::parse(b"tree 1\n\n").unwrap().format(), b"tree 1\n\n");
        assert_eq!(Commit::parse(b"tree 1\n").unwrap().format(), b"tree 1\n\n");
        for broken in [b"tree".as_slice(), b" x\n\n", b"tree\n\n", b"tree 1\nx"] {
            assert_eq!(Commit::parse(broken), None);
        }
    }

    #[test]
    fn changes_only_what_it_is_told() {
        let mut commit = Commit::parse(RAW).unwrap();
        assert!(!commit.replace_parents(&HashMap::new()));
        assert!(commit.replace_parents(&HashMap::from([("b".to_owned(), "n".to_owned())])));
        assert_eq!(commit.committer(), Some(b"C <c@x>".as_slice()));
        commit.set_committer(b"N <n@x>");
        commit.set_author(b"A <a@x>");
        commit.drop_signatures();
        let expected = b"tree 1\nparent a\nparent n\nauthor A <a@x> 1 +0100\ncommitter N <n@x> 2 +0000\n\
            encoding ISO-8859-1\n\nsubject \xff\n\nbody without newline";
        assert_eq!(commit.format(), expected);
    }
}
