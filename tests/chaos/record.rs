//! What an orchestrator and an operator see of a run: all events, the counts of the broker's queues, the forge's repositories, what is left on
//! disk and in the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;

use crate::checker::Project;
use crate::harness::World;
use crate::kit::broker;

/// A connection of the tests' own, never through a proxy.
pub(crate) struct Desk {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
    prefix: String,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Desk {
    pub(crate) fn open(prefix: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = broker();
        let connecting = Connection::connect(&address, ConnectionProperties::default());
        let connection = runtime.block_on(connecting).unwrap();
        Self {
            runtime,
            connection,
            prefix: prefix.to_owned(),
            events: Arc::default(),
        }
    }

    /// Records every event from now on. A worker has declared the exchange.
    pub(crate) fn listen(&self) {
        let exchange = format!("{}.events", self.prefix);
        let mut consumer = self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            let options = QueueDeclareOptions {
                exclusive: true,
                auto_delete: true,
                ..QueueDeclareOptions::default()
            };
            let queue = channel
                .queue_declare("".into(), options, FieldTable::default())
                .await
                .unwrap();
            let name = queue.name().clone();
            let bind = QueueBindOptions::default();
            let key = "session.#".into();
            channel
                .queue_bind(name.clone(), exchange.into(), key, bind, FieldTable::default())
                .await
                .unwrap();
            let options = BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            };
            channel
                .basic_consume(name, "".into(), options, FieldTable::default())
                .await
                .unwrap()
        });
        let events = self.events.clone();
        self.runtime.spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let event: Value = serde_json::from_slice(&delivery.data).unwrap();
                events
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(event["data"].clone());
            }
        });
    }

    /// The data of all events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an event of a session was seen.
    pub(crate) fn saw(&self, session: &str, kind: &str) -> bool {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events
            .iter()
            .any(|data| data["session"] == session && data["event"] == kind)
    }

    /// The sessions whose last attempt so far has its final event.
    pub(crate) fn ended(&self) -> BTreeSet<String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
        for data in events.iter() {
            let attempt = data["attempt"].as_u64().unwrap();
            let entry = last.entry(data["session"].as_str().unwrap()).or_default();
            if attempt > entry.0 {
                *entry = (attempt, false);
            }
            if attempt == entry.0 && data["event"] == "finished" {
                entry.1 = true;
            }
        }
        let ended = last.into_iter().filter(|(_, (_, ended))| *ended);
        ended.map(|(session, _)| session.to_owned()).collect()
    }

    /// Queues a task; confirmed.
    pub(crate) fn submit(&self, task: &Value) {
        let queue = format!("{}.tasks", self.prefix);
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let body = task.to_string().into_bytes();
            let confirm = channel.basic_publish("".into(), queue.into(), options, &body, properties);
            let confirmation = confirm.await.unwrap().await.unwrap();
            assert!(confirmation.take_message().is_none(), "nobody took the task");
            channel.close(200, "sent".into()).await.unwrap();
        });
    }

    /// The messages that are ready in a queue of the installation; 0 where there is no such queue.
    pub(crate) fn ready(&self, queue: &str) -> u32 {
        let name = format!("{}.{queue}", self.prefix);
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            match channel.queue_declare(name.into(), options, FieldTable::default()).await {
                Ok(queue) => {
                    let _ = channel.close(200, "looked".into()).await;
                    queue.message_count()
                }
                Err(_) => 0,
            }
        })
    }

    /// Takes all dead letters; their sessions.
    pub(crate) fn dead(&self) -> Vec<String> {
        let name = format!("{}.dead", self.prefix);
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            let mut sessions = Vec::new();
            let options = BasicGetOptions { no_ack: true };
            while let Ok(Some(message)) = channel.basic_get(name.as_str().into(), options).await {
                let body: Value = serde_json::from_slice(&message.delivery.data).unwrap_or_default();
                sessions.push(body["session"].as_str().unwrap_or_default().to_owned());
            }
            sessions
        })
    }

    /// Removes the installation's queues and exchanges from the broker, tombstones too, which would stay for a day.
    pub(crate) fn erase(&self, sessions: &BTreeSet<String>) {
        let shared = ["tasks", "tickets", "ticket-checks", "dead"]
            .map(str::to_owned)
            .into_iter();
        let of = |session: &String| ["in", "closed", "notes"].map(|what| format!("session.{session}.{what}"));
        let queues = shared.chain(sessions.iter().flat_map(of));
        self.runtime.block_on(async {
            for name in queues {
                let Ok(channel) = self.connection.create_channel().await else {
                    return;
                };
                let name = format!("{}.{name}", self.prefix);
                let _ = channel.queue_delete(name.into(), QueueDeleteOptions::default()).await;
                let _ = channel.close(200, "removed".into()).await;
            }
            for name in ["events", "session.in"] {
                let Ok(channel) = self.connection.create_channel().await else {
                    return;
                };
                let name = format!("{}.{name}", self.prefix);
                let _ = channel
                    .exchange_delete(name.into(), ExchangeDeleteOptions::default())
                    .await;
            }
        });
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(directory)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the forge holds of these projects, by its own account and by its repositories.
pub(crate) fn projects(world: &World, paths: &[&str]) -> BTreeMap<String, Project> {
    let read = |path: &&str| {
        let shown = world.project(path);
        let heads = shown["branches"].as_object().unwrap().iter();
        let requests = shown["change_requests"].as_array().unwrap().iter();
        let project = Project {
            branches: heads
                .map(|(name, head)| (name.clone(), head.as_str().unwrap().to_owned()))
                .collect(),
            commits: git(&repository(world, path), &["rev-list", "--all"])
                .lines()
                .map(str::to_owned)
                .collect(),
            requests: requests.map(|one| one["source"].as_str().unwrap().to_owned()).collect(),
        };
        ((*path).to_owned(), project)
    };
    paths.iter().map(read).collect()
}

/// The forge's own bare repository of a project.
pub(crate) fn repository(world: &World, path: &str) -> std::path::PathBuf {
    let name = format!("{}.git", world.project(path)["id"]);
    let forge = world.directory.path().join("forge");
    let both = ["gitlab", "github"].map(|side| forge.join(side).join(&name));
    let found = both.iter().find(|one| one.is_dir());
    found
        .unwrap_or_else(|| panic!("{path} is not in {}", forge.display()))
        .clone()
}

/// The commits in the kept bundles of these state directories.
pub(crate) fn kept(world: &World, states: &[&Path], paths: &[&str]) -> BTreeSet<String> {
    let scratch = world
        .directory
        .path()
        .join(format!("kept-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&scratch).unwrap();
    git(&scratch, &["init", "-q", "--bare"]);
    // Bundles hold what their base lacks.
    for (number, path) in paths.iter().enumerate() {
        let from = repository(world, path).display().to_string();
        git(
            &scratch,
            &["fetch", "-q", &from, &format!("refs/*:refs/of-forge/{number}/*")],
        );
    }
    for (number, bundle) in states
        .iter()
        .filter_map(|state| std::fs::read_dir(state.join("kept")).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bundle"))
        .enumerate()
    {
        let spec = format!("refs/*:refs/kept/{number}/*");
        git(&scratch, &["fetch", "-q", &bundle.display().to_string(), &spec]);
    }
    git(&scratch, &["rev-list", "--all"])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What is in a directory that should be empty, and sockets anywhere below; the worker's own socket for its operator stays.
pub(crate) fn left_on_disk(state: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for name in ["sandboxes", "sessions"] {
        let entries = std::fs::read_dir(state.join(name)).into_iter().flatten();
        left.extend(entries.map(|entry| format!("directory {}", entry.unwrap().path().display())));
    }
    let found = Command::new("find")
        .arg(state)
        .args(["-mindepth", "2", "-type", "s"])
        .output()
        .unwrap();
    left.extend(
        String::from_utf8_lossy(&found.stdout)
            .lines()
            .map(|path| format!("socket {path}")),
    );
    left
}
