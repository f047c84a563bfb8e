//! Between an agent's output and the protocol's crate: bounds lines, drops what is not JSON, and reads updates itself.
//!
//! The crate queues without bound, so a flood must stop here: updates are handled one by one and never reach it. Never interprets a request or an answer.

use std::sync::{Arc, Mutex, PoisonError};

use futures::Sink;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::load::Replay;
use super::tally::Tally;
use super::update::{self, Update};
use crate::agent::push_bounded;
use crate::message::EventBody;
use crate::progress::Progress;

/// Longest line that is read; a longer one is dropped and counted.
const LONGEST_LINE: usize = 8 * 1024 * 1024;
/// What is read at a time, in bytes: each session has that for as long as its agent lives.
const PIECE: usize = 2 * 1024;
/// Most requests and answers of an agent to us in its life. A well-behaved agent sends a few hundred.
const MOST_PASSED: u32 = 100_000;

/// Where what an agent does is told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) progress: Arc<Progress>,
    pub(super) tally: Tally,
    /// While it is on, nothing that the agent says is told, kept or counted.
    pub(super) replay: Replay,
}

impl Told {
    /// Tells what was only counted so far.
    pub(super) async fn tell(&self) {
        for event in self.tally.take() {
            self.progress.state(event).await;
        }
    }
}

/// What the agent said in the running turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<String>>);

impl Said {
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, more: &str) {
        push_bounded(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), more);
    }
}

/// Reads the agent's output to its end, passing on what the crate shall see.
pub(super) async fn filter(
    output: impl AsyncRead + Send + Unpin,
    onward: mpsc::Sender<std::io::Result<String>>,
    said: Said,
    heard: watch::Sender<Instant>,
    told: Told,
) {
    let Told {
        progress,
        tally,
        replay,
    } = &told;
    let mut reader = BufReader::with_capacity(PIECE, output);
    let mut calls = update::Calls::default();
    let mut count = 0_u32;
    loop {
        let line = match next_line(&mut reader).await {
            Ok(Some(Line::Whole(line))) => line,
            Ok(Some(Line::TooLong(bytes))) => {
                if !replay.is_on() {
                    tally.dropped(bytes);
                }
                continue;
            }
            Ok(None) | Err(_) => break,
        };
        let _ = heard.send(Instant::now());
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(&line) else {
            tally.dropped(line.len() as u64);
            continue;
        };
        if message.get("method").and_then(serde_json::Value::as_str) == Some("session/update") {
            if replay.is_on() {
                continue;
            }
            for update in update::read(&message, &mut calls) {
                match update {
                    Update::Said(text) => {
                        said.push(&text);
                        progress.note(EventBody::AgentMessage { text });
                    }
                    Update::Event(event) => progress.note(*event),
                }
            }
            continue;
        }
        if let Some(usage) = update::usage(&message)
            && !replay.is_on()
        {
            tally.usage(usage);
        }
        count += 1;
        if count > MOST_PASSED {
            tracing::warn!("an agent sent more requests than any agent needs; its connection is closed");
            break;
        }
        // JSON that was read is text.
        let Ok(line) = String::from_utf8(line) else { continue };
        if onward.send(Ok(line)).await.is_err() {
            break;
        }
    }
    told.tell().await;
}

/// Where the crate's own lines go.
pub(super) fn sink(
    input: impl AsyncWrite + Send + Unpin + 'static,
) -> impl Sink<String, Error = std::io::Error> + Send + 'static {
    futures::sink::unfold(input, |mut input, line: String| async move {
        let mut line = line.into_bytes();
        line.push(b'\n');
        input.write_all(&line).await?;
        input.flush().await?;
        Ok(input)
    })
}

pub(super) enum Line {
    Whole(Vec<u8>),
    TooLong(u64),
}

/// The next line without its newline; never holds more than `LONGEST_LINE`.
pub(super) async fn next_line(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut skipped = 0_u64;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(match (skipped, line.is_empty()) {
                (0, true) => None,
                (0, false) => Some(Line::Whole(line)),
                (bytes, _) => Some(Line::TooLong(bytes)),
            });
        }
        let (taken, ended) = match available.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        let content = &available[..taken - usize::from(ended)];
        if skipped > 0 || line.len() + content.len() > LONGEST_LINE {
            skipped += (line.len() + content.len()) as u64;
            line = Vec::new();
        } else {
            line.extend_from_slice(content);
        }
        reader.consume(taken);
        if ended {
            return Ok(Some(if skipped > 0 {
                Line::TooLong(skipped)
            } else {
                Line::Whole(line)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_the_next_one_is_still_read() {
        let mut input = vec![b'x'; LONGEST_LINE + 10];
        input.extend_from_slice(b"\nnext\nlast");
        let mut reader = BufReader::new(input.as_slice());
        assert!(
            matches!(next_line(&mut reader).await.unwrap(), Some(Line::TooLong(bytes)) if bytes == LONGEST_LINE as u64 + 10)
        );
        assert!(matches!(next_line(&mut reader).await.unwrap(), Some(Line::Whole(line)) if line == b"next"));
        assert!(matches!(next_line(&mut reader).await.unwrap(), Some(Line::Whole(line)) if line == b"last"));
        assert!(next_line(&mut reader).await.unwrap().is_none());
    }
}
