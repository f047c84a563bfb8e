//! Where log lines leave the process: every one is masked as it stands, whoever wrote it, this program or a library of it.
//!
//! Also panics' words. Never lets a line out in pieces, so that no secret is cut in two before it is looked for.

use std::io::{self, Write as _};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter, fmt, registry};

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
    EnvFilter::try_from_env("COFFERDAM_LOG").unwrap_or_else(|_| EnvFilter::new(otherwise))
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
