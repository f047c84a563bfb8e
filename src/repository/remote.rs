//! The forge as git sees it: with what it is entered, and what its refusals mean.
//!
//! Pure. Never reads the forge's own words (`remote:` lines) to classify a failure: those are anybody's text.

use std::path::PathBuf;

use url::Url;

use super::RepositoryError;
use crate::secret::{Mask, Secret};

/// With what a forge is entered over git.
#[derive(Debug, Clone)]
pub struct Access {
    /// The user's token.
    pub token: Secret,
    /// The name that goes with a token in Basic authorisation: a custom of each kind of forge, not a person.
    pub basic_user: String,
    /// The account that the token belongs to; keys the mirror where mirrors are not shared between users.
    pub account: String,
    /// A file of certificates to trust besides, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Access {
    /// Hides the token in all forms that git or a forge may echo.
    pub(crate) fn mask(&self) -> Mask {
        Mask::new([
            &self.token,
            &Secret::new(&format!("{}:{}", self.basic_user, self.token.expose())),
        ])
    }
}

/// The clone address, if it is one that can be used without surprise.
pub(crate) fn address(text: &str) -> Result<Url, RepositoryError> {
    let refused = |shown: &str| RepositoryError::Address {
        address: shown.chars().take(200).collect(),
    };
    // An address that does not parse may hold a password at any place: none of it is shown.
    let url = Url::parse(text).map_err(|_| refused("(unreadable)"))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain {
        Ok(url)
    } else {
        Err(refused(&format!(
            "{}://{}/...",
            url.scheme(),
            url.host_str().unwrap_or("?")
        )))
    }
}

/// What a failed talk with the forge means, from git's own words.
pub(crate) fn failure(stderr: &str) -> Option<RepositoryError> {
    let own: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("remote:")).collect();
    let says = |word: &str| own.iter().any(|line| line.contains(word));
    let text = shortened(stderr);
    if says("Authentication failed")
        || says("could not read Username")
        || says("could not read Password")
        || says("returned error: 401")
    {
        return Some(RepositoryError::Authentication { text });
    }
    if says("returned error: 403") {
        return Some(RepositoryError::Forbidden { text });
    }
    if says("returned error: 404")
        || own
            .iter()
            .any(|line| line.contains("repository '") && line.ends_with("not found"))
    {
        return Some(RepositoryError::NotFound { text });
    }
    if says("returned error: 30") {
        return Some(RepositoryError::Moved { text });
    }
    let passing = [
        "returned error: 5",
        "returned error: 429",
        "Could not resolve host",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Operation timed out",
        "Operation too slow",
        "Empty reply from server",
        "early EOF",
        "hung up unexpectedly",
        "unexpected disconnect",
        "expected flush after ref listing",
        "transfer closed",
        "RPC failed",
        "Recv failure",
        "Send failure",
    ];
    if passing.iter().any(|word| says(word)) {
        return Some(RepositoryError::Unavailable { text });
    }
    if says("certificate") || says("CAfile") {
        return Some(RepositoryError::Certificate { text });
    }
    None
}

/// The forge's own words in git's error stream, without the mark, at most 200 lines.
pub(crate) fn remote_lines(stderr: &str) -> Vec<String> {
    stderr
        .lines()
        .filter_map(|line| line.strip_prefix("remote:"))
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .take(200)
        .collect()
}

/// The end of what was said, on one line, for an error's text.
pub(crate) fn shortened(stderr: &str) -> String {
    const LONGEST: usize = 1_000;
    let line = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" / ");
    let count = line.chars().count();
    if count == 0 {
        "git said nothing".to_owned()
    } else if count > LONGEST {
        format!("... {}", line.chars().skip(count - LONGEST).collect::<String>())
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(stderr: &str) -> String {
        failure(stderr).map_or_else(
            || "none".to_owned(),
            |error| {
                format!("{error:?}")
                    .split([' ', '{'])
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            },
        )
    }

    #[test]
    fn git_s_own_words_are_understood() {
        for (text, want) in [
            ("fatal: Authentication failed for 'http://h/p.git/'", "Authentication"),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                "Authentication",
            ),
            (
                "fatal: unable to access 'http://h/p.git/': The requested URL returned error: 403",
                "Forbidden",
            ),
            ("fatal: repository 'http://h/p.git/' not found", "NotFound"),
            (
                "fatal: unable to access 'http://h/p.git/': The requested URL returned error: 301",
                "Moved",
            ),
            (
                "fatal: unable to access 'http://h/p.git/': The requested URL returned error: 503",
                "Unavailable",
            ),
            (
                "fatal: unable to access 'http://h/': Failed to connect to h port 1 after 0 ms: Couldn't connect to server",
                "Unavailable",
            ),
            (
                "fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none CRLfile: none",
                "Certificate",
            ),
            ("error: something new", "none"),
        ] {
            assert_eq!(kind(text), want, "{text}");
        }
    }

    #[test]
    fn the_forge_s_own_words_do_not_decide() {
        assert_eq!(
            kind("remote: Authentication failed, returned error: 503\nerror: failed to push"),
            "none"
        );
        assert_eq!(
            remote_lines("remote: one\nerror: x\nremote:\nremote:  two \n"),
            ["one", "two"]
        );
    }

    #[test]
    fn addresses_carry_no_credential() {
        assert!(address("https://forge.example/a/b.git").is_ok());
        for bad in [
            "https://user:password1@forge.example/a/b.git",
            "https://user@forge.example/a/b.git",
            "ssh://forge.example/a/b.git",
            "file:///etc",
            "ext::sh -c id",
            "--upload-pack=id",
            "https://forge.example/a?token=password1",
            "/srv/a.git",
        ] {
            let error = address(bad).unwrap_err().to_string();
            assert!(!error.contains("password1"), "{error}");
        }
    }
}
