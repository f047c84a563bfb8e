//! How far this machine's kernel keeps the processes that read agents' objects from everything else.
//!
//! Asks a process of its own: whoever tries the walls cannot leave them again.

use std::process::Stdio;
use std::time::Duration;

use super::{Finding, State, ok};
use crate::repository::internal::WALLS;

/// How long it may take to say so.
const LIMIT: Duration = Duration::from_secs(10);
const CHECK: &str = "readers' walls";

pub(super) async fn walls() -> Finding {
    told(&ask().await)
}

async fn ask() -> String {
    let Ok(own) = std::env::current_exe() else {
        return "this program cannot be found".to_owned();
    };
    let asked = tokio::process::Command::new(own)
        .args(["internal", WALLS])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer after {} s", LIMIT.as_secs()),
    }
}

/// What the answer means.
fn told(answer: &str) -> Finding {
    let warning = |found: &str| Finding {
        check: CHECK.to_owned(),
        state: State::Warning,
        found: found.to_owned(),
        remedy: Some(
            "run the worker on Linux 5.13 or later, started with Landlock (lsm=…,landlock); SECURITY.md says what is open without it"
                .to_owned(),
        ),
    };
    match answer {
        "all" => ok(CHECK, "Landlock holds all of them".to_owned()),
        "partly" => ok(
            CHECK,
            "Landlock holds the files; a newer kernel would also hold what is newer of it".to_owned(),
        ),
        "none" => warning("this kernel has no Landlock: a flaw of git's could read what the worker's user may read"),
        other => Finding {
            check: CHECK.to_owned(),
            state: State::Problem,
            found: format!("they cannot be put up, so no push is read: {other}"),
            remedy: Some("let the worker use seccomp, and start it where its own program can be run".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_a_remedy() {
        for (answer, state) in [
            ("all", State::Ok),
            ("partly", State::Ok),
            ("none", State::Warning),
            ("cannot limit its system calls", State::Problem),
            ("", State::Problem),
        ] {
            let finding = told(answer);
            assert_eq!(finding.state, state, "{answer}");
            assert_eq!(finding.remedy.is_some(), state != State::Ok, "{answer}");
        }
    }
}
