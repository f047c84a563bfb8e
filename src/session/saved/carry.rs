//! Between the sandbox's home directory and a file of ours. What packs and unpacks runs in the sandbox, as the sandbox's user; the worker sees
//! bytes.
//!
//! Whatever an unpacked state writes, and wherever, the agent that it belongs to could have written itself: it is one user in one sandbox. What
//! the operator seeds is written afterwards.

use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::workspace;
use super::{SavedError, States};
use crate::gateway::inside::Command;
use crate::gateway::{GatewayError, Inside, Process};
use crate::message::{SavedName, SessionId};
use crate::sandbox::HOME;

/// How long one way may take.
const CARRYING: Duration = Duration::from_secs(30);
/// How long a program in the sandbox may take to end after its streams did.
const ENDING: Duration = Duration::from_secs(5);
/// What the script for packing ends with where there is nothing to pack.
const NOTHING: i32 = 91;
/// How much of what a program says is told, in characters.
const LONGEST_WORDS: usize = 300;

/// Packs those of the paths that exist. What is not there yet does not keep what is.
const PACK: &str = "for path do shift; if [ -e \"./$path\" ]; then set -- \"$@\" \"./$path\"; fi; done; \
     [ $# -gt 0 ] || exit 91; exec tar -c -f - -- \"$@\"";
/// Unpacks all of it.
const UNPACK: &str = "exec tar -x -f -";
/// Removes them.
const ERASE: &str = "for path do rm -rf -- \"./$path\"; done";

fn order(script: &str, paths: &[String]) -> Command {
    let words = ["sh", "-c", script, "state"].map(str::to_owned);
    Command {
        argv: words.into_iter().chain(paths.iter().cloned()).collect(),
        env: workspace::base_environment(),
        directory: HOME.to_owned(),
    }
}

/// Packs these paths of the home directory into a file of the session; says its name.
pub(super) async fn pack(
    inside: &Inside,
    paths: &[String],
    states: &States,
    session: SessionId,
) -> Result<(SavedName, u64), SavedError> {
    let (name, mut writing) = states.begin(session).await?;
    let mut process = inside.spawn(order(PACK, paths)).await?;
    let packing = async {
        let stdout = process.take_stdout().ok_or(GatewayError::Gone)?;
        let taken = writing.take(stdout).await?;
        Ok::<_, SavedError>(taken)
    };
    let taken = within(CARRYING, packing).await;
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => {
            // Whatever it still writes, nobody reads it.
            let _ = inside.signal(process.id(), 9).await;
            return Err(error);
        }
    };
    ended(&mut process).await?;
    writing.finish().await?;
    Ok((name, taken))
}

/// Unpacks a file into the home directory.
pub(super) async fn unpack(inside: &Inside, file: File, most: u64) -> Result<(), SavedError> {
    let mut process = inside.spawn(order(UNPACK, &[])).await?;
    let mut stdin = process.take_stdin().ok_or(GatewayError::Gone)?;
    let feeding = async {
        let fed = tokio::io::copy(&mut file.take(most), &mut stdin).await;
        let _ = stdin.shutdown().await;
        drop(stdin);
        fed.map_err(SavedError::disk("read a file"))
    };
    let unpacking = async {
        let fed = tokio::select! {
            fed = feeding => fed.map(drop),
            // It takes no more.
            _ = process.wait() => Ok(()),
        };
        // Its own word says more than that it took no more.
        ended(&mut process).await?;
        fed
    };
    let unpacked = within(CARRYING, unpacking).await;
    if unpacked.is_err() {
        let _ = inside.signal(process.id(), 9).await;
    }
    unpacked
}

/// Removes these paths of the home directory: what was unpacked in vain must not be in the way of a new beginning.
pub(in super::super) async fn erase(inside: &Inside, paths: &[String]) {
    let erasing = async {
        let process = inside.spawn(order(ERASE, paths)).await?;
        drop(process.finish(0).await);
        Ok::<_, SavedError>(())
    };
    if let Err(error) = within(CARRYING, erasing).await {
        tracing::info!(%error, "a saved state that was not loaded stays in its sandbox");
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, SavedError>>) -> Result<T, SavedError> {
    let slow = SavedError::Slow { after: limit };
    tokio::time::timeout(limit, work).await.unwrap_or(Err(slow))
}

/// The end of a program, which must be a good one.
async fn ended(process: &mut Process) -> Result<(), SavedError> {
    let exit = within(ENDING, async { Ok(process.wait().await) }).await?;
    if exit.is_success() {
        return Ok(());
    }
    if exit.status == NOTHING {
        return Err(SavedError::Nothing);
    }
    process.settle().await;
    let words = process.errors();
    let end = words
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    Err(SavedError::Program {
        status: exit.status,
        said: end.trim().chars().take(LONGEST_WORDS).collect(),
    })
}
