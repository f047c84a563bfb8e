//! `cofferdam doctor`: what is wrong with this machine, and the command that mends it.
//!
//! Only looks: starts no sandbox, takes no task, changes nothing on a forge.

use std::path::Path;

use serde::Serialize;

use super::compose::{compose, read_task};
use super::{Exit, log, show};
use crate::config::Config;
use crate::message::Task;
use crate::queue::rabbitmq::RabbitMq;
use crate::sandbox::disk;
use crate::session::Rooms;
use crate::session::credential::Asked;

mod engine;
mod faults;

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: String,
    /// ok, warning or problem.
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Problem,
}

/// Looks at everything.
pub(super) async fn doctor(config: Config, json: bool, task: Option<&Path>) -> Exit {
    log::to_standard_error();
    let mut findings = vec![disk(&config)];
    findings.extend(keys(&config));
    findings.extend(exposed(&config));
    match compose(&config).await {
        Ok(composed) => {
            findings.push(ok("git and state", format!("state in {}", config.state_dir.display())));
            engine::engine(&config, &composed.rooms, &mut findings).await;
            if let Some(path) = task {
                forges(&composed.rooms, path, &mut findings).await;
            }
        }
        Err((_, message)) => {
            findings.push(problem(
                "git and state",
                message,
                "apt-get install git; or see the sentence on the left",
            ));
        }
    }
    findings.push(match RabbitMq::check(&config.queue).await {
        Ok(()) => ok("broker", "answers, and its queues are declared".to_owned()),
        Err(error) => problem(
            "broker",
            error.to_string(),
            "start RabbitMQ, or set queue.url, queue.url_env or queue.url_file",
        ),
    });
    let worst = findings.iter().any(|finding| finding.state == State::Problem);
    if json {
        match serde_json::to_string_pretty(&serde_json::json!({ "ok": !worst, "findings": findings })) {
            Ok(text) => show::line(&text),
            Err(error) => show::complain(&error.to_string()),
        }
    } else {
        for finding in &findings {
            let mark = match finding.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Problem => "PROBLEM",
            };
            show::line(&format!("{mark}  {}: {}", finding.check, finding.found));
            if let Some(remedy) = &finding.remedy {
                show::line(&format!("         -> {remedy}"));
            }
        }
    }
    if worst { Exit::Unavailable } else { Exit::Success }
}

fn ok(check: &str, found: String) -> Finding {
    Finding {
        check: check.to_owned(),
        state: State::Ok,
        found,
        remedy: None,
    }
}

fn problem(check: &str, found: String, remedy: &str) -> Finding {
    Finding {
        check: check.to_owned(),
        state: State::Problem,
        found,
        remedy: Some(remedy.to_owned()),
    }
}

/// Which keys credentials can be sealed to.
fn keys(config: &Config) -> Vec<Finding> {
    match config.credentials.recipients() {
        Ok(recipients) if recipients.is_empty() => vec![ok(
            "sealed credentials",
            "none can be opened: credentials.identities is empty".to_owned(),
        )],
        Ok(recipients) => {
            let found = recipients.into_iter();
            found
                .map(|one| ok("sealed credentials", format!("seal to {one}")))
                .collect()
        }
        Err(error) => vec![problem(
            "sealed credentials",
            error.to_string(),
            "cofferdam keygen -o FILE, and name the file in credentials.identities; chmod 600 FILE",
        )],
    }
}

/// What others than this machine can reach of the worker, and what others than it hold of its users.
fn exposed(config: &Config) -> Vec<Finding> {
    let warning = |check: &str, found: String, remedy: &str| Finding {
        check: check.to_owned(),
        state: State::Warning,
        found,
        remedy: Some(remedy.to_owned()),
    };
    let open = config.admin.listen.filter(|address| !address.ip().is_loopback());
    let admin = open.map(|address| {
        warning(
            "admin address",
            format!("{address} can be reached from other machines, and asks for no password"),
            "set admin.listen to 127.0.0.1:9464, or let a firewall or network policy admit only what scrapes it",
        )
    });
    let plain = config.credentials.allow_plain.then(|| {
        warning(
            "plain credentials",
            "tasks may carry tokens in clear: the broker, its disk and its administrators hold them".to_owned(),
            "seal them (cofferdam seal), and set credentials.allow_plain to false",
        )
    });
    admin.into_iter().chain(plain).collect()
}

fn disk(config: &Config) -> Finding {
    match disk::free(&config.state_dir) {
        Ok(free) => {
            const MIB: u64 = 1024 * 1024;
            let mark = config.disk.least_free_bytes;
            let files = free
                .files
                .map(|files| format!(" and {files} files"))
                .unwrap_or_default();
            let found = format!(
                "{} MiB{files} free for {}",
                free.bytes / MIB,
                config.state_dir.display()
            );
            if free.bytes >= mark {
                return ok("disk", found);
            }
            Finding {
                check: "disk".into(),
                state: State::Problem,
                found: format!("{found}; no task is taken below {} MiB", mark / MIB),
                remedy: Some("free space, move state_dir to a larger disk, or lower disk.least_free_bytes".into()),
            }
        }
        Err(error) => problem(
            "disk",
            format!("{}: {error}", config.state_dir.display()),
            "set state_dir to a directory that can be used",
        ),
    }
}

/// The forges and tokens that a task names.
async fn forges(rooms: &Rooms, path: &Path, findings: &mut Vec<Finding>) {
    let parsed = read_task(path).and_then(|body| Task::parse(&body).map_err(|error| error.to_string()));
    let task = match parsed {
        Ok(task) => task,
        Err(message) => {
            findings.push(problem(
                "task",
                message,
                "correct the task; `cofferdam schema task` prints its schema",
            ));
            return;
        }
    };
    for (name, connection) in &task.connections {
        let check = format!("connection {name}");
        let secret = match (rooms.credentials)(&connection.credential, &Asked::of(Some(task.session), connection)) {
            Ok(secret) => secret,
            Err(error) => {
                findings.push(problem(&check, error.to_string(), "see [credentials] in the README"));
                continue;
            }
        };
        let asked = async {
            let (forge, facts) = crate::forge::check::check(rooms.connect.as_ref(), connection, &secret).await?;
            let mut seen = Vec::new();
            for project in task.projects.iter().filter(|project| project.connection == *name) {
                seen.push(forge.project(&project.path).await?.path.to_string());
            }
            Ok::<_, crate::forge::ForgeError>((facts, seen))
        };
        findings.push(match asked.await {
            Ok((facts, seen)) => {
                let found = format!(
                    "{} with scopes [{}]{}; may push: {}, may open change requests: {}; sees {}",
                    facts.account,
                    facts.scopes.join(" "),
                    facts.expires.map(|day| format!(", expires {day}")).unwrap_or_default(),
                    facts.capabilities.push_branches.as_str(),
                    facts.capabilities.open_change_requests.as_str(),
                    if seen.is_empty() {
                        "no project of the task".to_owned()
                    } else {
                        seen.join(", ")
                    }
                );
                ok(&check, found)
            }
            Err(error) => problem(
                &check,
                error.to_string(),
                "make a token with the scope that is named, for a user who sees the project",
            ),
        });
    }
}
