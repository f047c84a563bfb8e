//! Tries to reach anything but the gateway: the host, bridges, metadata services, other machines, name servers, and the same by way of the gateway.
//!
//! "Unreachable" is the only good answer: a refused connection has reached somebody who refused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::Asked;
use crate::report::{Report, Verdict};

const LIMIT: Duration = Duration::from_secs(3);
/// Where `inside` listens for the agent's requests to the gateway.
const GATEWAY: &str = "127.0.0.1:8470";

pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    let mut targets: Vec<(&str, String)> = vec![("the bridge of the engine", "172.17.0.1:22".into())];
    for host in asked.text("hosts").split(',').filter(|host| !host.is_empty()) {
        targets.push(("an address of the host", host.to_owned()));
    }
    if !asked.is_control() {
        // Not by the control: it could reach them.
        for (what, address) in [
            ("metadata service", "169.254.169.254:80"),
            ("metadata service of containers", "169.254.170.2:80"),
            ("another machine", "192.0.2.1:443"),
            ("a private network", "10.0.0.1:80"),
            ("a private network", "192.168.0.1:80"),
            ("the engine over TCP", "172.17.0.1:2375"),
            ("IPv6", "[2001:db8::1]:443"),
            ("metadata over IPv6", "[fd00:ec2::254]:80"),
            ("link-local IPv6", "[fe80::1]:80"),
        ] {
            targets.push((what, address.to_owned()));
        }
    }
    for (what, address) in &targets {
        tcp(report, what, address);
        udp(report, what, address);
    }
    // The sandbox's own loopback: what listens on the host's must not be there.
    let canary = asked.text("canary");
    let port = asked.text("port");
    if !port.is_empty() {
        let tried = format!("read from 127.0.0.1:{port}");
        match fetch(&format!("127.0.0.1:{port}"), "GET / HTTP/1.0\r\n\r\n") {
            Ok(text) if text.contains(canary) => {
                report.row(Verdict::Broken, "the host's loopback", &tried, "its service answered")
            }
            Ok(_) => report.row(
                Verdict::Untried,
                "the host's loopback",
                &tried,
                "something else answered",
            ),
            Err(error) => report.row(Verdict::Held, "the host's loopback", &tried, &error),
        }
    }
    interfaces(report);
    if !asked.is_control() {
        names(report);
        through_the_gateway(report, port, canary);
    }
}

/// Errors that say that there is no way, by their kind; gVisor without a network has no route of any kind, and says so in its own way.
const NO_WAY: &[std::io::ErrorKind] = &[
    std::io::ErrorKind::NetworkUnreachable,
    std::io::ErrorKind::HostUnreachable,
    std::io::ErrorKind::PermissionDenied,
    std::io::ErrorKind::AddrNotAvailable,
    std::io::ErrorKind::InvalidInput,
    std::io::ErrorKind::Unsupported,
];

fn verdict(error: &std::io::Error) -> (Verdict, String) {
    if NO_WAY.contains(&error.kind()) {
        (Verdict::Held, error.to_string())
    } else {
        (Verdict::Broken, format!("{error}: somebody was reached, or may be"))
    }
}

fn tcp(report: &mut Report, what: &str, address: &str) {
    let tried = format!("TCP to {address}");
    let Ok(target) = address.parse::<SocketAddr>() else {
        report.row(Verdict::Untried, what, &tried, "not an address");
        return;
    };
    let (verdict, happened) = match TcpStream::connect_timeout(&target, LIMIT) {
        Ok(_) => (Verdict::Broken, "connected".to_owned()),
        Err(error) => verdict(&error),
    };
    report.row(verdict, what, &tried, &happened);
}

fn udp(report: &mut Report, what: &str, address: &str) {
    let tried = format!("UDP to {address}");
    let any = if address.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let sent = UdpSocket::bind(any).and_then(|socket| socket.send_to(b"x", address));
    let (verdict, happened) = match sent {
        Ok(_) => (Verdict::Broken, "sent".to_owned()),
        Err(error) => verdict(&error),
    };
    report.row(verdict, what, &tried, &happened);
}

/// Name look-ups: of the resolver that the image or the engine names, and of the engine's embedded one.
fn names(report: &mut Report) {
    let resolvers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = resolvers
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver "));
    let mut servers: Vec<String> = named.map(|server| server.trim().to_owned()).collect();
    servers.push("127.0.0.11".to_owned());
    servers.sort();
    servers.dedup();
    for server in servers {
        let tried = format!("ask {server} for a name");
        let asked = || -> std::io::Result<usize> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.connect((server.as_str(), 53))?;
            socket
                .send(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x07invalid\x00\x00\x01\x00\x01")?;
            socket.recv(&mut [0; 512])
        };
        match asked() {
            Ok(_) => report.row(Verdict::Broken, "DNS", &tried, "it answered"),
            Err(error) => report.row(Verdict::Held, "DNS", &tried, &error.to_string()),
        }
    }
}

fn interfaces(report: &mut Report) {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':').map(|(name, _)| name.trim()))
        // The kernel makes these in every name space, down and without an address.
        .filter(|name| {
            !matches!(
                *name,
                "lo" | "tunl0"
                    | "sit0"
                    | "ip6tnl0"
                    | "gre0"
                    | "gretap0"
                    | "erspan0"
                    | "ip_vti0"
                    | "ip6_vti0"
                    | "ip6gre0"
            )
        })
        .collect();
    let verdict = if names.is_empty() {
        Verdict::Held
    } else {
        Verdict::Broken
    };
    report.row(
        verdict,
        "interfaces",
        "look for one besides the loopback",
        &format!("{names:?}"),
    );
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let count = routes.lines().skip(1).count();
    let verdict = if count == 0 { Verdict::Held } else { Verdict::Broken };
    report.row(verdict, "routes", "look for one", &format!("{count} routes"));
}

/// The gateway is the one way out, so it is asked to go further than it may.
fn through_the_gateway(report: &mut Report, port: &str, canary: &str) {
    let loopback = format!("127.0.0.1:{port}");
    for target in [
        "169.254.169.254:80",
        loopback.as_str(),
        "172.17.0.1:2375",
        "[::1]:80",
        "metadata.google.internal:80",
    ] {
        let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        let absolute = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        let origin = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        for (form, request) in [("CONNECT", connect), ("absolute form", absolute), ("Host", origin)] {
            let tried = format!("{form} to {target}");
            match fetch(GATEWAY, &request) {
                Ok(answer) => {
                    let line = answer.lines().next().unwrap_or_default().to_owned();
                    let through = line.split(' ').nth(1).is_some_and(|status| status.starts_with('2'))
                        || (!canary.is_empty() && answer.contains(canary));
                    let verdict = if through { Verdict::Broken } else { Verdict::Held };
                    report.row(verdict, "through the gateway", &tried, &line);
                }
                Err(error) => report.row(Verdict::Held, "through the gateway", &tried, &error),
            }
        }
    }
}

/// The first bytes of an answer.
fn fetch(address: &str, request: &str) -> Result<String, String> {
    let mut got = Vec::new();
    let target: SocketAddr = address.parse().map_err(|error| format!("{error}"))?;
    let mut talk = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        // An answer comes in as many pieces as its sender likes; what broke off is judged by what came.
        let mut piece = [0_u8; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) if got.len() < 65_536 => got.extend_from_slice(&piece[..count]),
                Ok(_) => break,
                Err(_) if !got.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    talk().map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&got).into_owned())
}
