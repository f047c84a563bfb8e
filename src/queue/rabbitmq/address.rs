//! The configuration, checked: the broker's address without its secrets for people, with them for the client, names, and time limits.
//!
//! Never shows user or password, not even those of an address that cannot be parsed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;
use url::Url;

use super::super::QueueError;
use super::Config;
use super::timing::Timing;
use super::topology::Names;

/// What the other files work with.
pub(super) struct Settings {
    pub(super) uri: AMQPUri,
    pub(super) address: String,
    pub(super) names: Names,
    pub(super) heartbeat: Duration,
    pub(super) connect_timeout: Duration,
    /// For one confirm, declaration or acknowledgement.
    pub(super) call_timeout: Duration,
    pub(super) delivery_limit: u16,
    /// How long a ticket rests before it is looked at, in milliseconds.
    pub(super) ticket_ms: i64,
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn timing(&self) -> Timing {
        Timing {
            heartbeat: self.heartbeat,
            ticket: Duration::from_millis(self.ticket_ms.unsigned_abs()),
        }
    }
}

/// Lanes that would be other objects of ours.
const TAKEN: [&str; 6] = ["dead", "events", "follow", "session", "ticket-checks", "tickets"];

/// Longest frame, in bytes, where the broker's address asks for no other. The client holds 64 frames of this size for each connection from the
/// beginning: with the 128 KiB that brokers offer that would be 8 MB. New brokers allow nothing below this. What is longer travels in several frames.
const FRAME: u32 = 8 * 1024;

/// Longest prefix or lane: names on the broker have at most 255 bytes.
const LONGEST_NAME: usize = 60;

impl Settings {
    pub(super) fn resolve(config: &Config) -> Result<Self, QueueError> {
        let refuse = |why: String| Err(QueueError::Configure(why));
        let url = address(config)?;
        let Ok(parsed) = Url::parse(&url) else {
            return refuse("the broker's address is not a URL".into());
        };
        let Ok(mut uri) = url.parse::<AMQPUri>() else {
            return refuse("the broker's address is not amqp:// or amqps://".into());
        };
        // The client's own parser takes only names for hosts and would go to "localhost" for [::1].
        match parsed.host_str() {
            Some(host) if !host.is_empty() => host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .clone_into(&mut uri.authority.host),
            Some(_) | None => return refuse("the broker's address has no host".into()),
        }
        if !is_name(&config.prefix) {
            return refuse(format!(
                "the prefix must be 1 to {LONGEST_NAME} of a-z, 0-9, '-', '_' and '.'"
            ));
        }
        let distinct: BTreeSet<&String> = config.lanes.iter().collect();
        if config.lanes.is_empty() || distinct.len() != config.lanes.len() {
            return refuse("there must be at least one lane, and each only once".into());
        }
        for lane in &config.lanes {
            if !is_name(lane)
                || TAKEN
                    .iter()
                    .any(|taken| lane == taken || lane.starts_with(&format!("{taken}.")))
            {
                return refuse(format!(
                    "the lane {:?} must be 1 to {LONGEST_NAME} of a-z, 0-9, '-', '_' and '.', and not {}",
                    lane.chars().take(LONGEST_NAME).collect::<String>(),
                    TAKEN.join(", ")
                ));
            }
        }
        if config.ticket_s == 0
            || config.heartbeat_s == 0
            || config.connect_timeout_s == 0
            || config.confirm_timeout_s == 0
        {
            return refuse("heartbeat, tickets and time limits must be at least one second".into());
        }
        let connect_timeout = Duration::from_secs(config.connect_timeout_s);
        uri.query.frame_max = uri.query.frame_max.or(Some(FRAME));
        uri.query.heartbeat = Some(config.heartbeat_s);
        uri.query.connection_timeout = Some(config.connect_timeout_s.saturating_mul(1000));
        Ok(Self {
            uri,
            address: without_credentials(&url),
            names: Names::new(&config.prefix, &config.lanes),
            heartbeat: Duration::from_secs(config.heartbeat_s.into()),
            connect_timeout,
            call_timeout: Duration::from_secs(config.confirm_timeout_s),
            delivery_limit: config.delivery_limit,
            ticket_ms: i64::from(config.ticket_s) * 1000,
        })
    }
}

/// The address, from the first place that is configured.
fn address(config: &Config) -> Result<String, QueueError> {
    let text = if let Some(path) = &config.url_file {
        std::fs::read_to_string(path)
            .map_err(|error| QueueError::Configure(format!("the file {} cannot be read: {error}", path.display())))?
    } else if let Some(name) = &config.url_env {
        std::env::var(name)
            .map_err(|_| QueueError::Configure(format!("the environment variable {name} does not hold an address")))?
    } else {
        config.url.clone()
    };
    Ok(text.trim().to_owned())
}

/// What may be shown of an address.
pub(super) fn without_credentials(url: &str) -> String {
    let parsed = match Url::parse(url) {
        Ok(parsed) if parsed.has_host() => parsed,
        Ok(_) | Err(_) => return "(not a URL)".into(),
    };
    let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "{}://{}{port}{}",
        parsed.scheme(),
        parsed.host_str().unwrap_or_default(),
        parsed.path()
    )
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_NAME
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Config {
        Config {
            url: url.into(),
            ..Config::default()
        }
    }

    #[test]
    fn shows_no_password_anywhere() {
        let config = with_url("amqp://worker:very-secret@broker.internal:5673/team");
        let settings = Settings::resolve(&config).unwrap();
        assert_eq!(settings.address, "amqp://broker.internal:5673/team");
        assert_eq!(settings.uri.authority.userinfo.password, "very-secret");
        for shown in [format!("{config:?}"), format!("{settings:?}")] {
            assert!(!shown.contains("secret") && !shown.contains("worker:"), "{shown}");
        }
        for bad in [
            "http://u:very-secret@h/",
            "very-secret",
            "amqp:very-secret",
            "amqp://u:very-secret@",
        ] {
            let error = Settings::resolve(&with_url(bad)).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_ipv6_host_stays_what_it_is() {
        let settings = Settings::resolve(&with_url("amqp://[::1]:5672/%2f")).unwrap();
        assert_eq!(settings.uri.authority.host, "::1");
        assert_eq!(settings.uri.vhost, "/");
    }

    #[test]
    fn the_address_may_come_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "amqp://a:b@from-file:1/x\n").unwrap();
        let config = Config {
            url_file: Some(file.path().to_owned()),
            ..Config::default()
        };
        assert_eq!(Settings::resolve(&config).unwrap().address, "amqp://from-file:1/x");
        drop(file);
        assert!(Settings::resolve(&config).is_err());
        let config = Config {
            url_env: Some("COFFERDAM_SURELY_NOT_SET".into()),
            ..Config::default()
        };
        assert!(
            Settings::resolve(&config)
                .unwrap_err()
                .to_string()
                .contains("COFFERDAM_SURELY_NOT_SET")
        );
    }

    #[test]
    fn lanes_and_prefix_cannot_collide_with_our_own_names() {
        for lanes in [
            vec![],
            vec!["a", "a"],
            vec!["dead"],
            vec!["session.x"],
            vec!["A"],
            vec!["a b"],
        ] {
            let config = Config {
                lanes: lanes.iter().map(ToString::to_string).collect(),
                ..Config::default()
            };
            assert!(Settings::resolve(&config).is_err(), "{lanes:?}");
        }
        let config = Config {
            prefix: String::new(),
            ..Config::default()
        };
        assert!(Settings::resolve(&config).is_err());
    }
}
