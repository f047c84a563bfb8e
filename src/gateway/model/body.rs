//! Takes a request's body whole, so that a broken upload costs no model request and a request can be sent once more.
//!
//! Bounded by itself, together with the session's others and with all of the worker's, and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest request body to a model, in bytes.
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;
/// How long one waits for memory that others hold. Not for ever: two may wait for each other's.
const MEMORY_WAIT: Duration = Duration::from_secs(10);
/// In what pieces that memory is counted, in bytes.
const PIECE: usize = 16 * 1024;
/// How long a request's body may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a request's body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untaken {
    TooLarge,
    TooMany,
    Broken,
    Late,
}

impl Untaken {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::TooLarge => {
                "the request is larger than 64 MiB, or than the worker holds of one session (gateway.body_bytes)"
            }
            Self::TooMany => "too many large requests at once: try again",
            Self::Broken => "the request broke off",
            Self::Late => "the request did not arrive in time",
        }
    }
}

/// Memory for the request bodies of all sessions of a worker.
#[derive(Debug, Clone)]
pub struct Bodies {
    all: Arc<Semaphore>,
    pieces: usize,
}

impl Bodies {
    /// So many bytes; one session gets half of them at most.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let pieces = bytes.div_ceil(PIECE).clamp(2, Semaphore::MAX_PERMITS);
        let all = Arc::new(Semaphore::new(pieces));
        Self { all, pieces }
    }

    /// What one session may have of it.
    pub(super) fn session(&self) -> Memory {
        let own = Arc::new(Semaphore::new(self.pieces / 2));
        Memory {
            own,
            all: self.all.clone(),
            most: self.pieces / 2 * PIECE,
            wait: MEMORY_WAIT,
        }
    }
}

/// Memory for the request bodies of one session.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    most: usize,
    wait: Duration,
}

/// Memory that is taken, and given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Memory {
    async fn take(&self, bytes: usize) -> Result<Held, Untaken> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).map_err(|_| Untaken::TooLarge)?;
        let both = async {
            let own = self.own.clone().acquire_many_owned(pieces).await.ok()?;
            let all = self.all.clone().acquire_many_owned(pieces).await.ok()?;
            Some(Held { own, all })
        };
        let held = tokio::time::timeout(self.wait, both).await;
        held.ok().flatten().ok_or(Untaken::TooMany)
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.own.num_permits() * PIECE
    }

    fn merge(&mut self, more: Self) {
        self.own.merge(more.own);
        self.all.merge(more.all);
    }
}

/// Reads a body; its memory is given back with the second value.
pub(super) async fn take(body: Body, memory: &Memory) -> Result<(Bytes, Held), Untaken> {
    tokio::time::timeout(REQUEST_TIMEOUT, read(body, memory))
        .await
        .unwrap_or(Err(Untaken::Late))
}

async fn read(body: Body, memory: &Memory) -> Result<(Bytes, Held), Untaken> {
    let mut held = memory.take(1).await?;
    let mut whole = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Untaken::Broken)?;
        let length = whole.len() + piece.len();
        if length > LARGEST_REQUEST.min(memory.most) {
            return Err(Untaken::TooLarge);
        }
        if length > held.bytes() {
            held.merge(memory.take(length - held.bytes()).await?);
        }
        whole.extend_from_slice(&piece);
    }
    Ok((whole.into(), held))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_of(pieces: usize, memory: &Memory) -> Result<(Bytes, Held), Untaken> {
        read(Body::from(vec![1; pieces * PIECE]), memory).await
    }

    #[tokio::test]
    async fn bodies_of_all_sessions_are_bounded_together_and_give_their_memory_back() {
        let bodies = Bodies::new(8 * PIECE);
        let [mut one, two, mut three] = [(); 3].map(|()| bodies.session());
        (one.wait, three.wait) = (Duration::ZERO, Duration::ZERO);
        let (first, held) = read_of(3, &one).await.unwrap();
        assert_eq!((first.len(), held.bytes()), (3 * PIECE, 3 * PIECE));
        // One session's half is not another's.
        assert_eq!(read_of(2, &one).await.err(), Some(Untaken::TooMany));
        assert_eq!(read_of(5, &two).await.err(), Some(Untaken::TooLarge));
        let others = read_of(4, &two).await.unwrap();
        assert_eq!(read_of(2, &three).await.err(), Some(Untaken::TooMany));
        // Whoever waits gets what is given back in time.
        three.wait = MEMORY_WAIT;
        let (waited, ()) = tokio::join!(read_of(2, &three), async { drop(held) });
        drop((waited.unwrap(), others));
        assert_eq!(bodies.all.available_permits(), 8);
        assert!(read_of(4, &one).await.is_ok());
    }
}
