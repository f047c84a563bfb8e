//! The proxy against plain servers on loopback and a resolver that lies when told to. Nothing here leaves the machine.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::net::TcpListener;

use super::*;
use crate::message::{EgressLevel, EgressRule};
use crate::metrics::Build;

/// Answers in this order, the last one for ever.
struct Lying(Mutex<VecDeque<Vec<IpAddr>>>);

#[async_trait]
impl Resolve for Lying {
    async fn resolve(&self, _host: &HostName) -> std::io::Result<Vec<IpAddr>> {
        let mut answers = self.0.lock().unwrap();
        let next = answers.pop_front().unwrap();
        if answers.is_empty() {
            answers.push_back(next.clone());
        }
        Ok(next)
    }
}

struct Scene {
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    refusals: Refusals,
    told: Arc<Mutex<Vec<EventBody>>>,
}

impl Scene {
    /// A proxy that may reach loopback, where the test's servers are.
    fn new(level: EgressLevel, rules: &str, answers: &[&[&str]]) -> Self {
        Self::with(level, rules, answers, "allow_private = [\"127.0.0.0/8\"]")
    }

    fn with(level: EgressLevel, rules: &str, answers: &[&[&str]], config: &str) -> Self {
        let rules: Vec<EgressRule> = serde_json::from_str(rules).unwrap();
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        let resolver = Lying(Mutex::new(answers.iter().map(parse).collect()));
        let (metrics, refusals) = (Arc::new(Metrics::new(&Build::default()).unwrap()), Refusals::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell: Tell = {
            let told = told.clone();
            Box::new(move |event| {
                told.lock().unwrap().push(event);
                Box::pin(async {})
            })
        };
        let config = Arc::new(toml::from_str(config).unwrap());
        let proxy = Proxy::new(
            Egress::new(level, rules),
            config,
            Arc::new(resolver),
            refusals.clone(),
            metrics.clone(),
            tell,
        );
        Self {
            proxy: Arc::new(proxy),
            metrics,
            refusals,
            told,
        }
    }

    fn connection(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(self.proxy.clone().serve(far));
        near
    }

    /// Everything that comes back for these bytes, until the proxy closes or is silent.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut near = self.connection();
        // A refusal may come before everything was sent.
        let _ = near.write_all(bytes).await;
        let mut all = Vec::new();
        let mut piece = [0_u8; 4096];
        // An answer comes in its time. Silence ends only what says nothing of its length: a tunnel.
        let mut patience = Duration::from_secs(20);
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(patience, near.read(&mut piece)).await {
            all.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&all);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
                None => patience = Duration::from_millis(1500),
                Some(length) if body.len() >= length.parse::<usize>().unwrap() => break,
                Some(_) => {}
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn rule(&self, bytes: &[u8]) -> String {
        let answer = self.send(bytes).await;
        let rule = answer.lines().find_map(|line| line.strip_prefix("x-cofferdam-rule: "));
        rule.map_or_else(|| answer.lines().next().unwrap_or("closed").to_owned(), str::to_owned)
    }
}

/// A server that answers every connection with these bytes once it got a head, and keeps what it got.
async fn server(answer: &'static [u8]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let place = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(String::new());
                    kept.len() - 1
                };
                let mut piece = [0_u8; 65536];
                let mut answered = false;
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    let done = {
                        let mut kept = kept.lock().unwrap();
                        kept[place].push_str(&String::from_utf8_lossy(&piece[..count]));
                        kept[place].contains("\r\n\r\n")
                    };
                    if done && !answered {
                        answered = true;
                        let _ = stream.write_all(answer).await;
                    }
                }
            });
        }
    });
    (port, got)
}

const FINE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nkeep-alive: timeout=5\r\nconnection: x-inner\r\nx-inner: 1\r\nx-outer: 1\r\n\r\nfine";
const ANY: &str = r#"[{"host":".example","ports":[PORT,443]}]"#;

fn any(port: u16) -> String {
    ANY.replace("PORT", &port.to_string())
}

#[tokio::test]
async fn a_request_is_sent_on_with_a_clean_head() {
    let (port, got) = server(FINE).await;
    let scene = Scene::new(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]]);
    let request = format!(
        "GET http://A.example.:{port}/x?y=%2e HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: Basic eA==\r\nX-Forwarded-For: 10.0.0.1\r\n\
         Connection: x-mine, host, keep-alive\r\nX-Mine: 1\r\nProxy-Connection: keep-alive\r\nUpgrade: websocket\r\nTE: trailers\r\nX-Kept: 1\r\n\r\n"
    );
    let answer = scene.send(request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("fine"),
        "{answer}"
    );
    assert!(
        answer.contains("x-outer") && !answer.contains("x-inner") && !answer.contains("keep-alive"),
        "{answer}"
    );
    let sent = got.lock().unwrap().join("").to_lowercase();
    assert!(sent.starts_with("get /x?y=%2e http/1.1\r\n"), "{sent}");
    assert!(
        sent.contains(&format!("host: a.example:{port}\r\n")) && sent.contains("x-kept: 1"),
        "{sent}"
    );
    for dropped in ["evil", "proxy-", "forwarded", "x-mine", "upgrade", "te:", "connection"] {
        assert!(!sent.contains(dropped), "{dropped} in {sent}");
    }
    assert!(scene.told.lock().unwrap().is_empty());
    assert!(
        scene
            .metrics
            .encode()
            .contains("cofferdam_egress_bytes_total{direction=\"down\"} 4")
    );
}

#[tokio::test]
async fn smuggled_requests_reach_nobody() {
    let (port, got) = server(FINE).await;
    let scene = Scene::new(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]]);
    let head = format!("POST http://a.example:{port}/ HTTP/1.1\r\nhost: a.example\r\n");
    // The length says that the second request belongs to the body, the encoding that it does not.
    let both = format!(
        "{head}content-length: 60\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET http://a.example:{port}/smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
    );
    scene.send(both.as_bytes()).await;
    for broken in [
        "content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        "content-length: +4\r\n\r\nabcd",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "x-a: b\r\n  folded: c\r\ncontent-length: 0\r\n\r\n",
        "x-a : b\r\ncontent-length: 0\r\n\r\n",
        "x-a: b\0c\r\ncontent-length: 0\r\n\r\n",
    ] {
        let answer = scene.send(format!("{head}{broken}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{broken:?}: {answer}");
    }
    let got = got.lock().unwrap().clone();
    assert!(got.len() <= 1, "{got:?}");
    for one in &got {
        let one = one.to_lowercase();
        assert!(
            !(one.contains("smuggled") || one.contains("content-length") && one.contains("transfer-encoding")),
            "{one}"
        );
    }
}

#[tokio::test]
async fn a_head_is_bounded() {
    let scene = Scene::new(EgressLevel::Open, "[]", &[&["127.0.0.1"]]);
    let many = format!("GET http://a.example/ HTTP/1.1\r\n{}\r\n", "x-a: b\r\n".repeat(65));
    assert!(scene.send(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let large = format!("GET http://a.example/ HTTP/1.1\r\nx-a: {}\r\n\r\n", "b".repeat(200_000));
    assert!(scene.send(large.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn what_is_no_name_is_refused_by_its_rule() {
    let scene = Scene::new(EgressLevel::Open, "[]", &[&["127.0.0.1"]]);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.0x1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "127.0.0.1.",
        "[fd00:ec2::254]",
    ] {
        assert_eq!(
            scene
                .rule(format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n").as_bytes())
                .await,
            "ip_address",
            "{host}"
        );
        assert_eq!(
            scene
                .rule(format!("GET http://{host}/ HTTP/1.1\r\n\r\n").as_bytes())
                .await,
            "ip_address",
            "{host}"
        );
    }
    for target in [
        "a_b.example:443",
        "user@a.example:443",
        "a..example:443",
        "-a.example:443",
    ] {
        assert_eq!(
            scene
                .rule(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes())
                .await,
            "host_name",
            "{target}"
        );
    }
    // The parser of heads refuses these before anybody looks at a host.
    for target in [
        "evil\0.example:443",
        "evil%00.example:443",
        "a b:443",
        "a.example",
        "a.example:99999",
        "b\u{fc}cher.example:443",
    ] {
        let answer = scene
            .send(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes())
            .await;
        let refused = ["HTTP/1.1 400", "HTTP/1.1 403"]
            .iter()
            .any(|status| answer.starts_with(status));
        assert!(refused, "{target:?}: {answer}");
    }
    assert_eq!(scene.rule(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await, "scheme");
    assert_eq!(scene.rule(b"GET https://a.example/ HTTP/1.1\r\n\r\n").await, "scheme");
    assert_eq!(scene.rule(b"GET ftp://a.example/ HTTP/1.1\r\n\r\n").await, "scheme");
}

#[tokio::test]
async fn the_answer_says_rule_reason_and_whom_to_ask() {
    let scene = Scene::new(EgressLevel::Connections, "[]", &[&["127.0.0.1"]]);
    let answer = scene.send(b"CONNECT pkgs.example:443 HTTP/1.1\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 403 Refused by cofferdam egress (level)\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("cofferdam refused pkgs.example:443 (level): ") && answer.contains("whoever sends the task"),
        "{answer}"
    );
    let told = scene.told.lock().unwrap().clone();
    assert!(
        matches!(told.as_slice(), [EventBody::EgressRefused { host, port: 443, rule, .. }] if host == "pkgs.example" && rule == "level")
    );
    assert!(
        scene
            .metrics
            .encode()
            .contains("cofferdam_egress_refused_total{rule=\"level\"} 1")
    );
}

#[tokio::test]
async fn a_name_is_looked_up_anew_and_dialled_where_it_was_looked_at() {
    let (port, got) = server(FINE).await;
    // Allowed at first, then elsewhere: rebinding.
    let answers: &[&[&str]] = &[
        &["127.0.0.1"],
        &["169.254.169.254"],
        &["10.0.0.1", "::1"],
        &["::ffff:127.0.0.1"],
        &["0.0.0.0"],
        &[],
    ];
    let scene = Scene::new(EgressLevel::Custom, &any(port), answers);
    let request = format!("GET http://a.example:{port}/ HTTP/1.1\r\n\r\n");
    let tunnel = format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\n");
    assert_eq!(scene.rule(request.as_bytes()).await, "HTTP/1.1 200 OK");
    assert_eq!(scene.rule(request.as_bytes()).await, "address");
    assert_eq!(scene.rule(tunnel.as_bytes()).await, "address");
    assert_eq!(scene.rule(request.as_bytes()).await, "address");
    assert_eq!(scene.rule(tunnel.as_bytes()).await, "address");
    assert_eq!(scene.rule(request.as_bytes()).await, "resolve");
    assert_eq!(got.lock().unwrap().len(), 1);
    // Of a name that leads to both, only the allowed one is dialled.
    let both = Scene::new(EgressLevel::Custom, &any(port), &[&["10.255.255.1", "127.0.0.1"]]);
    assert_eq!(both.rule(request.as_bytes()).await, "HTTP/1.1 200 OK");
    // Without the operator's word, loopback is as closed as the rest.
    let closed = Scene::with(EgressLevel::Open, "[]", &[&["127.0.0.1"]], "");
    assert_eq!(closed.rule(request.as_bytes()).await, "address");
    let by_name = Scene::with(
        EgressLevel::Open,
        "[]",
        &[&["127.0.0.1"]],
        "allow_private = [\"a.example\"]",
    );
    assert_eq!(by_name.rule(request.as_bytes()).await, "address");
    assert_eq!(got.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_redirect_is_the_clients_to_follow_and_is_decided_anew() {
    let (port, got) =
        server(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n").await;
    let scene = Scene::new(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]]);
    let answer = scene
        .send(format!("GET http://a.example:{port}/ HTTP/1.1\r\n\r\n").as_bytes())
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 302") && answer.contains("location: http://169.254.169.254/latest"),
        "{answer}"
    );
    assert_eq!(
        scene.rule(b"GET http://169.254.169.254/latest HTTP/1.1\r\n\r\n").await,
        "ip_address"
    );
    assert_eq!(got.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tunnel_without_tls_for_its_host_is_closed() {
    let (port, got) = server(FINE).await;
    let scene = Scene::new(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]]);
    let plain = format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
    let answer = scene.send(plain.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("(not_tls)"),
        "{answer}"
    );
    assert!(got.lock().unwrap().iter().all(String::is_empty));
    assert_eq!(scene.refusals.counted().0[0].rule, Rule::NotTls);
    // Open, and not the port of HTTPS: anything may be spoken.
    let open = Scene::new(EgressLevel::Open, "[]", &[&["127.0.0.1"]]);
    let answer = open.send(plain.as_bytes()).await;
    assert!(answer.ends_with("fine"), "{answer}");
}

#[tokio::test]
async fn bytes_are_capped_both_ways() {
    let (port, got) = server(FINE).await;
    let config = "allow_private = [\"127.0.0.0/8\"]\nupload_bytes = 100000\ndownload_bytes = 100";
    let scene = Scene::with(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]], config);
    let head = format!("http://a.example:{port}/ HTTP/1.1\r\n");
    // A length that cannot fit is refused before anything is sent.
    assert_eq!(
        scene
            .rule(format!("POST {head}content-length: 100001\r\n\r\n").as_bytes())
            .await,
        "upload_limit"
    );
    assert!(got.lock().unwrap().is_empty());
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let flood = format!(
        "POST {head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(10)
    );
    let mut near = scene.connection();
    // The proxy may close before it read all.
    let _ = near.write_all(flood.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = near.read_to_end(&mut answer).await;
    let received: usize = got.lock().unwrap().iter().map(String::len).sum();
    assert!(received < 102_000 + 2000, "{received}");
    let rules: Vec<Rule> = scene.refusals.counted().0.iter().map(|one| one.rule).collect();
    assert!(rules.contains(&Rule::UploadLimit), "{rules:?}");
    let down = Scene::with(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]], config);
    let get = format!("GET {head}\r\n");
    assert!(down.send(get.as_bytes()).await.ends_with("fine"));
    assert!(!down.send(get.as_bytes()).await.ends_with("fine"));
    assert_eq!(down.refusals.counted().0[0].rule, Rule::DownloadLimit);
}

#[tokio::test]
async fn a_flood_of_refusals_is_told_once_each_and_bounded() {
    let scene = Scene::new(
        EgressLevel::Registries,
        r#"[{"host":"pkgs.example"}]"#,
        &[&["127.0.0.1"]],
    );
    for n in 0..80 {
        let request = format!("CONNECT h{n}.example:443 HTTP/1.1\r\n\r\n");
        assert_eq!(scene.rule(request.as_bytes()).await, "host");
        assert_eq!(scene.rule(request.as_bytes()).await, "host");
    }
    assert_eq!(scene.told.lock().unwrap().len(), 64);
    let (each, beyond) = scene.refusals.counted();
    assert!(each.len() == 64 && each.iter().all(|one| one.times == 2) && beyond == 32);
    assert!(
        scene
            .metrics
            .encode()
            .contains("cofferdam_egress_refused_total{rule=\"host\"} 160")
    );
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_closed() {
    let (port, _) = server(b"").await;
    let config = "allow_private = [\"127.0.0.0/8\"]\nconnections = 1\nidle_timeout_s = 1";
    let scene = Scene::with(EgressLevel::Open, "[]", &[&["127.0.0.1"]], config);
    let mut first = scene.connection();
    first
        .write_all(format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let began = std::time::Instant::now();
    let mut all = Vec::new();
    first.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200"));
    assert!(began.elapsed() >= Duration::from_millis(900) && began.elapsed() < Duration::from_secs(10));
    // Its place is free again.
    assert_eq!(scene.rule(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n").await, "ip_address");
}

/// Counts the questions that wait for an answer, which never comes.
#[derive(Default)]
struct Silent(std::sync::atomic::AtomicUsize);

#[async_trait]
impl Resolve for Silent {
    async fn resolve(&self, _host: &HostName) -> std::io::Result<Vec<IpAddr>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::future::pending().await
    }
}

#[tokio::test]
async fn one_session_does_not_take_all_places_of_the_workers_resolver() {
    let scene = Scene::new(EgressLevel::Open, "[]", &[&["127.0.0.1"]]);
    let silent = Arc::new(Silent::default());
    let proxy = Arc::new(Proxy::new(
        Egress::new(EgressLevel::Open, Vec::new()),
        Arc::new(toml::from_str("connect_timeout_s = 1").unwrap()),
        silent.clone(),
        Refusals::default(),
        scene.metrics.clone(),
        Box::new(|_| Box::pin(async {})),
    ));
    let mut open = Vec::new();
    for n in 0..40 {
        let (mut near, far) = tokio::io::duplex(4096);
        tokio::spawn(proxy.clone().serve(far));
        near.write_all(format!("CONNECT h{n}.example:443 HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        open.push(near);
    }
    // Nobody waits for the answers any more: the questions still take their places.
    for mut one in open {
        let mut all = Vec::new();
        one.read_to_end(&mut all).await.unwrap();
        assert!(String::from_utf8_lossy(&all).starts_with("HTTP/1.1 502"));
    }
    let asked = silent.0.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1..=4).contains(&asked), "{asked} of the worker's 16 places");
}

#[tokio::test]
async fn heads_over_plain_http_are_taken_from_the_budget() {
    let (port, got) = server(FINE).await;
    let config = "allow_private = [\"127.0.0.0/8\"]\nupload_bytes = 9000\ndownload_bytes = 250";
    let scene = Scene::with(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]], config);
    let get = |path: &str, more: &str| format!("GET http://a.example:{port}/{path} HTTP/1.1\r\n{more}\r\n");
    let secret = "s".repeat(4000);
    assert_eq!(scene.rule(get(&secret, "").as_bytes()).await, "HTTP/1.1 200 OK");
    assert_eq!(
        scene.rule(get("", &format!("x-a: {secret}\r\n")).as_bytes()).await,
        "HTTP/1.1 200 OK"
    );
    assert_eq!(scene.rule(get(&secret, "").as_bytes()).await, "upload_limit");
    assert_eq!(got.lock().unwrap().iter().filter(|one| !one.is_empty()).count(), 2);
    let down = Scene::with(EgressLevel::Custom, &any(port), &[&["127.0.0.1"]], config);
    let mut rules = Vec::new();
    for _ in 0..9 {
        rules.push(down.rule(get("", "").as_bytes()).await);
    }
    assert_eq!(rules[0], "HTTP/1.1 200 OK");
    assert_eq!(rules[8], "download_limit");
}

#[tokio::test]
async fn a_header_does_not_say_another_method_than_the_one_that_was_allowed() {
    let (port, got) = server(FINE).await;
    let rules = format!(r#"[{{"host":".example","ports":[{port}],"methods":["GET"]}}]"#);
    let scene = Scene::new(EgressLevel::Custom, &rules, &[&["127.0.0.1"]]);
    let request = format!(
        "GET http://a.example:{port}/ HTTP/1.1\r\nX-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: PUT\r\nX-Method-Override: POST\r\nx-kept: 1\r\n\r\n"
    );
    assert_eq!(scene.rule(request.as_bytes()).await, "HTTP/1.1 200 OK");
    let sent = got.lock().unwrap().join("").to_lowercase();
    assert!(sent.contains("x-kept") && !sent.contains("method"), "{sent}");
}
