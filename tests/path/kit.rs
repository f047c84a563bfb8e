//! What the tests of the daemon are made of: a running worker, an orchestrator's own connection to the broker, and a way to it that can be cut.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::harness::{Process, Ran, World, patience, slowness, until};
use crate::standin::StandIn;

/// The broker of `tests/rabbitmq.sh`.
pub(crate) fn broker() -> String {
    std::env::var("COFFERDAM_TEST_AMQP").expect("COFFERDAM_TEST_AMQP is not set: tests/rabbitmq.sh start prints it")
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) config: PathBuf,
    pub(crate) admin: String,
    pub(crate) prefix: String,
    pub(crate) log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(world: &World, more: &str) -> Self {
        Self::start_at(world, &broker(), more)
    }

    pub(crate) fn start_at(world: &World, url: &str, more: &str) -> Self {
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let daemon = Self::begin(world, url, &prefix, more);
        until(Duration::from_secs(30), "readiness", || {
            (daemon.status("/readyz") == 200).then_some(())
        });
        daemon
    }

    pub(crate) fn begin(world: &World, url: &str, prefix: &str, more: &str) -> Self {
        Self::begin_logging(world, url, prefix, more, "info,lapin=off")
    }

    pub(crate) fn begin_logging(world: &World, url: &str, prefix: &str, more: &str, level: &str) -> Self {
        let config = Self::config(world, url, prefix, more);
        Self::run(world, config, prefix, None, level)
    }

    fn config(world: &World, url: &str, prefix: &str, more: &str) -> PathBuf {
        // The worker picks its port and logs it: a port picked here could be somebody else's by the time it listens.
        world.config(&format!(
            "{more}\n[queue]\nurl = \"{url}\"\nprefix = \"{prefix}\"\nheartbeat_s = 3\nticket_s = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n"
        ))
    }

    /// Another worker of the same installation, with a state directory of its own.
    pub(crate) fn beside(&self, world: &World, name: &str) -> Self {
        self.beside_logging(world, name, "info,lapin=off")
    }

    /// The same, with so much in its log. Its way to the broker is straight, whatever the first one's is.
    pub(crate) fn beside_logging(&self, world: &World, name: &str, level: &str) -> Self {
        let beside = Some((name, broker()));
        let other = Self::run(world, self.config.clone(), &self.prefix, beside, level);
        until(Duration::from_secs(30), "readiness", || {
            (other.status("/readyz") == 200).then_some(())
        });
        other
    }

    /// The same worker, started once more after its end.
    pub(crate) fn again(&self, world: &World) -> Self {
        self.again_with(world, &[])
    }

    /// The same, with these arguments of `run`.
    pub(crate) fn again_with(&self, world: &World, arguments: &[&str]) -> Self {
        let (config, level) = (self.config.clone(), "info,lapin=off");
        let again = Self::run_with(world, config, &self.prefix, None, level, arguments, &[]);
        until(Duration::from_secs(30), "readiness", || {
            (again.status("/readyz") == 200).then_some(())
        });
        again
    }

    /// A worker whose `run` has these arguments.
    pub(crate) fn start_with(world: &World, more: &str, arguments: &[&str]) -> Self {
        Self::start_of(world, more, arguments, &[])
    }

    /// A worker with these variables.
    pub(crate) fn start_in(world: &World, more: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_of(world, more, &[], variables)
    }

    fn start_of(world: &World, more: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let config = Self::config(world, &broker(), &prefix, more);
        let daemon = Self::run_with(world, config, &prefix, None, "info,lapin=off", arguments, variables);
        until(Duration::from_secs(30), "readiness", || {
            (daemon.status("/readyz") == 200).then_some(())
        });
        daemon
    }

    fn run(world: &World, config: PathBuf, prefix: &str, beside: Option<(&str, String)>, level: &str) -> Self {
        Self::run_with(world, config, prefix, beside, level, &[], &[])
    }

    fn run_with(
        world: &World,
        config: PathBuf,
        prefix: &str,
        beside: Option<(&str, String)>,
        level: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let log = world
            .directory
            .path()
            .join(format!("log-{}", uuid::Uuid::new_v4().simple()));
        let mut command = world.command(&config);
        if let Some((name, url)) = beside {
            let state = world.directory.path().join(name);
            command
                .env("COFFERDAM__QUEUE__URL", url)
                .env("COFFERDAM__STATE_DIR", state)
                .env("COFFERDAM__WORKER", format!("{}-{name}", world.worker))
                .envs(world.cluster.iter().flat_map(StandIn::another));
        }
        command
            .env("COFFERDAM_LOG", level)
            .envs(variables.iter().copied())
            .arg("run")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        let mut process = Process(command.spawn().unwrap());
        let admin = until(Duration::from_secs(30), "the admin address", || {
            let lines = std::fs::read_to_string(&log).unwrap();
            assert!(process.0.try_wait().unwrap().is_none(), "the worker ended: {lines}");
            lines.lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "admin address").then(|| line["address"].as_str().unwrap().to_owned())
            })
        });
        Self {
            process,
            config,
            admin: format!("http://{admin}"),
            prefix: prefix.to_owned(),
            log,
        }
    }

    pub(crate) fn status(&self, path: &str) -> u16 {
        let output = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "--max-time",
                "20",
                "-w",
                "%{http_code}",
                &format!("{}{path}", self.admin),
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    }

    pub(crate) fn page(&self, path: &str) -> String {
        let output = Command::new("curl")
            .args(["-s", "--max-time", "20", &format!("{}{path}", self.admin)])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A command that speaks to the broker, with these words.
    pub(crate) fn command(&self, world: &World, words: &[&str]) -> Command {
        let mut command = world.command(&self.config);
        command
            .env("COFFERDAM__QUEUE__URL", broker())
            .env("COFFERDAM_LOG", "error,lapin=off")
            .args(words);
        command
    }

    pub(crate) fn submit(&self, world: &World, task: &Value) -> Ran {
        let mut command = world.command(&self.config);
        command
            .env("COFFERDAM_LOG", "error,lapin=off")
            .args(["submit", "--follow", "--json"])
            .arg(world.write_task(task));
        Ran::of(command)
    }

    /// Follows in the background; events go to the file that is returned.
    pub(crate) fn submit_aside(&self, world: &World, task: &Value) -> (Process, PathBuf) {
        let events = world.directory.path().join(format!("events-{}", uuid::Uuid::new_v4()));
        let mut command = self.command(world, &["submit", "--follow", "--json"]);
        command.arg(world.write_task(task));
        command
            .stdout(std::fs::File::create(&events).unwrap())
            .stderr(Stdio::null());
        (Process(command.spawn().unwrap()), events)
    }

    /// Stops the turn of an agent that hangs: what it did is published, and a session that waits for no prompt is over.
    pub(crate) fn cancel_turn(&self, session: &Value) {
        let (inbox, session) = (format!("{}.session.in", self.prefix), session.as_str().unwrap());
        let cancel = json!({"version": 1, "id": "enough", "kind": "cancel_turn"}).to_string();
        assert!(
            Amqp::open().publish(&inbox, session, cancel.as_bytes()),
            "nobody holds {session}"
        );
    }

    pub(crate) fn wait(&mut self) -> i32 {
        until(Duration::from_secs(90), "the end of the worker", || {
            self.process.0.try_wait().unwrap()
        })
        .code()
        .unwrap_or(-1)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

pub(crate) fn wait_for(events: &std::path::Path, words: &str) {
    until(patience(60), words, || {
        let told = std::fs::read_to_string(events).unwrap();
        let over = "\"event\":\"finished\"";
        assert!(
            told.contains(words) || !told.contains(over),
            "it ended without {words}: {told}"
        );
        told.contains(words).then_some(())
    });
}

pub(crate) fn outcome(events: &std::path::Path) -> Value {
    wait_for(events, "\"event\":\"finished\"");
    // Its beginning may be there before its end is.
    until(patience(60), "the whole of the last event", || {
        let text = std::fs::read_to_string(events).unwrap();
        let mut all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = all.rfind(|event| event["data"]["event"] == "finished")?;
        Some(last["data"]["outcome"].clone())
    })
}

/// An orchestrator's own connection.
pub(crate) struct Amqp {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    _connection: Connection,
}

impl Amqp {
    pub(crate) fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(&broker(), ConnectionProperties::default())
                .await
                .unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel
                .confirm_select(lapin::options::ConfirmSelectOptions::default())
                .await
                .unwrap();
            (connection, channel)
        });
        Self {
            runtime,
            channel,
            _connection: connection,
        }
    }

    /// Publishes, and says whether anybody took it.
    pub(crate) fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> bool {
        self.publish_with(exchange, key, body, BasicProperties::default())
    }

    /// The same, with so much beside the body.
    pub(crate) fn publish_with(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) -> bool {
        self.runtime.block_on(async {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let confirm = self
                .channel
                .basic_publish(exchange.into(), key.into(), options, body, properties);
            let confirmation = confirm.await.unwrap().await.unwrap();
            confirmation.take_message().is_none()
        })
    }

    /// Declares a session's mailbox as the contract tells submitters to.
    pub(crate) fn declare_mailbox(&self, prefix: &str, session: &str) {
        let queue = format!("{prefix}.session.{session}.in");
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongInt(86_400_000));
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1000));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.runtime.block_on(async {
            self.channel
                .queue_declare(queue.as_str().into(), options, arguments)
                .await
                .unwrap();
            let (exchange, bind) = (format!("{prefix}.session.in"), QueueBindOptions::default());
            self.channel
                .queue_bind(
                    queue.into(),
                    exchange.into(),
                    session.into(),
                    bind,
                    FieldTable::default(),
                )
                .await
                .unwrap();
        });
    }

    pub(crate) fn get(&self, queue: &str) -> Option<(Vec<u8>, BasicProperties)> {
        self.runtime.block_on(async {
            let got = self
                .channel
                .basic_get(queue.into(), BasicGetOptions { no_ack: true })
                .await
                .unwrap();
            got.map(|message| (message.delivery.data.clone(), message.delivery.properties.clone()))
        })
    }

    /// Takes a message and gives it back, as a worker does that cannot go on: the broker counts it.
    pub(crate) fn give_back(&self, queue: &str) {
        self.runtime.block_on(async {
            let got = self
                .channel
                .basic_get(queue.into(), BasicGetOptions { no_ack: false })
                .await;
            let message = got.unwrap().expect("a message to give back");
            let requeue = lapin::options::BasicNackOptions {
                requeue: true,
                ..Default::default()
            };
            message.delivery.acker.nack(requeue).await.unwrap();
        });
    }

    pub(crate) fn count(&self, queue: &str) -> u32 {
        self.runtime.block_on(async {
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let declared = self
                .channel
                .queue_declare(queue.into(), options, FieldTable::default())
                .await
                .unwrap();
            declared.message_count()
        })
    }

    /// A queue of our own on the events of everything.
    pub(crate) fn listen(&self, exchange: &str) -> lapin::Consumer {
        self.runtime.block_on(async {
            let options = QueueDeclareOptions {
                exclusive: true,
                auto_delete: true,
                ..QueueDeclareOptions::default()
            };
            let queue = self
                .channel
                .queue_declare("".into(), options, FieldTable::default())
                .await
                .unwrap();
            let (name, bind) = (queue.name().clone(), QueueBindOptions::default());
            self.channel
                .queue_bind(
                    name.clone(),
                    exchange.into(),
                    "session.#".into(),
                    bind,
                    FieldTable::default(),
                )
                .await
                .unwrap();
            let options = lapin::options::BasicConsumeOptions {
                no_ack: true,
                ..Default::default()
            };
            self.channel
                .basic_consume(name, "".into(), options, FieldTable::default())
                .await
                .unwrap()
        })
    }

    pub(crate) fn next(&self, consumer: &mut lapin::Consumer) -> lapin::message::Delivery {
        self.runtime.block_on(async {
            tokio::time::timeout(patience(60) * slowness(), consumer.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
        })
    }
}

/// A way to the broker that can be closed and opened.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) open: Arc<AtomicBool>,
    /// Whether connections stay and all that goes into them is lost; they end with the hole.
    pub(crate) hole: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn new(open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicBool::new(open));
        let target = broker()
            .rsplit('@')
            .next()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        let gate = open.clone();
        let hole = Arc::new(AtomicBool::new(false));
        let swallow = hole.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                if !gate.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ] {
                    let (gate, swallow) = (gate.clone(), swallow.clone());
                    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                    std::thread::spawn(move || {
                        let mut buffer = [0_u8; 16 * 1024];
                        let mut was_lost = false;
                        while gate.load(Ordering::Relaxed) {
                            let lost = swallow.load(Ordering::Relaxed);
                            if was_lost && !lost {
                                break;
                            }
                            was_lost |= lost;
                            match std::io::Read::read(&mut from, &mut buffer) {
                                Ok(0) => break,
                                Ok(_) if was_lost => {}
                                Ok(count) => {
                                    if std::io::Write::write_all(&mut to, &buffer[..count]).is_err() {
                                        break;
                                    }
                                }
                                Err(error)
                                    if matches!(
                                        error.kind(),
                                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                                    ) => {}
                                Err(_) => break,
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { port, open, hole }
    }

    pub(crate) fn url(&self) -> String {
        // User and virtual host stay: the broker of a test run has a virtual host of its own.
        let broker = broker();
        let (user, rest) = broker.rsplit_once('@').unwrap();
        let (_, vhost) = rest.split_once('/').unwrap();
        format!("{user}@127.0.0.1:{}/{vhost}", self.port)
    }
}

/// TLS in front of the test forge, with a certificate of an authority of its own.
pub(crate) struct TlsFront {
    pub(crate) url: String,
    /// The authority's certificate (PEM).
    pub(crate) authority: String,
    _runtime: tokio::runtime::Runtime,
}

impl TlsFront {
    pub(crate) fn new(forge: &str) -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::from_params(&parameters, &key);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .signed_by(&leaf_key, &issuer)
            .unwrap();
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap(),
        )
        .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let target = forge.trim_start_matches("http://").to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let Ok(mut server) = tokio::net::TcpStream::connect(target).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            authority: certificate.pem(),
            _runtime: runtime,
        }
    }
}
