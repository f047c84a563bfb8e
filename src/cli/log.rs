//! Where log lines leave the process: every one is masked as it stands, whoever wrote it, this program or a library of it.
//!
//! Also panics' words. Never lets a line out in pieces, so that no secret is cut in two before it is looked for.

use std::io::{self, Write as _};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter, fmt, registry};

use super::show;
use crate::secret::log_line;

/// The daemon's log: JSON lines on standard error. lapin logs each channel that the broker closes, which is how a missing queue is told here.
pub(super) fn as_json() {
    mask_panics();
    let lines = fmt::layer().json().flatten_event(true).with_writer(Masked);
    let lines = registry()
        .with(level("info,lapin=off"))
        .with(filter::filter_fn(is_told))
        .with(lines);
    // Set once per process; a second time changes nothing.
    let _ = lines.try_init();
}

/// The log of commands: only what is worth a person's attention.
pub(super) fn to_standard_error() {
    mask_panics();
    let lines = fmt::layer().with_writer(Masked);
    let lines = registry()
        .with(level("error,lapin=off"))
        .with(filter::filter_fn(is_told))
        .with(lines);
    let _ = lines.try_init();
}

fn level(otherwise: &str) -> EnvFilter {
    match std::env::var("COFFERDAM_LOG") {
        Ok(asked) if !asked.trim().is_empty() => filter_of(&asked).unwrap_or_else(|| {
            show::complain(&format!(
                "COFFERDAM_LOG is no filter, so it is {otherwise}: write a level (error, warn, info, debug), or target=level, with commas between"
            ));
            EnvFilter::new(otherwise)
        }),
        Ok(_) | Err(_) => EnvFilter::new(otherwise),
    }
}

/// The filter that is asked for; lapin is silent unless it is named. `None` where the text is no filter.
fn filter_of(asked: &str) -> Option<EnvFilter> {
    let names_lapin = asked.split(',').any(|part| {
        part.split(['=', '[', ':'])
            .next()
            .is_some_and(|target| target.trim() == "lapin")
    });
    let whole = if names_lapin {
        asked.to_owned()
    } else {
        format!("{asked},lapin=off")
    };
    EnvFilter::try_new(whole).ok()
}

/// Whatever level is asked for: libraries' traces are not told. They hold what is carried, byte for byte, tasks with plain tokens among it,
/// before anybody here knows that there is a secret in it.
fn is_told(about: &Metadata<'_>) -> bool {
    *about.level() != Level::TRACE || about.target().split("::").next() == Some("cofferdam")
}

/// A bug's words may repeat what it stumbled over.
fn mask_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(io::stderr().lock(), "{}", log_line(&panic.to_string()));
    }));
}

/// Makes a writer for each line.
struct Masked;

/// One line; the formatter writes it whole.
struct Line;

impl<'a> MakeWriter<'a> for Masked {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let masked = log_line(&String::from_utf8_lossy(line));
        io::stderr().lock().write_all(masked.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lapin_is_silent_unless_it_is_asked_for_by_name() {
        for (asked, lapin) in [
            ("debug", "lapin=off"),
            ("info,cofferdam=debug", "lapin=off"),
            ("info,lapin=warn", "lapin=warn"),
        ] {
            let filter = filter_of(asked).unwrap().to_string();
            assert!(filter.contains(lapin), "{asked}: {filter}");
            assert_eq!(filter.matches("lapin").count(), 1, "{filter}");
        }
        assert!(filter_of("lapin==,x=[").is_none());
    }
}
