//! The way out: the host and port of a request to the proxy, as an agent writes them, and the rules of a task.

use cofferdam::grant::egress::{Egress, Rule, Way};
use cofferdam::message::HostName;

use crate::judge::{assert_visible, parts};

/// A request's authority and method, then a rule of a task as JSON.
pub fn authority(data: &[u8]) {
    let parts = parts(data);
    let (asked, method) = (parts[0].as_str(), parts.get(1).map_or("GET", String::as_str));
    let closed = Egress::connections();
    let rules = parts
        .get(2)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let custom = Egress::new(cofferdam::message::EgressLevel::Custom, rules);
    let open = Egress::new(cofferdam::message::EgressLevel::Open, Vec::new());
    for way in [Way::Tunnel, Way::Plain(method)] {
        assert!(closed.decide(asked, way).is_err(), "the lowest level reaches nothing");
        for egress in [&custom, &open] {
            match egress.decide(asked, way) {
                Ok(allowed) => {
                    let host = allowed.host.as_str();
                    assert_eq!(host.parse::<HostName>().as_ref(), Ok(&allowed.host));
                    assert!(
                        host.bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_')),
                        "{host:?}"
                    );
                    assert!(!host.starts_with('.') && !host.contains("..") && allowed.port != 0);
                    // No other reader takes it for an address.
                    assert!(host.parse::<std::net::IpAddr>().is_err());
                    let read = url::Url::parse(&format!("http://{host}:{}/", allowed.port)).expect("a host");
                    assert_eq!(read.host_str(), Some(host), "another reader sees another host");
                    assert!(
                        matches!(read.host(), Some(url::Host::Domain(_))),
                        "{host:?} is an address for others"
                    );
                }
                Err(refusal) => {
                    assert_visible(&refusal.host);
                    assert_visible(&refusal.message);
                    assert!(refusal.host.chars().count() <= 300 && refusal.message.len() <= 2_000);
                    let _: Rule = refusal.rule;
                }
            }
        }
    }
}

/// The first bytes in a tunnel: taken only when they are a TLS greeting that names the host, and then passed on as they came.
pub fn greeting(data: &[u8]) {
    let host: HostName = "packages.example.org".parse().expect("a host");
    match cofferdam::fuzzing::gateway::greeting(data, &host) {
        Ok(passed) => {
            assert!(data.starts_with(&passed), "other bytes are passed on");
            assert!(passed.first() == Some(&22), "no handshake");
            let name = host.as_str().as_bytes();
            assert!(passed.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name)));
        }
        Err((rule, message)) => {
            assert!(matches!(rule, Rule::NotTls | Rule::ServerName));
            assert_visible(&message);
        }
    }
}
