//! Where log lines leave the process: every one is masked as it stands, whoever wrote it, this program or a library of it.
//!
//! Also panics' words. Never lets a line out in pieces, so that no secret is cut in two before it is looked for.

use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter, fmt, registry};

use super::show;
use crate::message::SessionId;
use crate::metrics::Recent;
use crate::secret::log_line;

/// Where lines of sessions are remembered too, once there is such a place.
static RECENT: OnceLock<Arc<Recent>> = OnceLock::new();

/// What the log needs for as long as the daemon runs: with the feature `otel` the exporter of spans, otherwise nothing.
#[derive(Debug, Default)]
pub(super) struct Kept {
    #[cfg(feature = "otel")]
    _tracing: Option<super::otel::Tracing>,
}

/// The daemon's log: JSON lines on standard error. lapin logs each channel that the broker closes, which is how a missing queue is told here.
///
/// # Errors
/// With the feature `otel`: where traces are to go cannot be used.
pub(super) fn as_json() -> Result<Kept, String> {
    mask_panics();
    // One span tells whose line it is: the session's.
    let told = level("info,lapin=off").and(filter::filter_fn(is_told));
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(Masked)
        .with_filter(told.and(filter::filter_fn(is_whose)));
    let lines = registry().with(lines);
    // Each is set once per process; a second time changes nothing.
    #[cfg(feature = "otel")]
    {
        let (layer, tracing) = super::otel::layer(&lines)?.unzip();
        let _ = lines.with(layer).try_init();
        Ok(Kept { _tracing: tracing })
    }
    #[cfg(not(feature = "otel"))]
    {
        let _ = lines.try_init();
        Ok(Kept::default())
    }
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

/// From now on the lines of each session are remembered here, as they left.
pub(super) fn remember(recent: Arc<Recent>) {
    // Once per process.
    let _ = RECENT.set(recent);
}

/// Whose line this is. A quotation mark in a text is escaped, so only a field of the line itself can be meant.
fn session_of(line: &str) -> Option<SessionId> {
    let (_, rest) = line.split_once("\"session\":\"")?;
    rest.split('"').next()?.parse().ok()
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

/// Of spans, lines bear only the one that tells whose they are.
fn is_whose(about: &Metadata<'_>) -> bool {
    about.is_event() || about.name() == "session"
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
        if let Some(recent) = RECENT.get()
            && let Some(session) = session_of(&masked)
        {
            recent.add(&session.to_string(), &masked);
        }
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
    fn a_line_is_a_session_s_by_its_own_field_and_by_nothing_that_it_quotes() {
        let id = "7e1c0e9c-4a5d-4f5e-8d5b-0d2f4f1f9b11";
        let of = |line: &str| session_of(line).map(|session| session.to_string());
        assert_eq!(
            of(&format!("{{\"span\":{{\"session\":\"{id}\"}}}}")).as_deref(),
            Some(id)
        );
        let quoted = serde_json::json!({"message": format!("{{\"session\":\"{id}\"}}")}).to_string();
        assert_eq!(of(&quoted), None);
        assert_eq!(of("{\"session\":\"none\"}"), None);
        assert_eq!(of("{}"), None);
    }

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
