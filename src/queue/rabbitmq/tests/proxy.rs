//! A TCP proxy that can refuse, reset, swallow and hold: the faults of a network, on loopback.
//!
//! Ends with the value; never reaches anything but the address it was given.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything passes.
    Open,
    /// New connections are closed at once.
    Refuse,
    /// Connections stay and nothing passes; they and what is in them are lost when the mode changes.
    Hole,
}

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts resets; the flag says whether the broker's end is kept open, as by a network that lost our half.
    resets: watch::Sender<(u64, bool)>,
    accepting: tokio::task::AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    pub(super) async fn to(upstream: String, first: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(first);
        let resets = watch::Sender::new((0, false));
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (modes, reset) = (mode.subscribe(), resets.subscribe());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *modes.borrow() == Mode::Refuse {
                    continue;
                }
                let Ok(broker) = TcpStream::connect(&upstream).await else {
                    continue;
                };
                tokio::spawn(pump(client, broker, modes.clone(), reset.clone(), Arc::clone(&kept)));
            }
        })
        .abort_handle();
        Self {
            address,
            mode,
            resets,
            accepting,
        }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets all connections.
    pub(super) fn reset(&self) {
        self.resets
            .send_modify(|(count, keep)| (*count, *keep) = (*count + 1, false));
    }

    /// Resets our half of all connections; the broker goes on believing in its half.
    pub(super) fn reset_our_half(&self) {
        self.resets
            .send_modify(|(count, keep)| (*count, *keep) = (*count + 1, true));
    }
}

async fn pump(
    mut client: TcpStream,
    mut broker: TcpStream,
    mode: watch::Receiver<Mode>,
    mut resets: watch::Receiver<(u64, bool)>,
    kept: Arc<Mutex<Vec<TcpStream>>>,
) {
    resets.mark_unchanged();
    let both = async {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_broker, mut to_broker) = broker.split();
        let there = copy(&mut from_client, &mut to_broker, mode.clone());
        let back = copy(&mut from_broker, &mut to_client, mode.clone());
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    };
    let reset = tokio::select! {
        () = both => false,
        changed = resets.changed() => changed.is_ok(),
    };
    if reset {
        client.set_zero_linger().unwrap();
        if resets.borrow().1 {
            kept.lock().unwrap().push(broker);
        }
    }
}

async fn copy(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if *mode.borrow() == Mode::Hole {
            // What went in never comes out, not even when the hole is gone: neither does its connection.
            let _ = mode.wait_for(|mode| *mode != Mode::Hole).await;
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
