//! `cofferdam completions` and `cofferdam man`: what a shell and a reader want to know of the command line, from its own definition; and the
//! program's version with the commit that it was built from.

use std::io::Write as _;
use std::path::Path;

use clap::ValueEnum;

use super::{Exit, show};

/// The version, and what it was built from. The commit is asked for by `build.rs` beside this file.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COFFERDAM_BUILT_FROM"), ")");

/// The shells that get completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell, mut command: clap::Command) -> Exit {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "cofferdam", &mut text);
    print(&text)
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub(super) fn man(directory: Option<&Path>, command: clap::Command) -> Exit {
    let Some(directory) = directory else {
        let mut text = Vec::new();
        return match clap_mangen::Man::new(command).render(&mut text) {
            Ok(()) => print(&text),
            Err(error) => failed(&error.to_string()),
        };
    };
    match clap_mangen::generate_to(command, directory) {
        Ok(()) => Exit::Success,
        Err(error) => failed(&format!(
            "the manual pages cannot be written to {}: {error}",
            directory.display()
        )),
    }
}

fn print(text: &[u8]) -> Exit {
    // A closed output is nobody's error.
    let _ = std::io::stdout().lock().write_all(text);
    Exit::Success
}

fn failed(message: &str) -> Exit {
    show::complain(message);
    Exit::Software
}
