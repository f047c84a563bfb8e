//! Workers of one installation on one machine, each behind proxies of its own, that are started, killed, drained and started again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::checker::{Record, Violation, check};
use crate::harness::{HUB, LAB, Process, World, signal, until};
use crate::kit::broker;
use crate::proxy::{Mode, Proxy};
use crate::record::{self, Desk};

/// How long a session may take to its end when nothing disturbs it any more, on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// By how much longer a run is waited for on a machine that compiles beside the tests; as in `until` of the harness.
pub(crate) fn slowness() -> u32 {
    let told = std::env::var("COFFERDAM_TEST_SLOWNESS").ok();
    told.map_or(1, |told| told.parse().expect("COFFERDAM_TEST_SLOWNESS is a number"))
}

/// One installation: a forge, its place on the broker, its configuration.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) desk: Desk,
    config: PathBuf,
    /// Sandboxes that each worker keeps ready.
    pub(crate) warm: usize,
    pub(crate) submitted: BTreeSet<String>,
}

/// A worker, running or not.
pub(crate) struct Worker {
    name: String,
    pub(crate) state: PathBuf,
    pub(crate) amqp: Proxy,
    pub(crate) docker: Proxy,
    process: Option<Process>,
    admin: String,
    log: PathBuf,
}

impl Site {
    /// One that lasts for so many seconds at most, on a quiet machine.
    pub(crate) fn new(seconds: u32, more: &str) -> Self {
        Self::of(seconds, more, "heartbeat_s = 3\nticket_s = 2\n")
    }

    /// The same with the leases that a worker has where nothing is configured.
    pub(crate) fn with_default_leases(seconds: u32) -> Self {
        Self::of(seconds, "", "")
    }

    fn of(seconds: u32, more: &str, leases: &str) -> Self {
        let world = World::lasting(seconds * slowness(), |seed| seed);
        let prefix = format!("chaos{}", uuid::Uuid::new_v4().simple());
        let config = world.config(&format!(
            "{more}\n[queue]\nprefix = \"{prefix}\"\n{leases}[admin]\nlisten = \"127.0.0.1:0\"\n"
        ));
        let desk = Desk::open(&prefix);
        Self {
            world,
            desk,
            config,
            warm: 0,
            submitted: BTreeSet::new(),
        }
    }

    /// A worker that is not started yet.
    pub(crate) fn worker(&self, name: &str) -> Worker {
        let directory = self.world.directory.path();
        let upstream = broker();
        let upstream = upstream.rsplit('@').next().unwrap().split('/').next().unwrap();
        let docker = std::env::var("DOCKER_HOST").unwrap_or_default();
        let docker = docker.strip_prefix("unix://").unwrap_or("/var/run/docker.sock");
        Worker {
            name: format!("{}-{name}", self.world.worker),
            state: directory.join(name),
            amqp: Proxy::tcp(upstream),
            docker: Proxy::unix(Path::new(docker), &directory.join(format!("docker-{name}.sock"))),
            process: None,
            admin: String::new(),
            log: directory.join(format!("log-{name}")),
        }
    }

    /// Queues a task.
    pub(crate) fn submit(&mut self, task: &Value) -> String {
        let session = task["session"].as_str().unwrap().to_owned();
        self.submitted.insert(session.clone());
        self.desk.submit(task);
        session
    }

    /// Whether every session has ended and nothing waits on the broker. Looks several times: a ticket is out of sight while it is looked at.
    pub(crate) fn is_settled(&self) -> bool {
        (0..8).all(|look| {
            if look > 0 {
                std::thread::sleep(Duration::from_millis(100));
            }
            self.desk.ended().is_superset(&self.submitted)
                && ["tasks", "tickets", "ticket-checks"]
                    .iter()
                    .all(|queue| self.desk.ready(queue) == 0)
        })
    }

    /// Waits for the end of everything, stops the workers, and says what is wrong.
    pub(crate) fn judge(&self, workers: &mut [&mut Worker], limit: Duration) -> (Record, BTreeSet<Violation>) {
        let end = Instant::now() + limit * slowness();
        while !self.is_settled() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        // What nobody owns is gone within the minute of the reconciliation.
        let end = Instant::now() + Duration::from_secs(70) * slowness();
        // A sandbox that waits is a container, a directory and a socket.
        let running = workers
            .iter_mut()
            .filter_map(|worker| worker.is_running().then_some(()))
            .count();
        let ready = 3 * running * self.warm;
        while self.left(workers).len() > ready && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(200));
        }
        for worker in &mut *workers {
            worker.stop();
        }
        // What a stopped worker had not acknowledged is ready again, so that the counts are whole.
        let queues = ["tasks", "tickets", "ticket-checks"];
        let waiting = queues.map(|queue| (queue, self.desk.ready(queue)));
        let waiting = waiting.into_iter().filter(|(_, count)| *count > 0);
        let mut left = self.left(workers);
        left.extend(waiting.map(|(queue, count)| format!("{count} messages in {queue}")));
        let states: Vec<&Path> = workers.iter().map(|worker| worker.state.as_path()).collect();
        let record = Record {
            submitted: self.submitted.clone(),
            events: self.desk.events(),
            projects: record::projects(&self.world, &[LAB, HUB]),
            kept: record::kept(&self.world, &states, &[LAB, HUB]),
            left,
            dead: self.desk.dead(),
        };
        let violations = check(&record);
        (record, violations)
    }

    /// The same; any violation fails the test.
    pub(crate) fn assert_well(&self, workers: &mut [&mut Worker]) -> Record {
        let (record, violations) = self.judge(workers, PATIENCE);
        if !violations.is_empty() {
            let told: Vec<String> = record.events.iter().map(Value::to_string).collect();
            let logs: Vec<String> = workers.iter().map(|worker| worker.log()).collect();
            panic!("{violations:#?}\n{}\n{}", told.join("\n"), logs.join("\n----\n"));
        }
        record
    }

    fn left(&self, workers: &[&mut Worker]) -> Vec<String> {
        let containers = self.world.sandboxes().into_iter().map(|id| format!("container {id}"));
        let disk = workers.iter().flat_map(|worker| record::left_on_disk(&worker.state));
        let networks = Command::new("docker")
            .args(["network", "ls", "--format", "{{.Name}}"])
            .output()
            .unwrap();
        let networks = String::from_utf8_lossy(&networks.stdout).into_owned();
        let networks = networks
            .lines()
            .filter(|name| name.contains("cofferdam"))
            .map(|name| format!("network {name}"));
        containers.chain(disk).chain(networks).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.desk.erase(&self.submitted);
    }
}

impl Worker {
    /// Starts it, or starts it again in its old place. Its proxies are as they were.
    pub(crate) fn start(&mut self, site: &Site) {
        assert!(self.process.is_none());
        let begun = self.log().len();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let address = broker();
        let (user, rest) = address.rsplit_once('@').unwrap();
        let (_, vhost) = rest.split_once('/').unwrap();
        let mut command = site.world.command(&site.config);
        command
            .env("COFFERDAM__STATE_DIR", &self.state)
            .env("COFFERDAM__WORKER", &self.name)
            .env("COFFERDAM__QUEUE__URL", format!("{user}@{}/{vhost}", self.amqp.address))
            .env("COFFERDAM__SANDBOX__DOCKER_SOCKET", &self.docker.address)
            .env("COFFERDAM__CONCURRENCY", "3")
            .env("COFFERDAM__SANDBOX__WARM", site.warm.to_string())
            .env("COFFERDAM_LOG", "info,lapin=off")
            .arg("run")
            .stdout(Stdio::null())
            .stderr(log);
        let mut process = Process(command.spawn().unwrap());
        self.admin = until(Duration::from_secs(30), "the admin address", || {
            let lines = self.log();
            assert!(process.0.try_wait().unwrap().is_none(), "the worker ended: {lines}");
            lines[begun..].lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "admin address").then(|| format!("http://{}", line["address"].as_str().unwrap()))
            })
        });
        self.process = Some(process);
    }

    /// Starts it and waits until it takes tasks.
    pub(crate) fn start_ready(&mut self, site: &Site) {
        self.start(site);
        self.ready();
    }

    pub(crate) fn ready(&self) {
        until(Duration::from_secs(60), "readiness", || {
            (self.status() == 200).then_some(())
        });
    }

    /// What its readiness answers.
    pub(crate) fn status(&self) -> u16 {
        let url = format!("{}/readyz", self.admin);
        let arguments = ["-s", "-o", "/dev/null", "--max-time", "5", "-w", "%{http_code}", &url];
        let output = Command::new("curl").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.0.try_wait().unwrap().is_none())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().0.id()
    }

    /// kill -9. What its proxies hold is lost with it, as what is in a dead machine's buffers.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        signal(&process.0, "KILL");
        process.0.wait().unwrap();
        self.amqp.reset();
        self.docker.reset();
        self.amqp.set(Mode::Open);
        self.docker.set(Mode::Open);
    }

    /// SIGTERM, not waited for.
    pub(crate) fn drain(&mut self) {
        signal(&self.process.as_ref().unwrap().0, "TERM");
    }

    /// Lets go of one that has ended by itself.
    pub(crate) fn bury(&mut self) {
        assert!(!self.is_running());
        self.process = None;
    }

    /// Drains it and waits for its end.
    pub(crate) fn stop(&mut self) {
        let Some(process) = &mut self.process else { return };
        signal(&process.0, "TERM");
        let status = until(Duration::from_secs(90), "the end of the worker", || {
            process.0.try_wait().unwrap()
        });
        assert!(status.success(), "{status}: {}", self.log());
        self.process = None;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
