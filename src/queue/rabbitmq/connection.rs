//! One supervised connection: connects for ever, declares what is missing, tells when it is lost.
//!
//! Never uses the client library's own recovery: it hands deliveries out again silently, and an ack of an old one looks like success.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::BasicQosOptions;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::super::QueueError;
use super::address::Settings;
use super::asking::Asking;
use super::topology;

/// First pause between attempts; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between attempts, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Attempts that may hang in a handshake at once. Each holds a thread of the client library, which cannot be told to give up.
const HANGING_ATTEMPTS: usize = 4;

/// A connection that worked when this was made.
#[derive(Debug)]
pub(super) struct Live {
    /// Counts connections; what came on one is worth nothing on the next.
    pub(super) generation: u64,
    connection: Connection,
    /// Whether the broker takes no messages on this connection now.
    blocked: watch::Sender<bool>,
    /// Whether the broker left our last question without an answer.
    silent: watch::Sender<bool>,
    /// Where questions are asked that cost a channel.
    asking: Arc<Asking>,
    /// Channels' numbers that cannot be used any more on this connection.
    stale: AtomicU16,
    /// Channels that wait for the next short call.
    idle: Idle,
    /// Channels that confirm, each for one message at a time.
    pub(super) confirming: Idle,
}

/// Channels of one kind that nobody uses now. A broker starts several processes for each that is opened.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<Lent>>);

/// A channel for its holder alone, who gives it back when a call was answered. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) channel: Channel,
    uses: u32,
}

/// Channels of one kind that are kept open for the next call, at most.
const IDLE: usize = 16;
/// Calls of one channel at most: the client library keeps every queue that was declared on it.
const USES: u32 = 100;

impl From<Channel> for Lent {
    fn from(channel: Channel) -> Self {
        Self { channel, uses: 0 }
    }
}

impl Idle {
    /// One that still works.
    pub(super) fn take(&self) -> Option<Lent> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|lent| lent.channel.status().connected())
    }

    /// Only after a call that was answered: an answer that comes late would be taken for that to another question.
    pub(super) fn give_back(&self, mut lent: Lent) {
        lent.uses += 1;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && lent.uses < USES {
            idle.push(lent);
        }
    }
}

/// Why one call did not work.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client library or the broker said so.
    Refused(lapin::Error),
    /// No answer in time.
    Silent(Duration),
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Self::Refused(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => {
                let text: String = error
                    .to_string()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(300)
                    .collect();
                formatter.write_str(&text)
            }
            Self::Silent(limit) => write!(formatter, "no answer within {} s", limit.as_secs_f32()),
        }
    }
}

impl Failure {
    /// The broker's reply code, where it gave one.
    pub(super) fn reply_code(&self) -> Option<u16> {
        match self {
            Self::Refused(error) => {
                if let ErrorKind::ProtocolError(error) = error.kind() {
                    Some(error.get_id())
                } else {
                    None
                }
            }
            Self::Silent(_) => None,
        }
    }

    /// As a failed declaration where the broker refused it, otherwise as a lost connection.
    pub(super) fn declare(self, address: &str, object: String) -> QueueError {
        let detail = self.to_string();
        match self.reply_code() {
            Some(_) => QueueError::Declare { object, detail },
            None => QueueError::Connect {
                address: address.to_owned(),
                detail: format!("{object}: {detail}"),
            },
        }
    }
}

/// Puts a time limit on a call.
pub(super) async fn limited<T>(limit: Duration, call: impl Future<Output = lapin::Result<T>>) -> Result<T, Failure> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(Failure::Refused),
        Err(_) => Err(Failure::Silent(limit)),
    }
}

impl Live {
    /// A new channel of this connection.
    pub(super) async fn channel(&self, settings: &Settings) -> Result<Channel, Failure> {
        self.channel_within(settings.call_timeout).await
    }

    /// A channel for calls that leave nothing behind on it, no consumer and nothing unacknowledged. Whoever was answered may give it back.
    pub(super) async fn short_channel(&self, settings: &Settings) -> Result<Lent, Failure> {
        match self.idle.take() {
            Some(lent) => Ok(lent),
            None => self.channel(settings).await.map(Lent::from),
        }
    }

    /// For the next caller of [`Live::short_channel`].
    pub(super) fn give_back(&self, lent: Lent) {
        self.idle.give_back(lent);
    }

    /// A new channel, for a question that the broker may answer by closing it. On another connection than this one.
    pub(super) async fn channel_to_ask(&self, settings: &Settings) -> Result<Channel, Failure> {
        self.asking.channel(settings).await
    }

    async fn channel_within(&self, limit: Duration) -> Result<Channel, Failure> {
        loop {
            match limited(limit, self.connection.create_channel()).await {
                // A broker refuses no channel and stays: these are the words with which it once closed one of the same number (see `asking`).
                // The library does not come back to a number that failed so, and the next one may be free.
                Err(failure) if failure.reply_code().is_some() && self.connection.status().connected() => {
                    self.stale.fetch_add(1, Ordering::Relaxed);
                }
                opened => return opened,
            }
        }
    }

    /// Whether so many channels of this connection were closed by the broker that it has to be replaced before none is left.
    fn is_worn(&self) -> bool {
        let most = self.connection.configuration().channel_max();
        self.stale.load(Ordering::Relaxed) > most / 2
    }

    /// Whether the broker takes messages, now or within the time that the caller waits.
    pub(super) async fn unblocked(&self) {
        let mut blocked = self.blocked.subscribe();
        // The sender lives in `self`, so this ends only when it is unblocked.
        let _ = blocked.wait_for(|blocked| !blocked).await;
    }

    /// Waits until the broker takes no messages.
    pub(super) async fn blocks(&self) {
        let mut blocked = self.blocked.subscribe();
        let _ = blocked.wait_for(|blocked| *blocked).await;
    }

    /// Whether the broker has stopped taking messages.
    pub(super) fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Whether the broker has stopped answering; known long before the connection counts as lost.
    pub(super) fn silent(&self) -> watch::Receiver<bool> {
        self.silent.subscribe()
    }

    /// Says good-bye to the broker; a connection that is merely dropped does so too, without waiting.
    pub(super) async fn close(&self, settings: &Settings) {
        let _ = limited(settings.call_timeout, self.connection.close(200, "bye".into())).await;
    }
}

/// A supervised connection. Dropping it ends the connection and the supervisor.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<Option<Arc<Live>>>,
    supervisor: tokio::task::AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Link {
    pub(super) fn start(settings: Arc<Settings>, role: &'static str, asking: Arc<Asking>) -> Self {
        let (sender, state) = watch::channel(None);
        let supervisor = tokio::spawn(supervise(settings, role, asking, sender)).abort_handle();
        Self { state, supervisor }
    }

    /// The connection, if there is one now.
    pub(super) fn current(&self) -> Option<Arc<Live>> {
        self.state.borrow().clone()
    }

    /// Waits for a connection. Never ends while the broker is away; safe to drop.
    pub(super) async fn connected(&self) -> Arc<Live> {
        let mut state = self.state.clone();
        loop {
            if let Some(live) = state.borrow_and_update().clone() {
                return live;
            }
            if state.changed().await.is_err() {
                // The supervisor is gone, so this queue is being dropped: nobody will hear the answer.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this connection is not the current one any more.
    pub(super) async fn lost(&self, generation: u64) {
        let mut state = self.state.clone();
        let gone = |live: &Option<Arc<Live>>| live.as_ref().is_none_or(|live| live.generation != generation);
        // An error means that the supervisor is gone, and the connection with it.
        let _ = state.wait_for(gone).await;
    }
}

async fn supervise(
    settings: Arc<Settings>,
    role: &'static str,
    asking: Arc<Asking>,
    state: watch::Sender<Option<Arc<Live>>>,
) {
    let hanging = Arc::new(Semaphore::new(HANGING_ATTEMPTS));
    let mut generation = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        generation += 1;
        match connect(&settings, role, (generation, &asking), &hanging).await {
            Ok((live, events)) => {
                let live = Arc::new(live);
                tracing::info!(role, address = settings.address, "connected to the broker");
                state.send_replace(Some(Arc::clone(&live)));
                pause = FIRST_PAUSE;
                let reason = tokio::select! {
                    reason = watch_until_lost(&live, &settings, events) => reason,
                    never = listen(&live, &settings) => match never {},
                };
                state.send_replace(None);
                tracing::warn!(role, address = settings.address, reason, "lost the broker");
            }
            Err(error) => tracing::warn!(role, %error, "no broker yet, trying again"),
        }
        sleep(with_jitter(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between one and one and a half times the pause, so that workers do not come back all at once.
fn with_jitter(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause + pause.mul_f64(random as f64 / 2000.0)
}

type Events = std::pin::Pin<Box<dyn futures::Stream<Item = Event> + Send>>;

async fn connect(
    settings: &Arc<Settings>,
    role: &'static str,
    (generation, asking): (u64, &Arc<Asking>),
    hanging: &Arc<Semaphore>,
) -> Result<(Live, Events), QueueError> {
    let unreachable = |detail: String| QueueError::Connect {
        address: settings.address.clone(),
        detail,
    };
    // The attempt runs on after its time limit, because its thread does: the permit says so.
    let Ok(permit) = Arc::clone(hanging).acquire_owned().await else {
        return Err(unreachable("the supervisor ends".into()));
    };
    let attempt = tokio::spawn({
        let settings = Arc::clone(settings);
        async move {
            let opened = open(&settings, role).await;
            drop(permit);
            opened
        }
    });
    let opened = match timeout(settings.connect_timeout, attempt).await {
        Ok(Ok(opened)) => opened.map_err(|error| unreachable(Failure::Refused(error).to_string()))?,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable(Failure::Silent(settings.connect_timeout).to_string())),
    };
    let (live, events) = enliven(opened, generation, asking.clone());
    topology::ensure(&live, settings).await?;
    Ok((live, events))
}

/// One attempt without a supervisor, for commands.
pub(super) async fn connect_once(settings: &Settings, role: &'static str, generation: u64) -> Result<Live, QueueError> {
    let opened = limited(settings.connect_timeout, open(settings, role)).await;
    let opened = opened.map_err(|failure| QueueError::Connect {
        address: settings.address.clone(),
        detail: failure.to_string(),
    })?;
    Ok(enliven(opened, generation, Arc::default()).0)
}

pub(super) async fn open(settings: &Settings, role: &'static str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(format!("cofferdam {role}").into());
    Connection::connect_uri(settings.uri.clone(), properties).await
}

fn enliven(connection: Connection, generation: u64, asking: Arc<Asking>) -> (Live, Events) {
    // Listened to before anything else happens on it, so that no loss goes unheard.
    let events = Box::pin(connection.events_listener());
    let live = Live {
        generation,
        connection,
        blocked: watch::Sender::new(false),
        silent: watch::Sender::new(false),
        asking,
        stale: AtomicU16::new(0),
        idle: Idle::default(),
        confirming: Idle::default(),
    };
    (live, events)
}

/// Asks the broker something small again and again: a black hole says nothing, so only an answer shows that it is still there.
async fn listen(live: &Live, settings: &Settings) -> Infallible {
    let pace = settings.timing().asking();
    let heard = |heard: bool| {
        live.silent
            .send_if_modified(|silent| std::mem::replace(silent, !heard) == heard);
    };
    loop {
        // On a channel of its own: an answer that comes late must not be taken for that to another question.
        let asked = async {
            let channel = live.channel_within(pace).await?;
            loop {
                limited(pace, channel.basic_qos(1, BasicQosOptions::default())).await?;
                heard(true);
                sleep(pace).await;
            }
        };
        let unanswered: Result<Infallible, Failure> = asked.await;
        match unanswered {
            Ok(never) => match never {},
            Err(_) => heard(false),
        }
        sleep(FIRST_PAUSE).await;
    }
}

/// Ends with the reason when the connection is lost.
async fn watch_until_lost(live: &Live, settings: &Settings, mut events: Events) -> String {
    let mut reason = "the connection was closed".to_owned();
    // The status decides: refusals that close only a channel come as errors too, and some ends of a connection come as no event at all.
    while live.connection.status().connected() {
        if live.is_worn() {
            return "most of its channels were closed by the broker: it is replaced".to_owned();
        }
        let Ok(event) = timeout(settings.heartbeat, events.next()).await else {
            continue;
        };
        match event {
            Some(Event::Error(error)) => reason = Failure::Refused(error).to_string(),
            Some(Event::ConnectionBlocked(reason)) => {
                let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
                tracing::warn!(reason, "the broker takes no messages");
                live.blocked.send_replace(true);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker takes messages again");
                live.blocked.send_replace(false);
            }
            Some(_) => {}
            None => break,
        }
    }
    reason
}
