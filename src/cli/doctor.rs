//! `cofferdam doctor`: what is wrong with this machine, and the command that mends it.
//!
//! Only looks: starts no sandbox, takes no task, changes nothing on a forge.

use std::path::Path;

use serde::Serialize;

use super::compose::{compose, read_task};
use super::{Exit, run, show};
use crate::config::Config;
use crate::message::Task;
use crate::queue::rabbitmq::RabbitMq;
use crate::sandbox::disk;
use crate::session::Rooms;

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
    run::log_to_standard_error();
    let mut findings = vec![disk(&config)];
    match compose(&config).await {
        Ok(composed) => {
            findings.push(ok("git and state", format!("state in {}", config.state_dir.display())));
            engine(&composed.rooms, &mut findings).await;
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

async fn engine(rooms: &Rooms, findings: &mut Vec<Finding>) {
    match rooms.engine.check().await {
        Ok(facts) => {
            findings.push(ok(
                "engine",
                format!(
                    "version {}, API {}, default runtime {}",
                    facts.version, facts.api, facts.runtime
                ),
            ));
        }
        Err(error) => {
            findings.push(problem(
                "engine",
                error.to_string(),
                "systemctl start docker; or, without systemd, deploy/docker.sh",
            ));
            return;
        }
    }
    if rooms.agents.is_empty() {
        let remedy = "add an [agents.NAME] section, see the README".to_owned();
        findings.push(Finding {
            check: "agents".into(),
            state: State::Warning,
            found: "none configured".into(),
            remedy: Some(remedy),
        });
    }
    for (name, agent) in &rooms.agents {
        findings.push(match rooms.engine.require_image(&agent.image).await {
            Ok(()) => ok(&format!("image of agent {name}"), agent.image.clone()),
            Err(error) => problem(
                &format!("image of agent {name}"),
                error.to_string(),
                &format!("docker pull {0}; or sandbox-images/build.sh", agent.image),
            ),
        });
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
        let secret = match (rooms.credentials)(&connection.credential) {
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
