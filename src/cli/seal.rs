//! `cofferdam keygen` and `cofferdam seal`: a worker's key, and tokens that only a worker with that key can read.
//!
//! A token is never taken from the command line, where every process of the machine could read it. No file is ever overwritten.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Exit, show};
use crate::forge;
use crate::message::ForgeKind;
use crate::secret::Secret;
use crate::secret::seal::{Bounds, Identity, Recipient, seal as seal_text};

/// Longest token that is read, in bytes.
const LONGEST_TOKEN: u64 = 8 * 1024;

/// What `seal` is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Seal {
    /// A worker's public key, `age1...`; may be given several times: each of those workers can then open it.
    #[arg(long, required = true, value_name = "RECIPIENT")]
    to: Vec<String>,
    /// The forge that the token may be shown to, as the connection's `url` has it (https://gitlab.com, https://github.com for the public ones).
    #[arg(long, required_unless_present = "any_url", value_name = "URL")]
    url: Option<String>,
    /// Do not name a forge. Whoever can put messages into the queue could then have the token shown to a forge of his choice.
    #[arg(long, conflicts_with = "url")]
    any_url: bool,
    /// The one session that the token is for.
    #[arg(long, value_name = "UUID")]
    session: Option<uuid::Uuid>,
    /// Until when the sealed token is good, as 2026-12-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<jiff::Timestamp>,
    /// Print base64 in one line instead of ASCII armor.
    #[arg(long)]
    one_line: bool,
    /// The file with the token; standard input when absent or `-`.
    token: Option<PathBuf>,
}

/// Seals a token from a file or from standard input.
pub(super) fn seal(asked: &Seal) -> Exit {
    let sealed = recipients(&asked.to).and_then(|recipients| {
        openable(asked, jiff::Timestamp::now())?;
        let token = token(asked.token.as_deref())?;
        let bounds = Bounds {
            url: asked.url.clone(),
            session: asked.session,
            not_after: asked.expires,
        };
        seal_text(&token, &bounds, &recipients).map_err(|error| error.to_string())
    });
    match sealed {
        Ok(sealed) if asked.one_line => {
            let packed: String = sealed.lines().filter(|line| !line.starts_with("-----")).collect();
            show::line(&packed);
            Exit::Success
        }
        Ok(sealed) => {
            show::line(sealed.trim_end());
            Exit::Success
        }
        Err(message) => {
            show::complain(&message);
            Exit::BadTask
        }
    }
}

/// Refuses what no worker would ever open.
fn openable(asked: &Seal, now: jiff::Timestamp) -> Result<(), String> {
    let is_address = |url: &String| {
        let kinds = [ForgeKind::Gitlab, ForgeKind::Github];
        kinds.iter().any(|kind| forge::instance(*kind, Some(url)).is_some())
    };
    if !asked.url.as_ref().is_none_or(is_address) {
        return Err(
            "--url is no address of a forge: write it as the connection's url, such as https://gitlab.example.org"
                .to_owned(),
        );
    }
    match asked.expires {
        Some(end) if end <= now => Err(format!("--expires {end} is past: no worker would open it")),
        Some(_) | None => Ok(()),
    }
}

fn recipients(texts: &[String]) -> Result<Vec<Recipient>, String> {
    let parsed = texts.iter().map(|text| text.parse::<Recipient>());
    // The text is not repeated: a secret key in its place must not be.
    parsed.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn token(path: Option<&Path>) -> Result<Secret, String> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_TOKEN as usize + 1));
    let read = match path {
        Some(path) if path != Path::new("-") => {
            std::fs::File::open(path).and_then(|file| file.take(LONGEST_TOKEN + 1).read_to_string(&mut text))
        }
        Some(_) | None => std::io::stdin()
            .lock()
            .take(LONGEST_TOKEN + 1)
            .read_to_string(&mut text),
    };
    read.map_err(|error| format!("the token cannot be read: {error}"))?;
    let token = Secret::new(&text);
    if token.is_empty() || text.len() as u64 > LONGEST_TOKEN || token.expose().contains(char::is_whitespace) {
        return Err("a token is one word of at most 8 KiB: give it on standard input or in a file".to_owned());
    }
    Ok(token)
}

/// Makes a key; the secret part goes into the file or to standard output, the public one is told.
pub(super) fn keygen(output: Option<&Path>) -> Exit {
    let identity = Identity::generate();
    let secret = identity.text();
    let text = Zeroizing::new(format!(
        "# created: {}\n# public key: {}\n{}\n",
        jiff::Timestamp::now(),
        identity.recipient(),
        secret.expose()
    ));
    let Some(path) = output else {
        show::line(text.trim_end());
        return Exit::Success;
    };
    let written = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => {
            show::line(&identity.recipient());
            Exit::Success
        }
        Err(error) => {
            let why = if path.is_dir() {
                "it is a directory: name a new file in it".to_owned()
            } else if error.kind() == std::io::ErrorKind::AlreadyExists {
                "there is such a file already, and no key is ever overwritten: name a new one".to_owned()
            } else {
                error.to_string()
            };
            show::complain(&format!("{} cannot be made: {why}", path.display()));
            Exit::Software
        }
    }
}
