//! Tries to get out of a sandbox, row by row, and says of each what was tried and what happened. A session's agent command: the test puts it
//! into an image, and the seal that it tries is exactly the product's.
//!
//! A row never harms what it reaches: it opens and does not write, writes back what it read, passes arguments that no kernel takes. So the
//! same program runs unsealed as a control, where the rows must succeed, or they could not have failed anywhere.
//!
//! Asked by a line of its prompt: `!escape MODE key=value...`. Knows nothing of cofferdam's crates.

mod devices;
mod files;
mod neighbour;
mod network;
mod privileges;
mod report;
mod resources;
mod syscalls;

use std::collections::BTreeMap;
use std::process::ExitCode;

use report::Report;

/// What the prompt asks for.
pub(crate) struct Asked {
    mode: String,
    values: BTreeMap<String, String>,
}

impl Asked {
    fn parse(prompt: &str) -> Option<Self> {
        let line = prompt.lines().find_map(|line| line.trim().strip_prefix("!escape "))?;
        let mut words = line.split_whitespace();
        let mode = words.next()?.to_owned();
        let pair = |word: &str| {
            word.split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        let values = words.filter_map(pair).collect();
        Some(Self { mode, values })
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, key: &str, otherwise: u64) -> u64 {
        self.text(key).parse().unwrap_or(otherwise)
    }

    /// Whether sandboxes of this runtime have a kernel of their own.
    pub(crate) fn own_kernel(&self) -> bool {
        self.text("runtime").contains("runsc")
    }

    pub(crate) fn is_control(&self) -> bool {
        self.text("control") == "yes"
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("sleeper") => {
            std::thread::sleep(std::time::Duration::from_secs(60));
            return ExitCode::SUCCESS;
        }
        Some("parent") => return resources::parent(arguments.get(1).map_or("", String::as_str)),
        Some("who") => {
            report::line(&nix::unistd::geteuid().to_string());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let Some(asked) = Asked::parse(&arguments.join("\n")) else {
        report::line("no line `!escape MODE` in the prompt");
        return ExitCode::from(2);
    };
    let mut report = Report::default();
    match asked.mode.as_str() {
        "walls" => {
            privileges::rows(&asked, &mut report);
            syscalls::rows(&asked, &mut report);
            files::rows(&asked, &mut report);
            devices::rows(&asked, &mut report);
            network::rows(&asked, &mut report);
            resources::rows(&asked, &mut report);
        }
        "zombies" => resources::zombies(&mut report, 20),
        "forks" => resources::forks(&asked, &mut report),
        "memory" => resources::memory(&asked, &mut report),
        "disk" => resources::workspace(&asked, &mut report),
        "flood" => resources::flood(&asked),
        "signals" => privileges::signals(&mut report),
        "hold" => neighbour::hold(&asked),
        "neighbour" => neighbour::rows(&asked, &mut report),
        other => {
            report::line(&format!("no mode {other}"));
            return ExitCode::from(2);
        }
    }
    report.end();
    ExitCode::SUCCESS
}
