//! Takes a request's body whole, so that a broken upload costs no model request and a request can be sent once more.
//!
//! Bounded by itself, together with the session's others, and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest request body to a model, in bytes.
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;
/// Request bodies of one session in memory at a time, in bytes.
const REQUESTS_IN_MEMORY: usize = 128 * 1024 * 1024;
/// In what pieces that memory is counted, in bytes.
pub(super) const PIECE: usize = 16 * 1024;
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
            Self::TooLarge => "the request is larger than 64 MiB",
            Self::TooMany => "too many large requests at once: try again",
            Self::Broken => "the request broke off",
            Self::Late => "the request did not arrive in time",
        }
    }
}

/// Memory for the request bodies of one session.
pub(super) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(REQUESTS_IN_MEMORY / PIECE))
}

/// Reads a body; its memory is given back with the second value.
pub(super) async fn take(body: Body, memory: &Arc<Semaphore>) -> Result<(Bytes, OwnedSemaphorePermit), Untaken> {
    tokio::time::timeout(REQUEST_TIMEOUT, read(body, memory))
        .await
        .unwrap_or(Err(Untaken::Late))
}

/// Never waits for memory: two that wait for each other's would wait for ever.
async fn read(body: Body, memory: &Arc<Semaphore>) -> Result<(Bytes, OwnedSemaphorePermit), Untaken> {
    let more = |bytes: usize| {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).map_err(|_| Untaken::TooLarge)?;
        memory
            .clone()
            .try_acquire_many_owned(pieces)
            .map_err(|_| Untaken::TooMany)
    };
    let mut place = more(1)?;
    let mut whole = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Untaken::Broken)?;
        let length = whole.len() + piece.len();
        if length > LARGEST_REQUEST {
            return Err(Untaken::TooLarge);
        }
        let held = place.num_permits() * PIECE;
        if length > held {
            place.merge(more(length - held)?);
        }
        whole.extend_from_slice(&piece);
    }
    Ok((whole.into(), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded_together_and_give_their_memory_back() {
        let memory = Arc::new(Semaphore::new(4));
        let (first, place) = read(Body::from(vec![1; 3 * PIECE]), &memory).await.ok().unwrap();
        assert_eq!((first.len(), place.num_permits()), (3 * PIECE, 3));
        let second = read(Body::from(vec![1; 2 * PIECE]), &memory).await;
        assert_eq!(second.err(), Some(Untaken::TooMany));
        drop(place);
        assert!(read(Body::from(vec![1; 4 * PIECE]), &memory).await.is_ok());
        assert_eq!(memory.available_permits(), 4);
    }
}
