//! Searches a workspace for the values of secrets: contents, names and the targets of links, in clear, URL-encoded and in base64.
//!
//! Follows nothing, runs no git, and refuses what it cannot read whole. What a script compressed or encrypted is not recognised. The sandbox
//! that wrote the workspace is gone.

use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag};
use regex::bytes::Regex;
use zeroize::Zeroizing;

use crate::message::readable::readable;
use crate::sandbox::disk::tree::{self, Entry};
use crate::secret::Secret;

/// How long a search may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes that are searched at a time.
const PIECE: usize = 256 * 1024;

/// Why a workspace is not handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SearchError {
    #[error(
        "the set-up left the value of {name} in the workspace, in {place}: have the script keep it out of files, their names and git's settings"
    )]
    Found { name: String, place: String },
    #[error("the workspace could not be searched for the set-up's secrets within {} s: have the script leave less behind", LIMIT.as_secs())]
    Slow,
    #[error(
        "the workspace could not be searched whole for the set-up's secrets ({place}): have the script leave plain files and directories behind"
    )]
    Unread { place: String },
}

/// Fails on the first secret that is found, and when not everything could be looked at.
pub(super) fn search(workspace: &Path, secrets: &[(String, Secret)]) -> Result<(), SearchError> {
    let Some(needles) = Needles::new(secrets) else {
        return Ok(());
    };
    let until = Instant::now() + LIMIT;
    let mut failure = None;
    let mut visit = |entry: &Entry<'_>| match look(entry, &needles, until) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    };
    let walked = tree::walk(workspace, until, &mut visit);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let unread = |place: &str| {
        Err(SearchError::Unread {
            place: place.to_owned(),
        })
    };
    match walked {
        Ok(walked) if walked.is_whole() => Ok(()),
        Ok(walked) if walked.cut => Err(SearchError::Slow),
        Ok(walked) if walked.too_deep => unread("directories nested too deep"),
        Ok(_) => unread("a directory that cannot be read"),
        Err(_) => unread("its root"),
    }
}

fn look(entry: &Entry<'_>, needles: &Needles<'_>, until: Instant) -> Result<(), SearchError> {
    let found = |name: &str| SearchError::Found {
        name: name.to_owned(),
        place: shown(entry.path),
    };
    let unread = || SearchError::Unread {
        place: shown(entry.path),
    };
    if let Some(name) = needles.find(entry.name.to_bytes()) {
        return Err(SearchError::Found {
            name: name.to_owned(),
            place: "the name of a file".to_owned(),
        });
    }
    if entry.is(SFlag::S_IFLNK) {
        let target = readlinkat(entry.parent, entry.name).map_err(|_| unread())?;
        return needles.find(target.as_bytes()).map_or(Ok(()), |name| Err(found(name)));
    }
    if !entry.is(SFlag::S_IFREG) {
        return Ok(());
    }
    // Without waiting: it may have become a pipe.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = openat(entry.parent, entry.name, flags, Mode::empty()).map_err(|_| unread())?;
    let mut file = File::from(file);
    let mut buffer = Zeroizing::new(vec![0_u8; PIECE + needles.longest]);
    let mut kept = 0;
    loop {
        if Instant::now() >= until {
            return Err(SearchError::Slow);
        }
        let count = file.read(&mut buffer[kept..]).map_err(|_| unread())?;
        if count == 0 {
            return Ok(());
        }
        let end = kept + count;
        if let Some(name) = needles.find(&buffer[..end]) {
            return Err(found(name));
        }
        // A value may lie across two pieces.
        let from = end.saturating_sub(needles.longest.saturating_sub(1));
        buffer.copy_within(from..end, 0);
        kept = end - from;
    }
}

/// A path for people: the script chose it.
fn shown(path: &Path) -> String {
    readable(&path.to_string_lossy())
        .replace('\n', " ")
        .chars()
        .take(300)
        .collect()
}

/// The forms of all secrets.
struct Needles<'a> {
    any: Regex,
    forms: Vec<(&'a str, Zeroizing<String>)>,
    longest: usize,
}

impl<'a> Needles<'a> {
    fn new(secrets: &'a [(String, Secret)]) -> Option<Self> {
        let forms: Vec<_> = secrets
            .iter()
            .flat_map(|(name, secret)| secret.forms().into_iter().map(move |form| (name.as_str(), form)))
            .collect();
        let longest = forms.iter().map(|(_, form)| form.len()).max()?;
        let pattern: Vec<String> = forms.iter().map(|(_, form)| regex::escape(form)).collect();
        let pattern = Zeroizing::new(format!("(?-u){}", pattern.join("|")));
        // Literals alone: it always compiles.
        let any = Regex::new(&pattern).ok()?;
        Some(Self { any, forms, longest })
    }

    /// The secret that stands in these bytes.
    fn find(&self, bytes: &[u8]) -> Option<&'a str> {
        let found = self.any.find(bytes)?;
        self.forms
            .iter()
            .find(|(_, form)| form.as_bytes() == found.as_bytes())
            .map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    type Make = Box<dyn Fn(&Path)>;

    const VALUE: &str = "npm0123456789+abc/def";

    fn said(make: impl FnOnce(&Path)) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/.git")).unwrap();
        std::fs::write(root.path().join("a/plain.txt"), "nothing to see").unwrap();
        make(root.path());
        let secrets = [
            ("OTHER".to_owned(), Secret::new("another-secret-value")),
            ("NPM_TOKEN".to_owned(), Secret::new(VALUE)),
        ];
        search(root.path(), &secrets).err().map(|error| error.to_string())
    }

    #[test]
    fn a_value_is_found_in_every_form_and_place_and_never_told() {
        assert_eq!(said(|_| {}), None);
        let encoded = base64::engine::general_purpose::STANDARD.encode(VALUE);
        let cases: [(&str, Make); 6] = [
            (
                "a/.npmrc",
                Box::new(|root| std::fs::write(root.join("a/.npmrc"), format!("_authToken={VALUE}\n")).unwrap()),
            ),
            (
                "a/.git/config",
                Box::new(|root| {
                    std::fs::write(root.join("a/.git/config"), "npm0123456789%2Babc%2Fdef").unwrap();
                }),
            ),
            (
                "a/base64",
                Box::new(move |root| std::fs::write(root.join("a/base64"), &encoded).unwrap()),
            ),
            (
                "a/large",
                Box::new(|root| {
                    // Across the border of two pieces.
                    let mut text = vec![b'x'; PIECE - 5];
                    text.extend_from_slice(VALUE.as_bytes());
                    std::fs::write(root.join("a/large"), text).unwrap();
                }),
            ),
            (
                "a/link",
                Box::new(|root| std::os::unix::fs::symlink("another-secret-value", root.join("a/link")).unwrap()),
            ),
            (
                "the name of a file",
                Box::new(|root| std::fs::create_dir(root.join("a/another-secret-value.d")).unwrap()),
            ),
        ];
        for (place, make) in cases {
            let said = said(make).unwrap_or_else(|| panic!("{place} was not found"));
            assert!(said.contains(place), "{said}");
            assert!(said.contains("NPM_TOKEN") || said.contains("OTHER"), "{said}");
            assert!(
                !said.contains(VALUE) && !said.contains("another-secret-value"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), VALUE).unwrap();
        let outside = outside.path().to_owned();
        let said = said(|root| {
            nix::unistd::mkfifo(&root.join("a/pipe"), Mode::S_IRWXU).unwrap();
            std::os::unix::fs::symlink(&outside, root.join("a/away")).unwrap();
            std::os::unix::fs::symlink(outside.join("secret"), root.join("a/file")).unwrap();
        });
        assert_eq!(said, None);
    }

    #[test]
    fn what_lies_too_deep_to_be_looked_at_is_refused() {
        let said = said(|root| std::fs::create_dir_all(root.join("d/".repeat(tree::DEEPEST + 1))).unwrap());
        assert!(said.unwrap().contains("too deep"));
    }
}
