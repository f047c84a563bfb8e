//! `cofferdam doctor`: what is wrong with this machine, and the command that mends it.
//!
//! Only looks: starts no sandbox, takes no task, changes nothing on a forge and nothing in the state directory, where a worker may run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::compose::{Silent, read_task, resolve};
use super::{Exit, exposed, log, show, state};
use crate::config::Config;
use crate::forge::Clients;
use crate::message::Task;
use crate::queue::QueueError;
use crate::queue::rabbitmq::RabbitMq;
use crate::sandbox::docker::DockerEngine;
use crate::sandbox::kubernetes::KubernetesEngine;
use crate::sandbox::{Backend, disk, home};
use crate::session::credential::Asked;

mod cluster;
mod engine;
mod faults;
mod walls;

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
    findings.extend(reachable(&config));
    findings.push(state(&config.state_dir));
    findings.push(git(&config.repository.git).await);
    findings.push(inside(&config));
    findings.push(walls::walls().await);
    let resolved = resolve(&config, Arc::new(Silent));
    if let Err(message) = &resolved {
        let remedy = "correct the key, file or variable that is named; deploy/config.example.toml has every key";
        findings.push(problem("configuration", message.clone(), remedy));
    }
    let mut sandbox = config.sandbox.clone();
    sandbox.images = config.images();
    match sandbox.backend {
        Backend::Docker => engine::engine(&config, &DockerEngine::new(sandbox), &mut findings).await,
        Backend::Kubernetes => {
            cluster::cluster(
                &config,
                &KubernetesEngine::new(sandbox, Arc::new(Silent)),
                &mut findings,
            )
            .await
        }
    }
    if let Some(path) = task {
        match resolved.map(|resolved| resolved.connect) {
            Ok(connect) => forges(&config, &connect, path, &mut findings).await,
            // Without the rest of the configuration: only what the forges need.
            Err(_) => match Clients::new(config.forge.clone(), Arc::new(Silent)) {
                Ok(connect) => forges(&config, &connect, path, &mut findings).await,
                Err(error) => findings.push(problem("forges", error.to_string(), "correct the section [forge]")),
            },
        }
    }
    findings.push(match RabbitMq::check(&config.queue).await {
        Ok(()) => ok("broker", "answers, and its queues are declared".to_owned()),
        Err(error) => problem("broker", error.to_string(), broker_remedy(&error)),
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

fn warning(check: &str, found: String, remedy: &str) -> Finding {
    Finding {
        check: check.to_owned(),
        state: State::Warning,
        found,
        remedy: Some(remedy.to_owned()),
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

/// What to do about a broker, by what is wrong with it.
fn broker_remedy(error: &QueueError) -> &'static str {
    const LOGIN: &str = "correct user and password in the broker's address, and let the user into its virtual host (rabbitmqctl list_permissions)";
    match error {
        QueueError::Configure(_) => "set queue.url, queue.url_env or queue.url_file",
        QueueError::Connect { detail, .. } if detail.contains("ACCESS") || detail.contains("NOT-ALLOWED") => LOGIN,
        QueueError::Connect { detail, .. } if detail.contains("ertificate") || detail.contains("TLS") => {
            "put the broker's authority into the machine's certificates, and use the name that its certificate has"
        }
        QueueError::Connect { .. } => "start RabbitMQ, open its port to this machine, or correct the address",
        QueueError::Declare { detail, .. } if detail.contains("ACCESS") => {
            "give the user the permissions that the README lists (The broker's user)"
        }
        QueueError::Declare { .. } => {
            "another program declared it in another way: choose another queue.prefix, or delete it when it is empty"
        }
        QueueError::Publish { .. } | QueueError::Settle(_) | QueueError::Claim { .. } => "look into the broker's log",
    }
}

fn state(directory: &Path) -> Finding {
    let shown = directory.display();
    match state::look(directory) {
        Ok(state::State::Absent) => ok("state", format!("{shown} is not there yet; the worker makes it")),
        Ok(state::State::Free) => ok("state", format!("{shown} is there; no worker runs here")),
        Ok(state::State::Running) => ok("state", format!("{shown} is in use: a worker runs here")),
        Ok(state::State::Open(mode)) => Finding {
            check: "state".to_owned(),
            state: State::Warning,
            found: format!("other users may enter {shown} (mode {mode:03o}); a worker closes it when it starts"),
            remedy: Some(format!("chmod 700 {shown}")),
        },
        Err(found) => problem(
            "state",
            found,
            "run this as the worker's user, give it the directory, or set state_dir",
        ),
    }
}

/// How long git may take to say its version.
const GIT_TIMEOUT: Duration = Duration::from_secs(10);

async fn git(program: &Path) -> Finding {
    let install = "apt-get install git, 2.39 or later; or set repository.git to its path";
    let asked = tokio::process::Command::new(program)
        .arg("version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(GIT_TIMEOUT, asked).await {
        Ok(Ok(output)) => {
            let said: String = String::from_utf8_lossy(&output.stdout)
                .trim()
                .chars()
                .take(100)
                .collect();
            if git_is_good(&said) {
                ok("git", said)
            } else {
                problem("git", format!("it says {said:?}; 2.39 or later is needed"), install)
            }
        }
        Ok(Err(error)) => problem("git", format!("{} cannot be run: {error}", program.display()), install),
        Err(_) => problem("git", format!("{} says nothing", program.display()), install),
    }
}

fn git_is_good(said: &str) -> bool {
    let version = said.strip_prefix("git version ").unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (2, 39),
        (Some(_) | None, _) => false,
    }
}

fn inside(config: &Config) -> Finding {
    match home::read_inside(&config.sandbox) {
        Ok((path, _)) => ok("inside", path.display().to_string()),
        Err(error) => problem(
            "inside",
            error.to_string(),
            "build it as the README says (Build) and put it beside cofferdam, or set sandbox.inside",
        ),
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
fn reachable(config: &Config) -> Vec<Finding> {
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
    let files = exposed::secret_files(config);
    let files = files
        .iter()
        .map(|file| warning("file modes", file.found(), &file.remedy()));
    admin.into_iter().chain(plain).chain(files).collect()
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
            if !disk::is_low(free, mark, false) {
                return ok("disk", found);
            }
            Finding {
                check: "disk".into(),
                state: State::Problem,
                found: format!(
                    "{found}; no task is taken below {} MiB or {} files",
                    mark / MIB,
                    disk::LEAST_FREE_FILES
                ),
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
async fn forges(config: &Config, connect: &Clients, path: &Path, findings: &mut Vec<Finding>) {
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
        let asked = Asked::of(Some(task.session), connection);
        let found = config
            .credentials
            .resolve(&connection.credential, &asked, |name| std::env::var(name).ok());
        let secret = match found {
            Ok(secret) => secret,
            Err(error) => {
                let remedy =
                    "see Tokens and Sealed tokens in the README, and [credentials] in deploy/config.example.toml";
                findings.push(problem(&check, error.to_string(), remedy));
                continue;
            }
        };
        let asked = async {
            let (forge, facts) = crate::forge::check::check(connect, connection, &secret).await?;
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
