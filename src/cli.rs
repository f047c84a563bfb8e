//! The command line: the composition root. Only here are rooms put together, signals handled and things printed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod check;
mod compose;
mod config_show;
mod connection;
mod control;
mod doctor;
mod exec;
mod exposed;
mod hardening;
mod log;
mod notify;
mod operate;
#[cfg(feature = "otel")]
mod otel;
mod paper;
mod run;
mod schema;
mod seal;
mod set_up;
mod show;
mod state;
mod submit;
mod timings;
mod watch;

use crate::message::{ConnectionName, SessionId};

/// How a command ended. The numbers are part of the contract; those from 64 on are the system's own (sysexits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for a session: result `success`.
    Success = 0,
    /// A session ended with result `failure`.
    Failure = 1,
    /// A session ended with result `error`.
    Error = 3,
    /// A session ended with result `timeout`.
    Timeout = 4,
    /// A session ended with result `cancellation`.
    Cancelled = 5,
    /// The task is not valid, or was rejected.
    BadTask = 65,
    /// Something that is needed cannot be reached: broker, engine.
    Unavailable = 69,
    /// A failure of the program itself.
    Software = 70,
    /// The configuration cannot be used.
    BadConfig = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs coding agents in sealed containers over GitLab and GitHub projects.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version = paper::VERSION, about, max_term_width = 120, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration file.
    #[arg(long, short, global = true, env = "COFFERDAM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 the session failed, 2 wrong usage, 3 the session ended by an error of ours or of a \
service, 4 a time limit ended it, 5 it was cancelled, 65 the task is not valid, 69 broker or engine cannot be reached, 70 internal, 78 bad \
configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Take tasks from the broker until told to stop.
    Run {
        #[command(flatten)]
        modes: run::RunModes,
    },
    /// Let the worker that runs with this configuration take no more tasks, and end when its sessions have.
    Drain {
        /// Stay until it has ended.
        #[arg(long)]
        wait: bool,
        /// Do not wait for its sessions: they end now and keep their work.
        #[arg(long)]
        hurry: bool,
    },
    /// Show what the worker that runs with this configuration does now.
    Sessions {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what the worker that runs with this configuration said of a session that runs or ran there: its log lines and its events.
    Logs {
        /// The session.
        session: SessionId,
    },
    /// Have the worker that runs with this configuration remove what nobody owns, and what has had its time.
    Gc {
        /// Only list it.
        #[arg(long)]
        dry_run: bool,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run one task here and now, without a broker.
    Exec {
        /// The task; `-` reads standard input.
        task: PathBuf,
        /// Print one event per line as JSON.
        #[arg(long)]
        json: bool,
        /// At the end, print on standard error where the milliseconds went.
        #[arg(long)]
        timings: bool,
    },
    /// Send a task to the broker.
    Submit {
        /// The task; `-` reads standard input.
        task: PathBuf,
        /// Stay and show the session's progress until it ends.
        #[arg(long)]
        follow: bool,
        /// With --follow: print one event per line as JSON.
        #[arg(long, requires = "follow")]
        json: bool,
    },
    /// Send another prompt to a session.
    Prompt {
        /// The session.
        session: SessionId,
        /// The prompt; `-`, or nothing, reads standard input.
        text: Option<String>,
        /// Stop the turn that runs, instead of waiting for its end.
        #[arg(long)]
        steer: bool,
        #[command(flatten)]
        patience: control::Patience,
    },
    /// Add a project to a session.
    AddProject {
        /// The session.
        session: SessionId,
        /// The project's path on its forge.
        path: String,
        /// Which of the session's connections, or the name of the new one.
        #[arg(long, value_name = "NAME")]
        connection: ConnectionName,
        /// A connection that the session does not have: a JSON file with what a task has under its name.
        #[arg(long, value_name = "FILE")]
        new_connection: Option<PathBuf>,
        /// The branch to start from; the project's default branch when absent.
        #[arg(long, value_name = "BRANCH")]
        base: Option<String>,
        #[command(flatten)]
        patience: control::Patience,
    },
    /// Stop a session's turn.
    Cancel {
        /// The session.
        session: SessionId,
        #[command(flatten)]
        patience: control::Patience,
    },
    /// Answer what a session waits for: a question of its agent, or whether the held work of a project is published.
    Answer {
        /// The session.
        session: SessionId,
        #[command(flatten)]
        answer: control::Reply,
        #[command(flatten)]
        patience: control::Patience,
    },
    /// End a session; what was committed is published.
    End {
        /// The session.
        session: SessionId,
        /// Publish nothing.
        #[arg(long)]
        discard: bool,
        #[command(flatten)]
        patience: control::Patience,
    },
    /// Show a session's progress from now on, until it ends or rests.
    Watch {
        /// The session.
        session: SessionId,
        /// Print one event per line as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a message or of the configuration, or the broker's side of it all as AsyncAPI.
    Schema {
        /// Which one.
        what: schema::What,
        /// Print instead what changed since the one in this file, and fail where that breaks whoever was built for it.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look for what is wrong with this machine, and say what to do about it.
    Doctor {
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
        /// Also check the forges and tokens of this task.
        #[arg(long, value_name = "TASK")]
        task: Option<PathBuf>,
    },
    /// Make a key, so that credentials can be sealed to this worker.
    Keygen {
        /// Write the secret key to this new file, readable by its owner alone, and print the public one; otherwise both are printed.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Encrypt a token to workers, for a task's {"sealed": ...}.
    Seal(seal::Seal),
    /// Look at connections: users' tokens on their forges.
    Connection {
        #[command(subcommand)]
        command: ConnectionCommand,
    },
    /// List the projects that a connection's token sees.
    Projects {
        /// Which connection, of the configuration's or the task's.
        #[arg(long, value_name = "NAME")]
        connection: ConnectionName,
        /// Only those with this in name or path.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Take connections from this task too.
        #[arg(long, value_name = "TASK")]
        task: Option<PathBuf>,
        /// Print one project per line as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what completes this program's commands in a shell.
    Completions {
        /// Which shell.
        shell: paper::Shell,
    },
    /// Print the manual page.
    Man {
        /// Write the pages of all commands into this directory instead.
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConnectionCommand {
    /// Ask the forges whose the tokens are, what they may do, and until when.
    Check {
        /// Which ones, of the configuration's or the task's; all when none is named.
        names: Vec<ConnectionName>,
        /// Take connections from this task too.
        #[arg(long, value_name = "TASK")]
        task: Option<PathBuf>,
        /// Print one connection per line as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration and say what is wrong with it.
    Check,
    /// Show every key as it counts, with where it comes from; credentials are masked.
    Show {
        /// Print one key per line as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    hardening::keep_memory_private();
    let arguments: Vec<_> = std::env::args_os().collect();
    // Before anything else is set up: these processes limit themselves, and read what an agent made.
    if let Some((_, [first, rest @ ..])) = arguments.split_first()
        && first == "internal"
    {
        return crate::repository::internal::run(rest.iter().map(|word| word.to_string_lossy().into_owned()));
    }
    raise_open_files();
    let cli = Cli::parse_from(arguments);
    // One TLS provider for every client. A second installation is an error that means "done already".
    let _ = rustls::crypto::ring::default_provider().install_default();
    // What is read and removed on disk needs threads for milliseconds; each that waits for more keeps 40 KB.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            show::complain(&format!("the runtime could not be started: {error}"));
            return Exit::Software.into();
        }
    };
    let exit = runtime.block_on(dispatch(cli));
    // Blocking reads of a terminal must not hold the process up.
    runtime.shutdown_background();
    exit.into()
}

/// A sandbox may hold some hundred connections; the usual soft limit of 1024 files would be all sessions' together.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, fewer connections fit, and accepting says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

async fn dispatch(cli: Cli) -> Exit {
    let config = match &cli.command {
        Command::Schema { what, against } => return schema::print(*what, against.as_deref()),
        Command::Completions { shell } => return paper::completions(*shell, Cli::command()),
        Command::Man { directory } => return paper::man(directory.as_deref(), Cli::command()),
        Command::Config {
            command: ConfigCommand::Show { json },
        } => return config_show::show(cli.config.as_deref(), *json),
        Command::Keygen { output } => return seal::keygen(output.as_deref()),
        Command::Seal(asked) => return seal::seal(asked),
        Command::Run { .. }
        | Command::Drain { .. }
        | Command::Sessions { .. }
        | Command::Logs { .. }
        | Command::Gc { .. }
        | Command::Exec { .. }
        | Command::Submit { .. }
        | Command::Prompt { .. }
        | Command::AddProject { .. }
        | Command::Cancel { .. }
        | Command::Answer { .. }
        | Command::End { .. }
        | Command::Watch { .. }
        | Command::Config { .. }
        | Command::Connection { .. }
        | Command::Projects { .. }
        | Command::Doctor { .. } => match crate::config::Config::load(cli.config.as_deref(), compose::environment()) {
            Ok(config) => config,
            Err(error) => {
                show::complain(&error.to_string());
                return Exit::BadConfig;
            }
        },
    };
    match cli.command {
        Command::Run { modes } => run::run(config, modes).await,
        Command::Drain { wait, hurry } => operate::drain(&config, wait, hurry).await,
        Command::Sessions { json } => operate::sessions(&config, json).await,
        Command::Logs { session } => operate::logs(&config, session).await,
        Command::Gc { dry_run, json } => operate::gc(&config, dry_run, json).await,
        Command::Exec { task, json, timings } => exec::exec(config, &task, json, timings).await,
        Command::Submit { task, follow, json } => submit::submit(&config, &task, follow, json).await,
        Command::Prompt {
            session,
            text,
            steer,
            patience,
        } => control::prompt(&config, session, text.as_deref(), steer, patience).await,
        Command::AddProject {
            session,
            path,
            connection,
            new_connection,
            base,
            patience,
        } => {
            let project = control::Project {
                connection: &connection,
                new_connection: new_connection.as_deref(),
                path: &path,
                base: base.as_deref(),
            };
            control::add_project(&config, session, project, patience).await
        }
        Command::Cancel { session, patience } => control::cancel(&config, session, patience).await,
        Command::Answer {
            session,
            answer,
            patience,
        } => control::reply(&config, session, &answer, patience).await,
        Command::End {
            session,
            discard,
            patience,
        } => control::end(&config, session, discard, patience).await,
        Command::Watch { session, json } => watch::watch(&config, session, json).await,
        Command::Config {
            command: ConfigCommand::Check,
        } => check::check(&config),
        Command::Connection {
            command: ConnectionCommand::Check { names, task, json },
        } => connection::check_all(&config, &names, task.as_deref(), json).await,
        Command::Projects {
            connection,
            search,
            limit,
            task,
            json,
        } => {
            let wanted = connection::Wanted {
                connection: &connection,
                search: search.as_deref(),
                limit,
                json,
            };
            connection::projects(&config, wanted, task.as_deref()).await
        }
        Command::Doctor { json, task } => doctor::doctor(config, json, task.as_deref()).await,
        Command::Config {
            command: ConfigCommand::Show { .. },
        }
        | Command::Schema { .. }
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Keygen { .. }
        | Command::Seal(_) => Exit::Success,
    }
}
