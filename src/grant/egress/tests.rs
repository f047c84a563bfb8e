//! The decision about one request, level by level. Never resolves anything.

use super::*;

fn rule(host: &str, ports: &[u16], methods: &[EgressMethod]) -> EgressRule {
    EgressRule {
        host: host.parse().unwrap(),
        ports: ports.to_vec(),
        methods: methods.to_vec(),
    }
}

fn word(egress: &Egress, authority: &str, way: Way<'_>) -> &'static str {
    egress
        .decide(authority, way)
        .map_or_else(|refusal| refusal.rule.as_str(), |_| "allowed")
}

#[test]
fn connections_allows_nothing_and_says_whom_to_ask() {
    let egress = Egress::default();
    let refusal = egress.decide("Pkgs.Example.:443", Way::Tunnel).unwrap_err();
    assert_eq!(
        (refusal.rule, refusal.host.as_str(), refusal.port),
        (Rule::Level, "pkgs.example", 443)
    );
    assert!(
        refusal.message.contains("whoever sends the task"),
        "{}",
        refusal.message
    );
    assert_eq!(word(&egress, "pkgs.example", Way::Plain("GET")), "level");
    assert_eq!(word(&egress, "127.0.0.1:443", Way::Tunnel), "ip_address");
}

#[test]
fn package_hosts_are_read_over_http_and_opaque_over_tls() {
    let egress = Egress::new(EgressLevel::Registries, vec![rule("pkgs.example", &[], &[])]);
    assert!(egress.decide("pkgs.example:443", Way::Tunnel).unwrap().tls);
    assert_eq!(word(&egress, "pkgs.example", Way::Plain("HEAD")), "allowed");
    assert_eq!(word(&egress, "pkgs.example", Way::Plain("PUT")), "method");
    assert_eq!(word(&egress, "pkgs.example", Way::Plain("get")), "method");
    assert_eq!(word(&egress, "pkgs.example:8080", Way::Plain("GET")), "port");
    assert_eq!(word(&egress, "pkgs.example:22", Way::Tunnel), "port");
    assert_eq!(word(&egress, "pkgs.example:80", Way::Tunnel), "port");
    assert_eq!(word(&egress, "pkgs.example", Way::Tunnel), "port");
    assert_eq!(word(&egress, "evil-pkgs.example:443", Way::Tunnel), "host");
    assert_eq!(word(&egress, "a.pkgs.example:443", Way::Tunnel), "host");
}

#[test]
fn a_custom_rule_limits_hosts_ports_and_methods() {
    let egress = Egress::new(
        EgressLevel::Custom,
        vec![
            rule(".example", &[443, 8443], &[]),
            rule("reads.example", &[80], &[EgressMethod::Get]),
            rule("only.org", &[443, 80], &[EgressMethod::Get, EgressMethod::Post]),
        ],
    );
    assert_eq!(word(&egress, "a.example:8443", Way::Tunnel), "allowed");
    assert_eq!(word(&egress, "a.example:22", Way::Tunnel), "port");
    assert_eq!(word(&egress, "example:443", Way::Tunnel), "host");
    assert!(egress.decide("reads.example", Way::Plain("GET")).unwrap().reads);
    assert_eq!(word(&egress, "reads.example", Way::Plain("POST")), "method");
    // What one rule limits, another may open.
    assert_eq!(word(&egress, "reads.example:443", Way::Tunnel), "allowed");
    assert_eq!(word(&egress, "only.org:443", Way::Tunnel), "tunnel_method");
    assert!(!egress.decide("only.org", Way::Plain("POST")).unwrap().reads);
}

#[test]
fn open_takes_any_name_and_no_address() {
    let egress = Egress::new(EgressLevel::Open, Vec::new());
    assert!(egress.decide("any.example:443", Way::Tunnel).unwrap().tls);
    assert!(!egress.decide("any.example:22", Way::Tunnel).unwrap().tls);
    assert_eq!(word(&egress, "2130706433:443", Way::Tunnel), "ip_address");
    assert_eq!(word(&egress, "[::1]:443", Way::Tunnel), "ip_address");
    assert_eq!(word(&egress, "u@any.example", Way::Plain("GET")), "host_name");
}

#[test]
fn what_is_shown_of_a_hostile_host_is_harmless() {
    let evil = format!("@all\u{202e}](http://x)\n# title\0{}", "a".repeat(500));
    let refusal = Egress::default().decide(&evil, Way::Tunnel).unwrap_err();
    assert!(
        refusal.host.len() <= 100 && !refusal.host.contains(['@', '\n', '(', '#', '\0', '/', '\u{202e}']),
        "{}",
        refusal.host
    );
}

#[test]
fn words_are_all_different() {
    let words: std::collections::BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
    assert_eq!(words.len(), Rule::ALL.len());
}
