//! One word for the state of a commit from GitHub's two systems: check runs, and the statuses that came before them. Pure.
//!
//! Never says success where something was not seen.

use serde::Deserialize;

use crate::forge::lenient::nullable;
use crate::forge::text::word;
use crate::secret::Mask;

/// `GET /repos/:owner/:name/commits/:sha/check-runs`
#[derive(Debug, Default, Deserialize)]
pub(super) struct CheckRuns {
    #[serde(default, deserialize_with = "nullable")]
    total_count: usize,
    #[serde(default, deserialize_with = "nullable")]
    check_runs: Vec<CheckRun>,
}

#[derive(Debug, Deserialize)]
struct CheckRun {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    conclusion: Option<String>,
}

/// `GET /repos/:owner/:name/commits/:sha/status`
#[derive(Debug, Default, Deserialize)]
pub(super) struct Combined {
    #[serde(default)]
    state: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    total_count: usize,
}

/// The more a word matters, the further on it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Success,
    Unseen,
    Pending,
    Running,
    Canceled,
    Other(String),
    Failed,
}

/// The word for both; `None` is what the token may not read.
pub(super) fn pipeline(runs: Option<&CheckRuns>, statuses: Option<&Combined>, mask: &Mask) -> String {
    let mut states: Vec<State> = Vec::new();
    match runs {
        None => states.push(State::Unseen),
        Some(runs) => {
            states.extend(runs.check_runs.iter().map(|run| of_run(run, mask)));
            if runs.total_count > runs.check_runs.len() {
                states.push(State::Unseen);
            }
        }
    }
    match statuses {
        None => states.push(State::Unseen),
        // Without any status the word is "pending", for ever.
        Some(statuses) if statuses.total_count > 0 => {
            states.push(match statuses.state.as_deref().unwrap_or_default() {
                "success" => State::Success,
                "failure" | "error" => State::Failed,
                "pending" => State::Pending,
                other => State::Other(word(other, mask)),
            });
        }
        Some(_) => {}
    }
    match states.into_iter().max() {
        None => "none".to_owned(),
        Some(State::Success) => "success".to_owned(),
        Some(State::Unseen) => "unknown".to_owned(),
        Some(State::Pending) => "pending".to_owned(),
        Some(State::Running) => "running".to_owned(),
        Some(State::Canceled) => "canceled".to_owned(),
        Some(State::Failed) => "failed".to_owned(),
        Some(State::Other(other)) if other.is_empty() => "unknown".to_owned(),
        Some(State::Other(other)) => other,
    }
}

fn of_run(run: &CheckRun, mask: &Mask) -> State {
    match run.status.as_deref().unwrap_or_default() {
        "completed" => match run.conclusion.as_deref().unwrap_or_default() {
            "success" | "neutral" | "skipped" => State::Success,
            "failure" | "timed_out" | "startup_failure" => State::Failed,
            "cancelled" => State::Canceled,
            other => State::Other(word(other, mask)),
        },
        "in_progress" => State::Running,
        "queued" | "waiting" | "requested" | "pending" => State::Pending,
        other => State::Other(word(other, mask)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_matters_most_counts() {
        let runs = |text: &str| serde_json::from_str::<CheckRuns>(text).unwrap();
        let one = |conclusion: &str| {
            runs(&format!(
                r#"{{"total_count":1,"check_runs":[{{"status":"completed","conclusion":"{conclusion}"}}]}}"#
            ))
        };
        let status = |state: &str, count: usize| Combined {
            state: Some(state.to_owned()),
            total_count: count,
        };
        let none = status("pending", 0);
        for (runs, statuses, expected) in [
            (Some(CheckRuns::default()), Some(&none), "none"),
            (Some(one("success")), Some(&none), "success"),
            (Some(one("skipped")), Some(&status("success", 1)), "success"),
            (Some(one("success")), Some(&status("failure", 1)), "failed"),
            (Some(one("success")), Some(&status("pending", 2)), "pending"),
            (Some(one("timed_out")), Some(&none), "failed"),
            (Some(one("cancelled")), Some(&none), "canceled"),
            (Some(one("action_required")), Some(&none), "action_required"),
            (Some(one("")), Some(&none), "unknown"),
            (
                Some(runs(r#"{"total_count":300,"check_runs":[]}"#)),
                Some(&none),
                "unknown",
            ),
            (
                Some(runs(
                    r#"{"total_count":1,"check_runs":[{"status":"in_progress","conclusion":null}]}"#,
                )),
                Some(&none),
                "running",
            ),
            (
                Some(runs(r#"{"check_runs":[{"status":null}]}"#)),
                Some(&none),
                "unknown",
            ),
            (None, Some(&status("success", 1)), "unknown"),
            (None, Some(&status("failure", 1)), "failed"),
            (None, None, "unknown"),
        ] {
            assert_eq!(
                pipeline(runs.as_ref(), statuses, &Mask::default()),
                expected,
                "{runs:?} {statuses:?}"
            );
        }
    }
}
