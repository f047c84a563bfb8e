//! `inside`: PID 1 of a sandbox, and what the agent's git runs as hooks. One static binary that goes by several names.
//!
//! It holds no credential, reaches nothing but the gateway's socket, and is no boundary against the agent, which runs
//! under the same user: the container is.

mod git;
mod hook;
mod init;
mod install;
mod launch;
mod rewrite;
mod settle;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
inside [--socket PATH] [--gone-after SECONDS]   serve the worker, as PID 1 of a sandbox
inside --worker ADDRESS:PORT --papers DIR [--largest-file BYTES] [--gone-after SECONDS]
                                                the same, where the worker is on another machine: joined with what is in DIR
inside install DIR                              put this program and its git hooks into a directory
inside trailers [--repo DIR] [--keep-authors]   add the session's trailers to the commits not yet on the forge
inside settle DIR ORIGIN BRANCH                 give a fresh clone the address of its origin, begin a branch, and have git trust its files' times
inside --version

Under the names prepare-commit-msg, commit-msg and applypatch-msg it is the git hook of that name.
";

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Serve(init::Options),
    Install(PathBuf),
    Trailers(rewrite::Options),
    Settle(settle::Options),
    Version,
    Help,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    if name == launch::NAME {
        return launch::run(&arguments);
    }
    if hook::NAMES.iter().any(|hook| name == *hook) {
        return tell("hook", hook::run(&arguments));
    }
    match parse(&arguments) {
        Ok(Request::Serve(options)) => match init::run(&options) {
            Ok(ending) => ExitCode::from(ending.exit_code()),
            Err(error) => tell("inside", Err(error)),
        },
        Ok(Request::Install(directory)) => tell("inside install", install::run(&directory)),
        Ok(Request::Trailers(options)) => match rewrite::run(&options) {
            Ok(done) => tell("inside trailers", say(std::io::stdout(), &done.to_string())),
            Err(error) => tell("inside trailers", Err(error)),
        },
        Ok(Request::Settle(options)) => tell("inside settle", settle::run(&options)),
        Ok(Request::Version) => tell(
            "inside",
            say(
                std::io::stdout(),
                concat!("inside ", env!("CARGO_PKG_VERSION"), " (wire 1)"),
            ),
        ),
        Ok(Request::Help) => tell("inside", say(std::io::stdout(), USAGE)),
        Err(wrong) => {
            let _ = say(std::io::stderr(), &format!("inside: {wrong}\n\n{USAGE}"));
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Request, String> {
    if let [command, work_tree, origin, branch] = arguments
        && command == "settle"
    {
        let text = |word: &OsString| word.to_str().map(str::to_owned).ok_or("that is no text");
        return Ok(Request::Settle(settle::Options {
            work_tree: work_tree.into(),
            origin: text(origin)?,
            branch: text(branch)?,
        }));
    }
    if let [command, directory] = arguments
        && command == "install"
    {
        return Ok(Request::Install(PathBuf::from(directory)));
    }
    let mut rest = arguments.iter();
    let trailers = arguments.first().is_some_and(|first| first == "trailers");
    if trailers {
        rest.next();
    }
    let mut options = rewrite::Options::default();
    let mut socket = PathBuf::from(cofferdam_inside::DEFAULT_SOCKET);
    let mut gone_after = Duration::from_secs(600);
    let (mut address, mut papers, mut largest_file) = (None, None, None);
    while let Some(argument) = rest.next() {
        let mut value = || {
            rest.next()
                .ok_or_else(|| format!("{} needs a value", argument.display()))
        };
        match (trailers, argument.to_str()) {
            (true, Some("--repo")) => options.repository = Some(PathBuf::from(value()?)),
            (true, Some("--keep-authors")) => options.keep_authors = true,
            (false, Some("--socket")) => socket = PathBuf::from(value()?),
            (false, Some("--worker")) => address = Some(self::address(value()?)?),
            (false, Some("--papers")) => papers = Some(PathBuf::from(value()?)),
            (false, Some("--largest-file")) => largest_file = Some(bytes(value()?)?),
            (false, Some("--gone-after")) => gone_after = seconds(value()?)?,
            (_, Some("--version")) => return Ok(Request::Version),
            (_, Some("--help")) => return Ok(Request::Help),
            (true | false, Some(_) | None) => return Err(format!("{} is not known", argument.display())),
        }
    }
    if trailers {
        return Ok(Request::Trailers(options));
    }
    let worker = match (address, papers) {
        (None, None) => None,
        (Some(address), Some(papers)) => Some(init::Worker {
            address,
            papers,
            largest_file,
        }),
        (Some(_), None) | (None, Some(_)) => return Err("--worker and --papers go together".to_owned()),
    };
    Ok(Request::Serve(init::Options {
        socket,
        worker,
        gone_after,
    }))
}

/// No name: nothing here resolves one.
fn address(value: &OsStr) -> Result<SocketAddr, String> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{} is not an address with a port", value.display()))
}

fn bytes(value: &OsStr) -> Result<u64, String> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{} is not a number of bytes", value.display()))
}

fn seconds(value: &OsStr) -> Result<Duration, String> {
    let number = value
        .to_str()
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|number| *number > 0);
    let number = number.ok_or_else(|| format!("{} is not a number of seconds", value.display()))?;
    Ok(Duration::from_secs(u64::from(number)))
}

fn say(mut to: impl Write, text: &str) -> Result<(), std::io::Error> {
    writeln!(to, "{}", text.trim_end())
}

/// Turns a result into an exit code, and an error with all its causes into one line.
fn tell<E: std::error::Error>(what: &str, result: Result<(), E>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let mut line = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        line.push_str(": ");
        line.push_str(&inner.to_string());
        cause = inner.source();
    }
    let _ = say(std::io::stderr(), &line);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Request, String> {
        parse(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn serves_with_defaults_and_refuses_what_it_does_not_know() {
        let mut options = init::Options {
            socket: PathBuf::from("/run/cofferdam/gateway.sock"),
            worker: None,
            gone_after: Duration::from_secs(600),
        };
        assert_eq!(parsed(&[]), Ok(Request::Serve(options.clone())));
        options.worker = Some(init::Worker {
            address: "10.0.0.7:8480".parse().unwrap(),
            papers: "/p".into(),
            largest_file: Some(9),
        });
        let given = parsed(&["--worker", "10.0.0.7:8480", "--papers", "/p", "--largest-file", "9"]);
        assert_eq!(given, Ok(Request::Serve(options)));
        assert_eq!(parsed(&["install", "/x"]), Ok(Request::Install("/x".into())));
        for wrong in [
            &["--repo", "x"][..],
            &["--socket"],
            &["--gone-after", "0"],
            &["trailers", "--socket", "x"],
            &["sh"],
            &["settle", "x"],
            &["--worker", "10.0.0.7:8480"],
            &["--worker", "worker:8480", "--papers", "/p"],
            &["--papers", "/p"],
            &["--worker", "10.0.0.7:8480", "--papers", "/p", "--largest-file", "-1"],
            &["install"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        let options = rewrite::Options {
            repository: Some("r".into()),
            keep_authors: true,
        };
        assert_eq!(
            parsed(&["trailers", "--keep-authors", "--repo", "r"]),
            Ok(Request::Trailers(options))
        );
    }
}
