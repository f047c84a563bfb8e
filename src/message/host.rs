//! Names of hosts as they may stand in a task, a configuration or a proxy's request: one strict parser for all three. Pure.
//!
//! Only ASCII letters, digits and hyphens between dots. Never an address in any notation, an escape, a NUL, a user, an underscore: what two
//! programs could read as two hosts is refused, not repaired.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
const LONGEST: usize = 253;
/// Longest part between dots, in bytes.
const LONGEST_LABEL: usize = 63;

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// An address, in whichever notation.
    #[error("an address is not accepted in any notation: give a name")]
    Address,
    /// Anything else.
    #[error(
        "a host name is 1 to 253 bytes of letters, digits and hyphens between single dots, each part at most 63 bytes"
    )]
    Form,
    /// No number from 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

/// A host name: lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.contains([':', '[', ']']) {
            return Err(NotAHost::Address);
        }
        if text.is_empty() || text.len() > LONGEST || !text.split('.').all(is_label) {
            return Err(NotAHost::Form);
        }
        let name = text.to_ascii_lowercase();
        // Resolvers read what ends in a number as an IPv4 address: decimal, octal, hexadecimal, with one to four parts.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_hexadecimal = last
            .strip_prefix("0x")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAHost::Address);
        }
        Ok(Self(name))
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LONGEST_LABEL
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A port as text: digits only, no sign, no leading zero.
///
/// # Errors
/// It is none.
pub fn port(text: &str) -> Result<u16, NotAHost> {
    let plain =
        !text.is_empty() && text.len() <= 5 && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().ok_or(NotAHost::Port)
}

/// `host` or `host:port` of a request, with the port where it has one.
///
/// # Errors
/// Whatever is no name and no port.
pub fn authority(text: &str) -> Result<(HostName, Option<u16>), NotAHost> {
    match text.split_once(':') {
        // More colons are an IPv6 address, or a user with a password.
        Some((_, rest)) if rest.contains(':') => Err(NotAHost::Address),
        Some((host, digits)) => Ok((host.parse()?, Some(port(digits)?))),
        None => Ok((text.parse()?, None)),
    }
}

/// One host, or all below a name: `pkgs.example`, `.example`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum HostPattern {
    /// This host only.
    Exact(HostName),
    /// Every host below this name, not the name itself.
    Below(HostName),
}

impl HostPattern {
    /// Whether a host is meant.
    #[must_use]
    pub fn matches(&self, host: &HostName) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(name) => is_below(host.as_str(), name.as_str()),
        }
    }

    /// Whether every host that the other means is meant here too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name),
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(wide), Self::Below(narrow)) => wide == narrow || is_below(narrow.as_str(), wide.as_str()),
        }
    }
}

/// On the border of a label: `evilexample` is not below `example`.
fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl FromStr for HostPattern {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        match text.strip_prefix('.') {
            Some(name) => Ok(Self::Below(name.parse()?)),
            None => Ok(Self::Exact(text.parse()?)),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = NotAHost;

    fn try_from(text: String) -> Result<Self, NotAHost> {
        text.parse()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(formatter),
            Self::Below(name) => write!(formatter, ".{name}"),
        }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, NotAHost> {
        text.parse::<HostName>().map(|name| name.to_string())
    }

    #[test]
    fn names_are_lowered_and_lose_one_dot() {
        assert_eq!(parsed("Pkgs.Example."), Ok("pkgs.example".to_owned()));
        assert_eq!(parsed("localhost"), Ok("localhost".to_owned()));
        assert_eq!(parsed("xn--bcher-kva.example"), Ok("xn--bcher-kva.example".to_owned()));
        assert_eq!(parsed("1.2.3.4.in-addr.arpa"), Ok("1.2.3.4.in-addr.arpa".to_owned()));
    }

    #[test]
    fn no_notation_of_an_address_is_a_name() {
        for address in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.0x1",
            "0X7F.1",
            "127.0.0.1.",
            "0x",
            "999999999999",
            "1.2.3.4.5",
            "[::1]",
            "::1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "fd00:ec2::254",
        ] {
            assert_eq!(parsed(address), Err(NotAHost::Address), "{address}");
        }
    }

    #[test]
    fn what_two_programs_could_read_as_two_hosts_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = format!("{}example", "abcdefghi.".repeat(25));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.example..",
            "-a.example",
            "a-.example",
            "a_b.example",
            "evil\0.example",
            "evil%00.example",
            "%6cocalhost",
            "user@example",
            "example/x",
            "example\\x",
            "example#x",
            "example?x",
            "exa mple",
            "example\n",
            "bücher.example",
            "ｌocalhost",
            "１２７.0.0.1",
            "*.example",
            &long,
            &longer,
        ] {
            assert_eq!(parsed(text), Err(NotAHost::Form), "{text:?}");
        }
    }

    #[test]
    fn an_authority_has_one_host_and_one_port() {
        assert_eq!(
            authority("a.example:443").unwrap(),
            ("a.example".parse().unwrap(), Some(443))
        );
        assert_eq!(authority("a.example").unwrap().1, None);
        for text in [
            "a.example:",
            "a.example:0",
            "a.example:0443",
            "a.example:+443",
            "a.example:65536",
            "a.example:4 43",
        ] {
            assert_eq!(authority(text), Err(NotAHost::Port), "{text}");
        }
        for text in ["a:b@c:443", "[::1]:443", "::1", "a.example:443:443"] {
            assert_eq!(authority(text), Err(NotAHost::Address), "{text}");
        }
        assert_eq!(authority("u@a.example:443"), Err(NotAHost::Form));
    }

    #[test]
    fn a_suffix_matches_on_the_border_of_a_label() {
        let below: HostPattern = ".Example.org".parse().unwrap();
        let meant = |host: &str| below.matches(&host.parse().unwrap());
        assert!(meant("a.example.org") && meant("b.a.example.org"));
        assert!(!meant("example.org") && !meant("evilexample.org") && !meant("example.org.evil") && !meant("org"));
        let exact: HostPattern = "example.org".parse().unwrap();
        assert!(exact.matches(&"example.org".parse().unwrap()) && !exact.matches(&"a.example.org".parse().unwrap()));
        assert!(below.covers(&below) && below.covers(&".a.example.org".parse().unwrap()));
        assert!(below.covers(&"a.example.org".parse().unwrap()) && !below.covers(&exact));
        assert!(!exact.covers(&below) && !below.covers(&".org".parse().unwrap()));
        for text in ["..a", "*.a", ".", "", ".1", "a:1"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_host_is_plain_round_trips_and_is_no_address(text in "[\\x00-\\x7f\u{e9}]{0,40}|[a-z0-9x.-]{1,80}|[0-9a-fx.:]{1,24}") {
            if let Ok(name) = text.parse::<HostName>() {
                let shown = name.as_str();
                prop_assert!(shown.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)));
                prop_assert!(shown.parse::<std::net::IpAddr>().is_err());
                // The parser of browsers reads addresses in many notations: it must see the same name, and a name.
                match url::Host::parse(shown) {
                    Ok(url::Host::Domain(domain)) => prop_assert_eq!(domain.as_str(), shown),
                    Ok(other) => prop_assert!(false, "{other:?}"),
                    // Malformed punycode: no resolver finds it either.
                    Err(_) => prop_assert!(shown.contains("xn--")),
                }
                prop_assert_eq!(shown.parse::<HostName>().unwrap(), name);
            }
        }

        #[test]
        fn no_authority_panics(text in "\\PC{0,60}|[a-z0-9.:@%\\[\\]]{0,40}") {
            if let Ok((host, port)) = authority(&text) {
                prop_assert!(port != Some(0));
                prop_assert!(text.to_ascii_lowercase().starts_with(host.as_str()));
            }
        }
    }
}
