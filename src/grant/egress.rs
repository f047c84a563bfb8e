//! The way out of one session: its level, its rules, and the decision about one request. Pure.
//!
//! Says no by a word that stays the same and by a sentence for the agent. Resolves nothing and dials nothing.

use crate::message::host::NotAHost;
use crate::message::{EgressLevel, EgressMethod, EgressRule, HostName, host};

pub mod address;

/// The port of HTTPS.
const HTTPS: u16 = 443;
/// The port of HTTP.
const HTTP: u16 = 80;
/// Most hosts that a sentence lists.
const MOST_LISTED: usize = 12;
/// Longest part of a refused host that is shown, in bytes.
const LONGEST_SHOWN: usize = 100;

/// What a session may reach beyond the gateway's own routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    level: EgressLevel,
    rules: Vec<EgressRule>,
}

impl Default for Egress {
    fn default() -> Self {
        Self::connections()
    }
}

/// Which rule refused a request. The words are part of the contract: metrics, events and answers carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The session's level allows nothing.
    Level,
    /// What was asked for is no host name.
    HostName,
    /// What was asked for is an address.
    IpAddress,
    /// The host is on no list.
    Host,
    /// The host is, the port is not.
    Port,
    /// The HTTP method is not.
    Method,
    /// Methods are limited, and a tunnel hides them.
    TunnelMethod,
    /// Neither CONNECT nor `http://`.
    Scheme,
    /// The name leads to an address that is not public.
    Address,
    /// The name leads nowhere.
    Resolve,
    /// The name in the TLS greeting is another one.
    ServerName,
    /// No TLS in a tunnel.
    NotTls,
    /// As much was sent to this host as a session may send.
    UploadLimit,
    /// As much was received from this host as a session may receive.
    DownloadLimit,
    /// Too many connections at a time, or of one kind of host.
    TooMany,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Level,
        Self::HostName,
        Self::IpAddress,
        Self::Host,
        Self::Port,
        Self::Method,
        Self::TunnelMethod,
        Self::Scheme,
        Self::Address,
        Self::Resolve,
        Self::ServerName,
        Self::NotTls,
        Self::UploadLimit,
        Self::DownloadLimit,
        Self::TooMany,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::HostName => "host_name",
            Self::IpAddress => "ip_address",
            Self::Host => "host",
            Self::Port => "port",
            Self::Method => "method",
            Self::TunnelMethod => "tunnel_method",
            Self::Scheme => "scheme",
            Self::Address => "address",
            Self::Resolve => "resolve",
            Self::ServerName => "server_name",
            Self::NotTls => "not_tls",
            Self::UploadLimit => "upload_limit",
            Self::DownloadLimit => "download_limit",
            Self::TooMany => "too_many",
        }
    }
}

/// A refused way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule.
    pub rule: Rule,
    /// The host that was asked for, as harmless text.
    pub host: String,
    /// The port; 0 where it was none.
    pub port: u16,
    /// What is allowed, and what to do.
    pub message: String,
}

/// How a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// CONNECT: everything in it is opaque.
    Tunnel,
    /// A request in absolute form over plain HTTP, with its method.
    Plain(&'a str),
}

/// A way that is allowed, as far as names go: the address is still to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The host.
    pub host: HostName,
    /// The port.
    pub port: u16,
    /// Whether a tunnel must begin with TLS for this very host.
    pub tls: bool,
    /// Whether only reading was allowed, so that a body is no part of it.
    pub reads: bool,
}

impl Egress {
    /// Nothing but the gateway's own routes.
    #[must_use]
    pub fn connections() -> Self {
        Self {
            level: EgressLevel::Connections,
            rules: Vec::new(),
        }
    }

    /// A level with its rules: for `registries` the package hosts, for `custom` the task's.
    #[must_use]
    pub fn new(level: EgressLevel, rules: Vec<EgressRule>) -> Self {
        Self { level, rules }
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> EgressLevel {
        self.level
    }

    /// Decides about `host[:port]` as it stands in a request.
    ///
    /// # Errors
    /// The refusal.
    pub fn decide(&self, authority: &str, way: Way<'_>) -> Result<Allowed, Refusal> {
        let no = |rule, port, message| {
            Err(Refusal {
                rule,
                host: shown(authority),
                port,
                message,
            })
        };
        let (host, port) = match (host::authority(authority), way) {
            (Ok((host, Some(port))), _) => (host, port),
            (Ok((host, None)), Way::Plain(_)) => (host, HTTP),
            (Ok((_, None)), Way::Tunnel) => return no(Rule::Port, 0, "a tunnel needs a port: host:443".to_owned()),
            (Err(wrong), _) => {
                let rule = match wrong {
                    NotAHost::Address => Rule::IpAddress,
                    NotAHost::Form => Rule::HostName,
                    NotAHost::Port => Rule::Port,
                };
                return no(rule, 0, format!("{wrong}."));
            }
        };
        match self.by_level(&host, port, way) {
            Ok((tls, reads)) => Ok(Allowed { host, port, tls, reads }),
            Err((rule, message)) => Err(Refusal {
                rule,
                host: host.to_string(),
                port,
                message,
            }),
        }
    }

    /// Whether TLS is asked for, and whether only reading is allowed; or the rule that says no.
    fn by_level(&self, host: &HostName, port: u16, way: Way<'_>) -> Result<(bool, bool), (Rule, String)> {
        match self.level {
            EgressLevel::Connections => Err((
                Rule::Level,
                format!("this session reaches nothing but its projects, its tools and its model, at 127.0.0.1. {ASK}"),
            )),
            EgressLevel::Registries => self.registry(host, port, way),
            EgressLevel::Custom => self.listed(host, port, way),
            // Elsewhere anything may be spoken: that is what the level is for.
            EgressLevel::Open => Ok((port == HTTPS, false)),
        }
    }

    /// A package host: HTTPS through a tunnel, where methods cannot be seen, or reading over plain HTTP.
    fn registry(&self, host: &HostName, port: u16, way: Way<'_>) -> Result<(bool, bool), (Rule, String)> {
        if !self.rules.iter().any(|rule| rule.host.matches(host)) {
            return Err((Rule::Host, self.unlisted()));
        }
        match way {
            Way::Tunnel if port == HTTPS => Ok((true, true)),
            Way::Plain("GET" | "HEAD") if port == HTTP => Ok((false, true)),
            Way::Tunnel => Err((Rule::Port, format!("{host} is allowed at port {HTTPS} only."))),
            Way::Plain(_) if port != HTTP => Err((
                Rule::Port,
                format!("{host} is allowed over plain HTTP at port {HTTP} only."),
            )),
            Way::Plain(_) => Err((
                Rule::Method,
                format!("{host} may only be read over plain HTTP: GET and HEAD."),
            )),
        }
    }

    /// A host of the task's list: the first rule that allows it, else what was nearest to.
    fn listed(&self, host: &HostName, port: u16, way: Way<'_>) -> Result<(bool, bool), (Rule, String)> {
        let mut of_host = self.rules.iter().filter(|rule| rule.host.matches(host)).peekable();
        if of_host.peek().is_none() {
            return Err((Rule::Host, self.unlisted()));
        }
        let mut no = (
            Rule::Port,
            format!("{host} is not allowed at port {port}: the task's egress.allow names others."),
        );
        for rule in of_host.filter(|rule| rule.ports().contains(&port)) {
            match (way, rule.methods.as_slice()) {
                (Way::Tunnel, []) => return Ok((true, false)),
                (Way::Plain(_), []) => return Ok((false, false)),
                (Way::Plain(method), named) if named.iter().any(|one| one.as_str() == method) => {
                    return Ok((false, !named.iter().any(|one| writes(*one))));
                }
                (Way::Plain(_), named) => {
                    let names: Vec<&str> = named.iter().map(|one| one.as_str()).collect();
                    no = (
                        Rule::Method,
                        format!("{host} is allowed with {} only.", names.join(", ")),
                    );
                }
                (Way::Tunnel, _) => {
                    let message = format!(
                        "{host} is allowed with certain methods only, and they can only be checked on plain HTTP: ask for http://, \
                         or let the task's rule name no methods."
                    );
                    no = (Rule::TunnelMethod, message);
                }
            }
        }
        Err(no)
    }

    fn unlisted(&self) -> String {
        let mut hosts: Vec<String> = self.rules.iter().map(|rule| rule.host.to_string()).collect();
        hosts.dedup();
        let more = if hosts.len() > MOST_LISTED { " and more" } else { "" };
        hosts.truncate(MOST_LISTED);
        let level = self.level;
        format!(
            "this session's egress level is \"{level}\": it reaches {}{more}. {ASK}",
            hosts.join(", ")
        )
    }
}

/// Whom to ask.
const ASK: &str =
    "If it is really needed, say so in your answer: whoever sends the task may ask for a higher \"egress\" level.";

fn writes(method: EgressMethod) -> bool {
    match method {
        EgressMethod::Get | EgressMethod::Head | EgressMethod::Options => false,
        EgressMethod::Post | EgressMethod::Put | EgressMethod::Patch | EgressMethod::Delete => true,
    }
}

/// What an agent wrote in place of a host, fit for logs, events and change requests: what no host can hold becomes `?`.
fn shown(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
    text.chars()
        .take(LONGEST_SHOWN)
        .map(|c| if fits(c) { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests;
