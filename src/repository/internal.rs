//! The worker's own child processes that read what an agent made: the check of a push, the summary of what was staged,
//! and the new lines of its commits.
//!
//! They have no credential and a cleared or git-made environment, limit themselves before they read, open no file but those of the one staging
//! (where the kernel has Landlock), reach no network, and only ever answer on their output: a parser bug costs one push or one summary.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use super::policy::{self, Policy};
pub(super) use serve::WRITING;

mod added;
mod instructions;
mod limits;
mod pre_receive;
mod script;
mod serve;
mod survey;
mod trees;
mod walls;

/// The hook's subcommand.
pub(super) const PRE_RECEIVE: &str = "pre-receive";
/// The subcommand that prints a file of a branch.
pub(super) const SCRIPT: &str = "script";
/// The subcommand that prints what a branch says to agents.
pub(super) const INSTRUCTIONS: &str = "instructions";
/// The subcommand that sums up what was staged.
pub(super) const INSPECT: &str = "inspect";

/// The subcommand that hands over what the new commits add.
pub(super) const ADDED: &str = "added";

/// The subcommand that becomes git's server program, behind walls.
pub(super) const SERVE: &str = "serve";

/// The subcommand that says how far this kernel limits the files that these processes open: `all`, `partly`, `none`.
pub const WALLS: &str = "walls";

/// Runs one subcommand on this process's own streams. The process must do nothing else: it gets limits that cannot be lifted.
pub fn run(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let (input, output, complaints) = (
        std::io::stdin().lock(),
        std::io::stdout().lock(),
        std::io::stderr().lock(),
    );
    ExitCode::from(run_on(arguments, input, output, complaints))
}

/// The same on given streams: 0 accepted or done, 1 refused, 2 could not be done.
pub fn run_on(
    arguments: impl IntoIterator<Item = String>,
    input: impl BufRead,
    mut output: impl Write,
    mut complaints: impl Write,
) -> u8 {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [PRE_RECEIVE] => return pre_receive::run(input, &mut complaints),
        [INSPECT, directory, head, detail] => survey::run(Path::new(directory), head, detail, &mut output),
        [SCRIPT, directory, reference, path] => script::run(Path::new(directory), reference, path, &mut output),
        [INSTRUCTIONS, directory, reference, patterns @ ..] => {
            instructions::run(Path::new(directory), reference, patterns, &mut output)
        }
        [SERVE, directory, hooks, access, program, rest @ ..] => Err(serve::run(
            Path::new(directory),
            Path::new(hooks),
            access,
            program,
            rest,
        )),
        [WALLS] => walls::told().and_then(|told| writeln!(output, "{told}").map_err(|error| error.to_string())),
        [ADDED, directory, head, most] => added::run(Path::new(directory), head, most, &mut output),
        _ => Err(format!(
            "usage: {PRE_RECEIVE} | {INSPECT} DIRECTORY HEAD full|count | {SCRIPT} DIRECTORY REF PATH | {INSTRUCTIONS} DIRECTORY REF PATTERN... | {ADDED} DIRECTORY HEAD BYTES; these are for the worker itself"
        )),
    };
    match done {
        Ok(()) => 0,
        Err(text) => {
            // Nobody is left to tell when this fails.
            let _ = writeln!(complaints, "{text}");
            2
        }
    }
}

/// Reads the policy of a staging, takes its limits on, and sees nothing but this staging from then on.
fn enter(directory: &Path) -> Result<Policy, String> {
    let policy = Policy::read(directory).map_err(|error| error.to_string())?;
    limits::apply(&policy)?;
    walls::close_to(directory)?;
    Ok(policy)
}

/// The staging with all that it builds on.
fn open(directory: &Path) -> Result<git2::Repository, git2::Error> {
    git2::Repository::open_bare(directory.join(policy::STAGING))
}

/// The commits that the forge's references showed to the session.
fn shown(repository: &git2::Repository, directory: &Path) -> Result<Vec<git2::Oid>, git2::Error> {
    let refs = super::bare::read_refs(&directory.join(policy::STORE))
        .map_err(|error| git2::Error::from_str(&error.to_string()))?;
    let mut commits = Vec::new();
    for reference in refs {
        let id = git2::Oid::from_str(reference.target.as_str())?;
        // A tag may point at a file or a tree: it reaches no commit.
        if let Ok(commit) = repository
            .find_object(id, None)
            .and_then(|object| object.peel_to_commit())
        {
            commits.push(commit.id());
        }
    }
    Ok(commits)
}
