//! Carries bytes between an HTTP connection and git's programs. Understands none of them: what reads an answer on its way is given.

use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::ReaderStream;

use super::report::Report;
use crate::repository::Serving;

/// How long a program may go on whose answer nobody reads: a push may be accepted in that time. Then it is ended, and what it left removed.
const PATIENCE: Duration = Duration::from_secs(60);

/// From the request's body to git's input, piece by piece. When the client breaks off, git sees the end and refuses the rest.
pub(super) async fn feed(begun: Vec<u8>, mut body: BodyDataStream, mut input: ChildStdin) {
    let mut wanted = input.write_all(&begun).await.is_ok();
    // Once git has closed its input, what the client still sends is taken, so that it can read the answer.
    while let Some(Ok(piece)) = body.next().await {
        wanted = wanted && input.write_all(&piece).await.is_ok();
    }
}

/// git's answer as a stream; `after` is called once git has ended.
pub(super) fn carry<F, After>(
    serving: Serving,
    after: F,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + use<F, After>
where
    F: FnOnce() -> After + Send + 'static,
    After: Future<Output = ()> + Send + 'static,
{
    carry_through(
        serving,
        (),
        |&mut (), piece| piece,
        |&mut ()| Bytes::new(),
        move |()| after(),
    )
}

/// The same for a fetch: `told` is what follows git's answer when not all of the request reached it.
pub(super) fn carry_fetch<F, After>(
    serving: Serving,
    told: oneshot::Receiver<Bytes>,
    after: F,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + use<F, After>
where
    F: FnOnce() -> After + Send + 'static,
    After: Future<Output = ()> + Send + 'static,
{
    let rest = |told: &mut oneshot::Receiver<Bytes>| told.try_recv().unwrap_or_default();
    carry_through(serving, told, |_, piece| piece, rest, move |_| after())
}

/// The same for a push: its report is read on the way.
pub(super) fn carry_report<F, After>(
    serving: Serving,
    after: F,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + use<F, After>
where
    F: FnOnce(Report) -> After + Send + 'static,
    After: Future<Output = ()> + Send + 'static,
{
    let piece = |report: &mut Report, piece: Bytes| report.piece(&piece);
    carry_through(serving, Report::default(), piece, Report::rest, after)
}

fn carry_through<R, F, After>(
    mut serving: Serving,
    mut reader: R,
    through: fn(&mut R, Bytes) -> Bytes,
    rest: fn(&mut R) -> Bytes,
    after: F,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + use<R, F, After>
where
    R: Send + 'static,
    F: FnOnce(R) -> After + Send + 'static,
    After: Future<Output = ()> + Send + 'static,
{
    let (pieces, stream) = mpsc::channel::<std::io::Result<Bytes>>(4);
    tokio::spawn(async move {
        if let Some(output) = serving.output.take() {
            let mut output = ReaderStream::with_capacity(output, 64 * 1024);
            let mut wanted = true;
            while let Some(piece) = output.next().await {
                let piece = piece.map(|piece| through(&mut reader, piece));
                // A client that is gone; a push may still be in git's hands, and its outcome must be known.
                if matches!(&piece, Ok(piece) if piece.is_empty()) {
                    continue;
                }
                if pieces.send(piece).await.is_err() {
                    wanted = false;
                    break;
                }
            }
            let rest = rest(&mut reader);
            if wanted && !rest.is_empty() {
                let _ = pieces.send(Ok(rest)).await;
            }
        }
        if let Err(error) = serving.finish_within(PATIENCE).await {
            tracing::debug!(%error, "a git program for a sandbox failed");
        }
        after(reader).await;
    });
    tokio_stream::wrappers::ReceiverStream::new(stream)
}
