//! Running git as the agent's user, and the session's trailers. Git is called with arguments, never through a shell,
//! and no text of a commit ever becomes an option.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The file in a repository's own directory that holds the trailers for this repository: people differ from forge to forge.
const REPOSITORY_FILE: &str = "cofferdam-trailers";
/// Where the worker puts the trailers for every other repository, unless the variable names another file.
const TRAILERS_FILE: &str = "/home/agent/.cofferdam/trailers";
const TRAILERS_VARIABLE: &str = "COFFERDAM_TRAILERS";
const MAX_TRAILERS_BYTES: u64 = 64 * 1024;
const MAX_TRAILERS: usize = 64;
const MAX_TRAILER_BYTES: usize = 1000;

/// Makes git take every line for text: no message has this sign.
const COMMENTS_ARE_TEXT: &str = "core.commentChar=\u{1}";

/// Why git's part could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// The trailers' file is there and cannot be read.
    #[error("the trailers in {} could not be read", path.display())]
    ReadTrailers {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no git, or no process can be made.
    #[error("git could not be run")]
    RunGit(#[source] io::Error),
    /// Git said no.
    #[error("git {command} failed: {stderr}")]
    Git {
        /// Its sub-command.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// A hook was not called as git calls it.
    #[error("a hook is given the file of the message")]
    FindMessage,
    /// The message's file.
    #[error("the commit message in {} could not be read or written", path.display())]
    ReadMessage {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A repository to run git in; `None` is the current directory, as in hooks.
#[derive(Debug, Default, Clone)]
pub(crate) struct Git {
    repository: Option<PathBuf>,
}

/// What git printed, and whether it was content.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Git {
    pub(crate) fn within(repository: Option<PathBuf>) -> Self {
        Self { repository }
    }

    /// Runs git and wants it to succeed.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Result<Vec<u8>, GitError> {
        let answer = self.ask(arguments, input)?;
        if answer.success {
            return Ok(answer.stdout);
        }
        let command = arguments
            .iter()
            .map(AsRef::as_ref)
            .find(|argument| is_word(argument))
            .unwrap_or_default();
        let stderr = String::from_utf8_lossy(&answer.stderr)
            .trim()
            .chars()
            .take(1000)
            .collect();
        Err(GitError::Git {
            command: command.to_string_lossy().into_owned(),
            stderr,
        })
    }

    /// Runs git where failing is an answer too.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Result<Answer, GitError> {
        let mut command = Command::new("git");
        if let Some(repository) = &self.repository {
            command.arg("-C").arg(repository);
        }
        // Commits as they are, not as replace refs show them.
        command.args(arguments).env("GIT_NO_REPLACE_OBJECTS", "1");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(GitError::RunGit)?;
        if let Some(mut stdin) = child.stdin.take() {
            // The commands that are used here read all of their input before they print; one that reads none of it has
            // a better reason in its exit code than a broken pipe.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output().map_err(GitError::RunGit)?;
        Ok(Answer {
            success: output.status.success(),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

/// A sub-command, neither an option nor the value of `-c`.
fn is_word(argument: &OsStr) -> bool {
    argument
        .as_bytes()
        .iter()
        .all(|byte| byte.is_ascii_lowercase() || *byte == b'-')
        && !argument.as_bytes().starts_with(b"-")
}

/// The arguments that add trailers, to be followed by nothing (stdin) or `--in-place` and a file.
pub(crate) fn add_arguments(trailers: &[OsString], comments: Comments) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-c", "trailer.separators=:"].map(OsString::from).into();
    if comments == Comments::AreText {
        arguments.extend(["-c", COMMENTS_ARE_TEXT].map(OsString::from));
    }
    // `---` is a line like any other in a commit message.
    let fixed = [
        "interpret-trailers",
        "--no-divider",
        "--where=end",
        "--if-exists=addIfDifferent",
        "--if-missing=add",
    ];
    arguments.extend(fixed.map(OsString::from));
    for trailer in trailers {
        arguments.push("--trailer".into());
        arguments.push(trailer.clone());
    }
    arguments
}

/// What a line is that begins with the comment character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comments {
    /// Git will take it out.
    AreComments,
    /// It is the whole message, as in `git commit -m '#12: fix'`.
    AreText,
}

/// The session's trailers for a repository, one `Key: value` each; `None` where there is no file, which is no session.
pub(crate) fn session_trailers(git: &Git) -> Result<Option<Vec<OsString>>, GitError> {
    if let Some(directory) = common_directory(git)?
        && let Some(trailers) = trailers_in(directory.join(REPOSITORY_FILE))?
    {
        return Ok(Some(trailers));
    }
    let path = std::env::var_os(TRAILERS_VARIABLE).map_or_else(|| PathBuf::from(TRAILERS_FILE), PathBuf::from);
    trailers_in(path)
}

/// A repository's own directory. The common one: the trees that `git worktree` adds have theirs from the clone.
fn common_directory(git: &Git) -> Result<Option<PathBuf>, GitError> {
    // As a hook of a clone is run: git itself need not be asked.
    let is_plain = git.repository.is_none()
        && ["GIT_DIR", "GIT_COMMON_DIR"]
            .iter()
            .all(|name| std::env::var_os(name).is_none());
    let here = Path::new(".git");
    if is_plain && here.join("HEAD").is_file() && here.join("objects").is_dir() && here.join("refs").is_dir() {
        return Ok(Some(here.to_owned()));
    }
    let own = git.ask(&["rev-parse", "--path-format=absolute", "--git-common-dir"], b"")?;
    let directory = own.stdout.strip_suffix(b"\n").filter(|_| own.success);
    Ok(directory.map(|directory| OsStr::from_bytes(directory).into()))
}

fn trailers_in(path: PathBuf) -> Result<Option<Vec<OsString>>, GitError> {
    match read_bounded(&path) {
        Ok(content) => Ok(Some(parse_trailers(&content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(GitError::ReadTrailers { path, source }),
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_TRAILERS_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// Lines that are not trailers are left out: the file is the agent's, and whoever checks commits knows what must be there.
fn parse_trailers(content: &[u8]) -> Vec<OsString> {
    let lines = content
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| is_trailer(line));
    lines
        .take(MAX_TRAILERS)
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect()
}

fn is_trailer(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return false;
    };
    let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let named =
        !key.is_empty() && key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') && key[0] != b'-';
    named && !value.is_empty() && line.len() <= MAX_TRAILER_BYTES && !line.iter().any(u8::is_ascii_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_trailers_from_a_hostile_file() {
        let content = b"Co-authored-by: J\xf6rg <j@x>\r\nno trailer\n: none\nKey:\n-x: y\n--flag: y\nA b: c\nK\x07: v\nSession:1\n";
        let expected: Vec<OsString> = [b"Co-authored-by: J\xf6rg <j@x>".to_vec(), b"Session:1".to_vec()]
            .map(OsString::from_vec)
            .into();
        assert_eq!(parse_trailers(content), expected);
        let long = format!("K: {}\n", "x".repeat(MAX_TRAILER_BYTES));
        assert!(parse_trailers(long.as_bytes()).is_empty());
        assert_eq!(parse_trailers("K: v\n".repeat(1000).as_bytes()).len(), MAX_TRAILERS);
    }
}
