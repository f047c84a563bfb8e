//! `scripted-model`: a server of four model APIs for tests and demonstrations. It ends by itself, and never prints its key.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use cofferdam_test_support::model::{Settings, serve};
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
#[command(about = "A model that does what the prompt's lines say")]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File with the key that every request has to bring.
    #[arg(long, required_unless_present = "key", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// The key itself. Everybody on this machine can read it in the process list: for throw-away keys only.
    #[arg(long)]
    key: Option<String>,
    /// File that is written once the model listens; it holds the address.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// File to append a line of JSON to for each request.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 3600)]
    max_lifetime: u64,
    /// Ends when this process is gone.
    #[arg(long)]
    parent_pid: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let key = match (&arguments.key_file, arguments.key) {
        (Some(path), _) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        (None, key) => key.unwrap_or_default(),
    };
    let key = key.trim().to_owned();
    ensure!(!key.is_empty(), "the key is empty");
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("listening on {}", arguments.listen))?;
    let address = listener.local_addr()?;
    if let Some(path) = &arguments.ready_file {
        announce(path, address).with_context(|| format!("writing {}", path.display()))?;
    }
    writeln!(std::io::stdout(), "http://{address}/v1")?;
    let settings = Settings {
        key,
        log: arguments.log,
    };
    let end = until_the_end(Duration::from_secs(arguments.max_lifetime), arguments.parent_pid);
    tokio::select! {
        served = serve(listener, settings, std::future::pending()) => Ok(served?),
        () = end => Ok(()),
    }
}

/// Whole or not at all: who waits for the file reads it the moment it is there.
fn announce(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, address.to_string())?;
    std::fs::rename(partial, path)
}

fn until_the_end(lifetime: Duration, parent: Option<u32>) -> impl Future<Output = ()> {
    let orphaned = async move {
        let Some(parent) = parent else {
            return std::future::pending().await;
        };
        while Path::new(&format!("/proc/{parent}")).exists() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    async move {
        tokio::select! {
            () = orphaned => {}
            () = tokio::time::sleep(lifetime) => {}
        }
    }
}
