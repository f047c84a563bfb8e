//! A CONNECT tunnel once it is open: the greeting is looked at, then bytes are copied both ways within the limits. Reads nothing of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::budget::{Budget, Direction};
use super::{Proxy, greeting};
use crate::grant::egress::{Allowed, Refusal, Rule};

/// How long a client may take to read why it was refused.
const PARTING: Duration = Duration::from_secs(2);

/// An accepted CONNECT.
pub(super) struct Tunnel {
    pub(super) upgrade: OnUpgrade,
    pub(super) upstream: TcpStream,
    pub(super) allowed: Allowed,
    pub(super) budget: Arc<Budget>,
}

/// Why a direction ended before its source did.
enum Ended {
    Broken,
    Over(Direction),
}

impl Tunnel {
    /// Until one side is done, or a limit is reached.
    pub(super) async fn run(self, proxy: &Proxy) {
        let Ok(upgraded) = self.upgrade.await else { return };
        let mut client = TokioIo::new(upgraded);
        let mut upstream = self.upstream;
        let refusal = |rule, message| Refusal {
            rule,
            host: self.allowed.host.to_string(),
            port: self.allowed.port,
            message,
        };
        if self.allowed.tls {
            match greeting::read(&mut client, &self.allowed.host).await {
                Ok(bytes) => {
                    let fits = self.budget.take(Direction::Up, bytes.len());
                    if !fits || upstream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    proxy.metrics.gateway.egress_bytes(Direction::Up.as_str(), bytes.len());
                }
                Err((rule, message)) => {
                    let refusal = refusal(rule, message);
                    drop(upstream);
                    let words = refusal.words();
                    let parting = if rule == Rule::NotTls {
                        words.as_bytes()
                    } else {
                        &greeting::ALERT
                    };
                    tokio::join!(part(&mut client, parting), proxy.refused(&refusal));
                    return;
                }
            }
        }
        let activity = Activity::new(Duration::from_secs(proxy.config.idle_timeout_s));
        let (client_read, client_write) = tokio::io::split(client);
        let (upstream_read, upstream_write) = upstream.split();
        let copied = tokio::try_join!(
            copy(
                client_read,
                upstream_write,
                Direction::Up,
                &self.budget,
                &activity,
                proxy
            ),
            copy(
                upstream_read,
                client_write,
                Direction::Down,
                &self.budget,
                &activity,
                proxy
            ),
        );
        if let Err(Ended::Over(direction)) = copied {
            let message = super::over(direction, &self.allowed.host, &proxy.config);
            proxy.refused(&refusal(direction.rule(), message)).await;
        }
    }
}

/// Says something last, and waits a moment so that it is read.
async fn part(client: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) {
    let parted = async {
        client.write_all(words).await?;
        client.shutdown().await?;
        let mut rest = [0_u8; 1024];
        while client.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(PARTING, parted).await;
}

/// When last a byte went in either direction.
struct Activity {
    began: Instant,
    last_ms: AtomicU64,
    idle: Duration,
}

impl Activity {
    fn new(idle: Duration) -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            idle,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long it may still be quiet.
    fn left(&self) -> Duration {
        let quiet = self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed));
        self.idle.saturating_sub(Duration::from_millis(quiet))
    }
}

/// Copies one direction to its end, and passes the end on.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    budget: &Budget,
    activity: &Activity,
    proxy: &Proxy,
) -> Result<(), Ended> {
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let left = activity.left();
        if left.is_zero() {
            return Err(Ended::Broken);
        }
        let count = match tokio::time::timeout(left, from.read(&mut buffer)).await {
            // The other direction may have been busy meanwhile.
            Err(_) => continue,
            Ok(Err(_)) => return Err(Ended::Broken),
            Ok(Ok(count)) => count,
        };
        if count == 0 {
            return to.shutdown().await.map_err(|_| Ended::Broken);
        }
        if !budget.take(direction, count) {
            return Err(Ended::Over(direction));
        }
        activity.touch();
        let written = tokio::time::timeout(activity.idle, to.write_all(&buffer[..count])).await;
        if !matches!(written, Ok(Ok(()))) {
            return Err(Ended::Broken);
        }
        activity.touch();
        proxy.metrics.gateway.egress_bytes(direction.as_str(), count);
    }
}
