//! `test-forge`: runs the test forge from the command line, for demos, benchmarks and tests in other languages.
//!
//! A test double; never serves anything but loopback, and always stops by itself.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use cofferdam_test_support::forge::{self, Options, Seed};
use tokio::signal::unix::{SignalKind, signal};

/// Plays one GitLab (under /gitlab) and one GitHub Enterprise instance on a loopback port. A test double.
#[derive(Debug, Parser)]
#[command(name = "test-forge")]
struct Arguments {
    /// TOML file: users, tokens, projects, issues.
    #[arg(long)]
    seed: PathBuf,
    /// Directory for the repositories.
    #[arg(long)]
    data: PathBuf,
    /// Loopback address; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Write the addresses to this file once the forge answers.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// Append each request to this file, one JSON object a line.
    #[arg(long)]
    request_log: Option<PathBuf>,
    /// Every answer waits for so many milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Stop after so many seconds.
    #[arg(long, default_value_t = 3600)]
    max_lifetime: u64,
    /// Stop when the process with this id is gone.
    #[arg(long)]
    parent_pid: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seed = Seed::load(&arguments.seed)?;
    std::fs::create_dir_all(&arguments.data).with_context(|| format!("create {}", arguments.data.display()))?;
    // The handlers stand before anybody can know that we run.
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let options = Options {
        listen: arguments.listen,
        delay: Duration::from_millis(arguments.delay_ms),
        request_log: arguments.request_log,
    };
    let running = forge::start_with(&seed, &arguments.data, options).await?;
    let line = serde_json::json!({"url": running.url, "gitlab": running.gitlab, "github": running.github}).to_string();
    if let Some(path) = &arguments.ready_file {
        write_whole(path, &line).with_context(|| format!("write {}", path.display()))?;
    }
    writeln!(std::io::stdout(), "{line}").context("print the addresses")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tokio::time::sleep(Duration::from_secs(arguments.max_lifetime)) => {}
        () = gone(arguments.parent_pid) => {}
    }
    running.stop().await;
    Ok(())
}

/// Writes beside the file and renames: whoever sees the file sees all of it.
fn write_whole(path: &Path, line: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, format!("{line}\n"))?;
    std::fs::rename(&beside, path)
}

/// Returns when the process is gone; never, if none is named.
async fn gone(process: Option<u32>) {
    let Some(process) = process else {
        return std::future::pending().await;
    };
    let entry = PathBuf::from(format!("/proc/{process}"));
    while entry.exists() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
