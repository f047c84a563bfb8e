//! The worker's handle of `inside`: orders go out, reports come back. All reports are untrusted and only answer what was asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_inside::{ControlReader, ControlWriter, Order, Report, Token, WireError};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::process::{Exit, Process};
use super::{GatewayError, Shared};

/// How long an order may take to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A process to start in the sandbox.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub directory: String,
}

/// Who waits for which report.
#[derive(Default)]
struct Waiting {
    answers: HashMap<u32, oneshot::Sender<Report>>,
    exits: HashMap<u32, watch::Sender<Option<Exit>>>,
}

/// The connection to PID 1 of one sandbox. Dropping it ends the connection.
pub struct Inside {
    writer: tokio::sync::Mutex<ControlWriter<OwnedWriteHalf>>,
    waiting: Arc<Mutex<Waiting>>,
    shared: Arc<Shared>,
    next: AtomicU32,
    gone: CancellationToken,
    alone: bool,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Inside(..)")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl Inside {
    /// Reads the greeting and begins to follow reports.
    pub(super) async fn greet(
        stream: UnixStream,
        shared: Arc<Shared>,
        gone: CancellationToken,
    ) -> Result<Self, GatewayError> {
        let (read, write) = stream.into_split();
        let mut reader = ControlReader::new(read);
        let pid = match reader.read_report().await {
            Ok(Some(Report::Hello { version, pid, .. })) if version == cofferdam_inside::WIRE_VERSION => pid,
            Ok(_) | Err(_) => return Err(GatewayError::Gone),
        };
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(follow(reader, waiting.clone(), gone.clone()));
        Ok(Self {
            writer: tokio::sync::Mutex::new(ControlWriter::new(write)),
            waiting,
            shared,
            next: AtomicU32::new(1),
            gone,
            alone: pid == 1,
        })
    }

    /// Whether everything beside `inside` is the sandbox's, because it says that it is the first process there.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether the control connection has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Ends when the control connection has ended.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Starts a process.
    ///
    /// # Errors
    /// `inside` refuses, does not answer, or is gone.
    pub async fn spawn(&self, command: Command) -> Result<Process, GatewayError> {
        let act = "start a process";
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let token = Token::from_bytes(*uuid::Uuid::new_v4().as_bytes());
        let stdio = self.shared.expect_stdio(token.clone());
        let (exit_tx, exit) = watch::channel(None);
        self.waiting().exits.insert(id, exit_tx);
        let Command {
            argv,
            env,
            directory: cwd,
        } = command;
        let ordered = self.ask(
            id,
            act,
            Order::Spawn {
                id,
                argv,
                env,
                cwd,
                token: token.clone(),
            },
        );
        let outcome = async {
            let report = ordered.await?;
            if !matches!(report, Report::Started { .. }) {
                return Err(refused(act, &report));
            }
            match tokio::time::timeout(ANSWER_TIMEOUT, stdio).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(_)) | Err(_) => Err(GatewayError::Unanswered { act }),
            }
        };
        match outcome.await {
            Ok(stream) => Ok(Process::new(id, stream, exit, self.gone.clone())),
            Err(error) => {
                self.shared.forget_stdio(&token);
                self.waiting().exits.remove(&id);
                Err(error)
            }
        }
    }

    /// Sends a signal to a process and everything it started in its group.
    ///
    /// # Errors
    /// `inside` is gone.
    pub async fn signal(&self, process: u32, signal: i32) -> Result<(), GatewayError> {
        self.send(&Order::Signal { id: process, signal }).await
    }

    /// Writes a file, with the folders above it.
    ///
    /// # Errors
    /// `inside` refuses, does not answer, or is gone.
    pub async fn write_file(&self, path: &str, mode: u32, content: &str) -> Result<(), GatewayError> {
        let act = "write a file";
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let order = Order::WriteFile {
            id,
            path: path.to_owned(),
            mode,
            content: content.to_owned(),
        };
        let report = self.ask(id, act, order).await?;
        if matches!(report, Report::Written { .. }) {
            Ok(())
        } else {
            Err(refused(act, &report))
        }
    }

    /// Relays a loopback port of the sandbox to the gateway.
    ///
    /// # Errors
    /// `inside` refuses, does not answer, or is gone.
    pub async fn listen(&self, port: u16) -> Result<(), GatewayError> {
        let act = "relay a port";
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let report = self.ask(id, act, Order::Listen { id, port }).await?;
        if matches!(report, Report::Listening { .. }) {
            Ok(())
        } else {
            Err(refused(act, &report))
        }
    }

    /// Kills every process in the sandbox but `inside`.
    ///
    /// # Errors
    /// `inside` refuses, does not answer, or is gone.
    pub async fn quiet(&self) -> Result<(), GatewayError> {
        let act = "end what runs in it";
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let report = self.ask(id, act, Order::Quiet { id }).await?;
        if matches!(report, Report::Quieted { .. }) {
            Ok(())
        } else {
            Err(refused(act, &report))
        }
    }

    /// Has it end everything in the sandbox and then itself; says whether it went within the limit. What it does is not relied on.
    pub async fn end(&self, limit: Duration) -> bool {
        let ended = async {
            let told = self.send(&Order::Shutdown { grace_ms: 0 }).await;
            if told.is_ok() {
                self.gone().await;
            }
            told.is_ok()
        };
        tokio::time::timeout(limit, ended).await.unwrap_or(false)
    }

    async fn ask(&self, id: u32, act: &'static str, order: Order) -> Result<Report, GatewayError> {
        let (sender, answer) = oneshot::channel();
        self.waiting().answers.insert(id, sender);
        let outcome = async {
            self.send(&order).await?;
            tokio::select! {
                answered = tokio::time::timeout(ANSWER_TIMEOUT, answer) => match answered {
                    Ok(Ok(report)) => Ok(report),
                    Ok(Err(_)) => Err(GatewayError::Gone),
                    Err(_) => Err(GatewayError::Unanswered { act }),
                },
                () = self.gone.cancelled() => Err(GatewayError::Gone),
            }
        };
        let outcome = outcome.await;
        self.waiting().answers.remove(&id);
        outcome
    }

    async fn send(&self, order: &Order) -> Result<(), GatewayError> {
        let written = async {
            let mut writer = self.writer.lock().await;
            writer.write_order(order).await
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WireError::LineTooLong)) => Err(GatewayError::Refused {
                act: "take an order",
                reason: "it is longer than 1 MiB".to_owned(),
            }),
            Ok(Err(_)) => Err(GatewayError::Gone),
            Err(_) => Err(GatewayError::Unanswered { act: "take an order" }),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands reports to whom they concern until the connection ends. Reports that nobody waits for are dropped.
async fn follow(mut reader: ControlReader<OwnedReadHalf>, waiting: Arc<Mutex<Waiting>>, gone: CancellationToken) {
    loop {
        let report = tokio::select! {
            report = reader.read_report() => report,
            () = gone.cancelled() => break,
        };
        let report = match report {
            Ok(Some(report)) => report,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "`inside` sent something that is no report");
                break;
            }
        };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Hello { .. } => {}
            Report::Exited { id, code, signal } => {
                if let Some(sender) = waiting.exits.remove(&id) {
                    let _ = sender.send(Some(Exit::new(code, signal)));
                }
            }
            Report::Started { id, .. }
            | Report::Refused { id, .. }
            | Report::Written { id }
            | Report::Quieted { id }
            | Report::Listening { id, .. } => {
                if let Some(sender) = waiting.answers.remove(&id) {
                    let _ = sender.send(report);
                }
            }
        }
    }
    gone.cancel();
    // Whoever waits for an exit or an answer learns that none will come.
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.exits.clear();
    waiting.answers.clear();
}

fn refused(act: &'static str, report: &Report) -> GatewayError {
    match report {
        Report::Refused { reason, .. } => GatewayError::Refused {
            act,
            reason: reason.chars().filter(|c| !c.is_control()).take(300).collect(),
        },
        Report::Hello { .. }
        | Report::Started { .. }
        | Report::Exited { .. }
        | Report::Written { .. }
        | Report::Quieted { .. }
        | Report::Listening { .. } => GatewayError::Unanswered { act },
    }
}
