//! Searches a workspace for the values of secrets: contents, names and the targets of links, in every form in which a secret is known.
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
use zeroize::Zeroizing;

use crate::message::readable::readable;
use crate::sandbox::disk::tree::{self, Entry};
use crate::secret::{Secret, Traces};

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
    let needles = Needles::new(secrets);
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
    let mut buffer = Zeroizing::new(vec![0_u8; PIECE]);
    let mut trail = needles.traces.trail();
    loop {
        if Instant::now() >= until {
            return Err(SearchError::Slow);
        }
        let count = file.read(&mut buffer).map_err(|_| unread())?;
        // An empty line behind the end: nothing more follows.
        let piece = if count == 0 {
            b"\n"
        } else {
            buffer.get(..count).unwrap_or_default()
        };
        if let Some(number) = trail.push(piece) {
            return Err(found(needles.name(number)));
        }
        if count == 0 {
            return Ok(());
        }
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

/// The secrets, and their names in the order in which they are looked for.
struct Needles<'a> {
    names: Vec<&'a str>,
    traces: Traces,
}

impl<'a> Needles<'a> {
    fn new(secrets: &'a [(String, Secret)]) -> Self {
        let mut traces = Traces::default();
        let mut names = Vec::new();
        for (name, secret) in secrets {
            // A clone of one that is there already would be counted as that one.
            traces.add(&Secret::new(secret.expose()));
            names.push(name.as_str());
        }
        Self { names, traces }
    }

    fn name(&self, number: usize) -> &'a str {
        self.names.get(number).copied().unwrap_or("a secret")
    }

    /// The secret that stands in these bytes.
    fn find(&self, bytes: &[u8]) -> Option<&'a str> {
        let mut trail = self.traces.trail();
        let found = trail.push(bytes).or_else(|| trail.push(b"\n"));
        found.map(|number| self.name(number))
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
    fn large_values_and_many_of_them_are_found_too() {
        let large = |seed: u64| -> String {
            let mut state = seed;
            let letters = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + (state >> 33).to_le_bytes()[0] % 26)
            });
            letters.take(16 * 1024).collect()
        };
        let secrets: Vec<(String, Secret)> = (1..=8)
            .map(|seed| (format!("KEY_{seed}"), Secret::new(&large(seed))))
            .collect();
        for (name, secret) in &secrets {
            let wrapped: Vec<String> = base64::engine::general_purpose::STANDARD
                .encode(secret.expose())
                .as_bytes()
                .chunks(76)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            for text in [
                secret.expose().to_owned(),
                hex::encode(secret.expose()),
                wrapped.join("\r\n"),
            ] {
                let root = tempfile::tempdir().unwrap();
                std::fs::write(root.path().join("kept"), format!("{}{text}", "x".repeat(PIECE - 5000))).unwrap();
                let said = search(root.path(), &secrets).map_err(|error| error.to_string());
                assert!(said.as_ref().is_err_and(|said| said.contains(name)), "{name}: {said:?}");
            }
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("clean"), &secrets[0].1.expose()[1..]).unwrap();
        assert!(search(root.path(), &secrets).is_ok());
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
