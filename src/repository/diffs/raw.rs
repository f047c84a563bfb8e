//! Reads what `git diff --raw -z` and `git diff BLOB BLOB` print. Pure; a stranger wrote the files, and git the frame around them.
//!
//! Never guesses: what does not read is refused, so that no list of files is shorter than it should be without anybody noticing.

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// What happened to it: git's letter.
    pub(super) status: u8,
    /// Before the change; `None` when it was not there.
    pub(super) before: Option<Side>,
    /// After it.
    pub(super) after: Option<Side>,
    /// How alike both sides of a rename are, in percent.
    pub(super) alike: Option<u8>,
    /// Its path after the change (before it, when it is gone).
    pub(super) path: String,
    /// Its path before, where that was another.
    pub(super) old_path: Option<String>,
}

impl Entry {
    /// Whether it is that file, or lies below that directory, under either of its names.
    pub(super) fn is_below(&self, path: &str) -> bool {
        let wanted = path.trim_matches('/');
        let matches = |path: &str| {
            path.strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        wanted.is_empty() || matches(&self.path) || self.old_path.as_deref().is_some_and(matches)
    }

    /// What git says of modes and names, as git says it: so no diff is empty.
    pub(super) fn about(&self) -> String {
        let mut text = match (&self.before, &self.after) {
            (None, Some(after)) => format!("new file mode {}\n", after.mode),
            (Some(before), None) => format!("deleted file mode {}\n", before.mode),
            (Some(before), Some(after)) if before.mode != after.mode => {
                format!("old mode {}\nnew mode {}\n", before.mode, after.mode)
            }
            _ => String::new(),
        };
        if let Some(alike) = self.alike.filter(|_| self.old_path.is_some()) {
            text.push_str(&format!("similarity index {alike}%\n"));
        }
        text
    }
}

/// One side of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    /// Six octal digits.
    pub(super) mode: String,
    /// The object.
    pub(super) id: String,
}

impl Side {
    /// Whether it is a commit of another repository: there is no object here to look at.
    pub(super) fn is_submodule(&self) -> bool {
        self.mode == "160000"
    }

    fn read(mode: &str, id: &str) -> Option<Option<Self>> {
        let well_formed = mode.len() == 6
            && mode.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(id.len(), 40 | 64)
            && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed.then(|| {
            (mode != "000000").then(|| Self {
                mode: mode.to_owned(),
                id: id.to_owned(),
            })
        })
    }
}

/// The list of files; `None` when it does not read.
pub(super) fn entries(output: &[u8]) -> Option<Vec<Entry>> {
    let mut fields = output.split(|byte| *byte == 0);
    let mut found = Vec::new();
    loop {
        let frame = fields.next()?;
        if frame.is_empty() {
            // The end: what follows the last NUL.
            return fields.next().is_none().then_some(found);
        }
        let frame = std::str::from_utf8(frame).ok()?.strip_prefix(':')?;
        let parts: Vec<&str> = frame.split(' ').collect();
        let [mode_before, mode_after, id_before, id_after, status] = parts[..] else {
            return None;
        };
        let letter = *status.as_bytes().first()?;
        let path = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let first = path(fields.next()?);
        let (old_path, path) = if matches!(letter, b'R' | b'C') {
            (Some(first), path(fields.next()?))
        } else {
            (None, first)
        };
        found.push(Entry {
            status: letter,
            before: Side::read(mode_before, id_before)?,
            after: Side::read(mode_after, id_after)?,
            alike: status.get(1..).and_then(|number| number.parse().ok()),
            path,
            old_path,
        });
    }
}

/// What the diff of two blobs says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hunks {
    /// Lines.
    Text(String),
    /// git takes one of them for binary.
    Binary,
}

/// The hunks without git's header; `None` when there are none.
pub(super) fn hunks(output: &[u8]) -> Option<Hunks> {
    let mut start = 0;
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"@@ ") {
            return Some(Hunks::Text(String::from_utf8_lossy(&output[start..]).into_owned()));
        }
        if line.starts_with(b"Binary files ") {
            return Some(Hunks::Binary);
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";
    const NONE: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn every_kind_of_entry_reads() {
        let output = format!(
            ":100644 100755 {A} {B} M\0a b\0:000000 100644 {NONE} {B} A\0new\nline\0:100644 000000 {A} {NONE} D\0gone\0:100644 100644 {A} {B} R087\0old\0new\0"
        );
        let read = entries(output.as_bytes()).unwrap();
        assert_eq!(read.len(), 4);
        assert_eq!(read[0].after.as_ref().unwrap().mode, "100755");
        assert_eq!((read[1].path.as_str(), &read[1].before), ("new\nline", &None));
        assert_eq!(read[2].after, None);
        assert_eq!((read[3].old_path.as_deref(), read[3].alike), (Some("old"), Some(87)));
        assert_eq!(entries(b""), Some(Vec::new()));
    }

    #[test]
    fn a_list_that_was_cut_or_forged_is_refused() {
        let whole = format!(":100644 100644 {A} {B} M\0a\0");
        for bad in [
            &whole.as_bytes()[..whole.len() - 1],
            &whole.as_bytes()[..20],
            b"garbage\0x\0",
            format!(":100644 {A} M\0a\0").as_bytes(),
            format!(":100644 100644 {A} --output=x M\0a\0").as_bytes(),
            format!(":100644 100644 {A} {B} R100\0a\0").as_bytes(),
        ] {
            assert_eq!(entries(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn hunks_begin_after_git_s_header() {
        let output = b"diff --git a/1 b/2\nindex 1..2 100644\n--- a/1\n+++ b/2\n@@ -1 +1 @@\n-a\n+Binary files \n";
        assert_eq!(
            hunks(output),
            Some(Hunks::Text("@@ -1 +1 @@\n-a\n+Binary files \n".into()))
        );
        assert_eq!(
            hunks(b"diff --git a/1 b/2\nBinary files a/1 and b/2 differ\n"),
            Some(Hunks::Binary)
        );
        assert_eq!(hunks(b""), None);
    }
}
