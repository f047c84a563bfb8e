//! The route against a small model server on loopback: what arrives there, and what comes back and when.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tower::ServiceExt as _;

use super::*;

mod budget;

/// An end to every wait.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Counts {
    statuses: Mutex<Vec<u16>>,
    tokens: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    refusals: AtomicU64,
}

impl CountModel for Counts {
    fn count(&self, _model: &str, status: u16) {
        self.statuses.lock().unwrap().push(status);
    }

    fn bytes(&self, _model: &str, sent: u64, received: u64) {
        self.bytes.fetch_add(sent + received, Ordering::SeqCst);
    }

    fn tokens(&self, model: &str, read: u64, written: u64) {
        assert_eq!(model, "m");
        self.tokens.fetch_add(read + written, Ordering::SeqCst);
    }

    fn retried(&self, _model: &str) {
        self.retries.fetch_add(1, Ordering::SeqCst);
    }

    fn refused(&self) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
    }
}

fn config(url: &str) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Config {
        url: url.to_owned(),
        key_env: None,
        key_file: None,
        key_as: KeyStyle::XApiKey,
        paths: Vec::new(),
        models: Vec::new(),
        deny_server_tools: true,
        budget_tokens: None,
    }
}

/// A session's route, and what is behind it.
struct Scene {
    router: Router,
    meter: Arc<Meter>,
    counts: Arc<Counts>,
    seen: Seen,
    answers: Answers,
}

/// Target, headers and body of what reached the model server.
type Seen = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;
/// What the model server answers next; a plain 200 when there is nothing.
type Answers = Arc<Mutex<VecDeque<Response>>>;

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}, None).await
    }

    async fn with(change: impl FnOnce(&mut Config), most_tokens: Option<u64>) -> Self {
        let (seen, answers) = (Seen::default(), Answers::default());
        let (seen_by, answered) = (seen.clone(), answers.clone());
        let server = Router::new().fallback(move |request: Request| {
            let (seen, answers) = (seen_by.clone(), answered.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let text = String::from_utf8_lossy(&body).into_owned();
                let text_hangs = text.contains("\"model\":\"hang\"");
                seen.lock().unwrap().push((parts.uri.to_string(), parts.headers, text));
                // The model that is named so never begins its answer.
                if text_hangs {
                    std::future::pending::<()>().await;
                }
                let next = answers.lock().unwrap().pop_front();
                next.unwrap_or_else(|| (StatusCode::OK, "{}").into_response())
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(&format!("http://{}/base/v1", listener.local_addr().unwrap()));
        tokio::spawn(async move { axum::serve(listener, server).await });
        change(&mut config);
        let counts = Arc::new(Counts::default());
        let endpoint = Endpoint::new(&config, Some(Secret::new("the-key-of-the-worker")), counts.clone()).unwrap();
        let (routes, meter) = router("m", Arc::new(endpoint), most_tokens);
        let router = routes();
        Self {
            router,
            meter,
            counts,
            seen,
            answers,
        }
    }

    fn will_answer(&self, answer: impl axum::response::IntoResponse) {
        self.answers.lock().unwrap().push_back(answer.into_response());
    }

    async fn ask(&self, method: Method, target: &str, body: impl Into<Body>) -> Response {
        let mut request = Request::builder().method(method).uri(target);
        for name in [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "api-key",
            "cookie",
            "proxy-authorization",
            "x-forwarded-for",
            "connection",
        ] {
            request = request.header(name, "attacker");
        }
        let request = request
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn post(&self, target: &str, body: &str) -> (StatusCode, String) {
        let answer = self.ask(Method::POST, target, body.to_owned()).await;
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

const CHAT: &str = "/model/m/v1/chat/completions";
const GEMINI: &str = "/model/m/v1beta/models/gem:streamGenerateContent?alt=sse&key=attacker&%6bey=attacker&x=y";

fn chat(input: u64, output: u64) -> String {
    format!("{{\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}")
}

#[tokio::test]
async fn only_our_key_reaches_the_model_whatever_the_client_sends() {
    for (style, name, value) in [
        (KeyStyle::Bearer, "authorization", "Bearer the-key-of-the-worker"),
        (KeyStyle::XApiKey, "x-api-key", "the-key-of-the-worker"),
        (KeyStyle::XGoogApiKey, "x-goog-api-key", "the-key-of-the-worker"),
    ] {
        let scene = Scene::with(|config| config.key_as = style, None).await;
        assert_eq!(scene.post(GEMINI, "{}").await.0, StatusCode::OK);
        let seen = scene.seen.lock().unwrap();
        let (target, headers, _) = &seen[0];
        assert_eq!(target, "/base/v1beta/models/gem:streamGenerateContent?alt=sse");
        assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value]);
        assert!(!format!("{target} {headers:?}").contains("attacker"), "{headers:?}");
        assert_eq!(headers["accept-encoding"], "identity");
    }
}

#[tokio::test]
async fn what_is_not_listed_is_refused_in_the_apis_own_words_and_asked_of_nobody() {
    let scene = Scene::new().await;
    for (method, target, status) in [
        (Method::GET, "/model/m/v1/files", 403),
        (Method::POST, "/model/m/v1/files", 403),
        (Method::POST, "/model/m/v1/batches", 403),
        (Method::POST, "/model/m/v1/messages/batches", 403),
        (Method::POST, "/model/m/v1/containers", 403),
        (Method::POST, "/model/m/v1/uploads", 403),
        (Method::POST, "/model/m/upload/v1beta/files", 403),
        (Method::POST, "/model/m/v1beta/models/gem:batchGenerateContent", 403),
        (Method::DELETE, "/model/m/v1/models", 403),
        (Method::GET, "/model/m/v1/%6dodels", 403),
        (Method::GET, "/model/m/v1/models/../files", 403),
        (Method::GET, "/model/other/v1/models", 404),
    ] {
        assert_eq!(
            scene.ask(method, target, "").await.status().as_u16(),
            status,
            "{target}"
        );
    }
    let (status, said) = scene
        .post("/model/m/v1/messages", r#"{"tools":[{"type":"web_search_20250305"}]}"#)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["type"], &said["error"]["type"]),
        (&"error".into(), &"permission_error".into())
    );
    assert!(
        said["error"]["message"]
            .as_str()
            .unwrap()
            .contains("web_search_20250305"),
        "{said}"
    );
    let (_, said) = scene
        .post(
            "/model/m/v1beta/models/gem:generateContent",
            r#"{"tools":[{"googleSearch":{}}]}"#,
        )
        .await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["error"]["code"], &said["error"]["status"]),
        (&403.into(), &"PERMISSION_ERROR".into())
    );
    assert_eq!(scene.post(CHAT, "{\"plugins\":[1]}").await.0, StatusCode::FORBIDDEN);
    // Larger than what is checked in passing.
    let large = format!("{{\"x\":\"{}\",\"plugins\":[1]}}", "y".repeat(2_000_000));
    assert_eq!(scene.post(CHAT, &large).await.0, StatusCode::FORBIDDEN);
    assert_eq!(scene.asked(), 0);
    assert_eq!(scene.counts.refusals.load(Ordering::SeqCst), 15);
}

#[tokio::test]
async fn an_answer_streams_byte_by_byte_and_its_numbers_are_known_with_the_piece_that_has_them() {
    let scene = Scene::new().await;
    let go = Arc::new(tokio::sync::Notify::new());
    let going = go.clone();
    let first = "data: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\nda";
    let second = "ta: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\n";
    let beginning = futures::stream::iter([Ok::<_, std::io::Error>(first)]);
    let rest = futures::stream::once(async move {
        going.notified().await;
        Ok(second)
    });
    let headers = [
        ("content-type", "text/event-stream"),
        ("set-cookie", "a=b"),
        ("x-secret", "x"),
    ];
    scene.will_answer((headers, Body::from_stream(beginning.chain(rest))));
    let answer = scene.ask(Method::POST, CHAT, "{}").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert!(answer.headers().get("set-cookie").is_none() && answer.headers().get("x-secret").is_none());
    let mut pieces = answer.into_body().into_data_stream();
    // The first piece is here while the server still holds the second back.
    let piece = tokio::time::timeout(LIMIT, pieces.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(piece, first);
    assert_eq!(scene.meter.used().tokens, Tokens { input: 9, output: 1 });
    go.notify_one();
    let piece = tokio::time::timeout(LIMIT, pieces.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(piece, second);
    let used = scene.meter.used();
    assert_eq!(used.tokens, Tokens { input: 9, output: 4 });
    assert_eq!((used.requests, used.request_bytes), (1, 2));
    assert_eq!(used.answer_bytes, (first.len() + second.len()) as u64);
    assert_eq!(scene.counts.tokens.load(Ordering::SeqCst), 13);
    assert_eq!(scene.counts.bytes.load(Ordering::SeqCst), used.answer_bytes + 2);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_headers_stay_here() {
    let scene = Scene::new().await;
    let away = [("location", "http://127.0.0.1:1/v1/models"), ("set-cookie", "a=b")];
    scene.will_answer((StatusCode::FOUND, away, "moved"));
    let answer = scene.ask(Method::GET, "/model/m/v1/models", "").await;
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert!(answer.headers().get("location").is_none() && answer.headers().get("set-cookie").is_none());
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn a_short_wait_that_the_provider_asks_for_is_waited_here_twice_and_no_more() {
    let scene = Scene::new().await;
    for status in [429, 503, 529, 429] {
        scene.will_answer((StatusCode::from_u16(status).unwrap(), [("retry-after", "0")], "busy"));
    }
    // Two retries, then the third answer is the agent's.
    assert_eq!(
        scene.post(CHAT, "{\"a\":1}").await,
        (StatusCode::from_u16(529).unwrap(), "busy".into())
    );
    assert_eq!((scene.asked(), scene.counts.retries.load(Ordering::SeqCst)), (3, 2));
    assert_eq!(scene.post(CHAT, "{\"a\":1}").await.0, StatusCode::OK);
    assert!(
        scene
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|(_, _, body)| body == "{\"a\":1}")
    );
    assert_eq!(scene.asked(), 5);
    for (status, header) in [
        (429, "6"),
        (429, "soon"),
        (503, "-1"),
        (500, "0"),
        (502, "0"),
        (400, "0"),
    ] {
        let before = scene.asked();
        scene.will_answer((StatusCode::from_u16(status).unwrap(), [("retry-after", header)], ""));
        assert_eq!(scene.post(CHAT, "{}").await.0.as_u16(), status);
        assert_eq!(scene.asked(), before + 1, "{status} {header}");
    }
    scene.will_answer((StatusCode::TOO_MANY_REQUESTS, ""));
    assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(scene.counts.retries.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn nothing_is_sent_again_once_a_byte_of_the_answer_is_out() {
    let scene = Scene::new().await;
    let go = Arc::new(tokio::sync::Notify::new());
    let going = go.clone();
    let begun = futures::stream::iter([Ok("data: one\n\n")]);
    let broken = begun.chain(futures::stream::once(async move {
        going.notified().await;
        Err(std::io::Error::other("gone"))
    }));
    scene.will_answer(([("content-type", "text/event-stream")], Body::from_stream(broken)));
    let answer = scene.ask(Method::POST, CHAT, "{}").await;
    let mut pieces = answer.into_body().into_data_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "data: one\n\n");
    go.notify_one();
    assert!(pieces.next().await.unwrap().is_err());
    assert_eq!((scene.asked(), scene.counts.retries.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_model_that_is_not_there_is_tried_three_times() {
    // Bound and let go: nobody listens there.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let scene = Scene::with(|config| config.url = format!("http://{free}"), None).await;
    assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(scene.counts.retries.load(Ordering::SeqCst), 2);
    assert_eq!(*scene.counts.statuses.lock().unwrap(), [0]);
}

#[tokio::test]
async fn a_spent_budget_refuses_what_comes_next_and_says_so() {
    // The task may lower the operator's budget, never raise it.
    for (operator, task) in [
        (Some(100), None),
        (None, Some(100)),
        (Some(100), Some(500)),
        (Some(500), Some(100)),
    ] {
        let scene = Scene::with(|config| config.budget_tokens = operator, task).await;
        scene.will_answer(([("content-type", "application/json")], chat(60, 30)));
        scene.will_answer(([("content-type", "application/json")], chat(9, 2)));
        assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::OK);
        assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::OK);
        // Nothing was refused yet: the agent may be content with that answer.
        assert!(!scene.meter.is_spent());
        for (target, kind) in [
            (CHAT, "/error/code"),
            ("/model/m/v1/responses", "/error/code"),
            ("/model/m/v1/messages", "/error/type"),
            ("/model/m/v1beta/models/gem:generateContent", "/error/status"),
        ] {
            let (status, said) = scene.post(target, "{}").await;
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{target}");
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let kind = said.pointer(kind).unwrap().as_str().unwrap().to_lowercase();
            assert_eq!(kind, "rate_limit_error");
            assert!(
                said["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("budget of 100 model tokens"),
                "{said}"
            );
        }
        tokio::time::timeout(LIMIT, scene.meter.spent()).await.unwrap();
        assert_eq!(scene.asked(), 2);
        // A list of models costs nothing.
        assert_eq!(
            scene.ask(Method::GET, "/model/m/v1/models", "").await.status(),
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn hanging_up_before_the_numbers_come_does_not_save_the_budget() {
    let scene = Scene::with(|config| config.budget_tokens = Some(100), None).await;
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("data: {}\n\n"));
    scene.will_answer(([("content-type", "text/event-stream")], Body::from_stream(endless)));
    let answer = scene.ask(Method::POST, CHAT, "{}").await;
    let mut pieces = answer.into_body().into_data_stream();
    let mut events = 0;
    while events < 200 {
        events += pieces
            .next()
            .await
            .unwrap()
            .unwrap()
            .windows(5)
            .filter(|five| five == b"data:")
            .count();
    }
    drop(pieces);
    assert_eq!(scene.meter.used().tokens, Tokens::default());
    assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert!(scene.meter.is_spent());
}

#[tokio::test]
async fn a_failed_request_costs_no_tokens() {
    let scene = Scene::with(|config| config.budget_tokens = Some(10), None).await;
    scene.will_answer((
        StatusCode::BAD_REQUEST,
        [("content-type", "application/json")],
        chat(60, 30),
    ));
    assert_eq!(
        scene.post(CHAT, &format!("{{\"x\":\"{}\"}}", "y".repeat(1000))).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(scene.meter.used().tokens, Tokens::default());
    assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_session_cannot_open_answers_without_end() {
    let scene = Scene::new().await;
    let mut open = Vec::new();
    for _ in 0..32 {
        let pending = futures::stream::pending::<std::io::Result<&str>>();
        scene.will_answer(([("content-type", "text/event-stream")], Body::from_stream(pending)));
        open.push(scene.ask(Method::POST, CHAT, "{}").await);
    }
    assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::SERVICE_UNAVAILABLE);
    open.pop();
    assert_eq!(scene.post(CHAT, "{}").await.0, StatusCode::OK);
}

#[test]
fn what_no_agent_could_use_safely_is_refused_at_the_start() {
    let counts = Arc::new(Counts::default());
    let fails = |config: &Config, key: &str| Endpoint::new(config, Some(Secret::new(key)), counts.clone()).err();
    assert!(
        fails(&config("http://127.0.0.1:9"), "a\nb")
            .unwrap()
            .contains("no header")
    );
    let mut listed = config("http://127.0.0.1:9/v1");
    assert_eq!(fails(&listed, "a"), None);
    listed.paths = vec!["/v1/messages".into(), "/v1/files".into()];
    assert!(fails(&listed, "a").unwrap().contains("/v1/files is never open"));
}

#[tokio::test]
async fn a_body_is_read_as_what_it_was_checked_as() {
    let scene = Scene::new().await;
    let request = Request::builder().method(Method::POST).uri(CHAT);
    let request = request
        .header("content-type", "multipart/form-data; boundary=x")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(
        scene.router.clone().oneshot(request).await.unwrap().status(),
        StatusCode::OK
    );
    let seen = scene.seen.lock().unwrap();
    let kinds: Vec<_> = seen[0].1.get_all("content-type").iter().collect();
    assert_eq!(kinds, ["application/json"]);
}

#[tokio::test]
async fn what_echoes_the_key_does_not_bring_it_to_the_agent() {
    use base64::Engine as _;
    const KEY: &str = "the-key-of-the-worker";
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("user:{KEY}"));
    for form in [KEY.to_owned(), hex::encode(KEY), basic.clone(), KEY.replace('-', "%2D")] {
        for status in [200, 401, 500] {
            let scene = Scene::new().await;
            let pieces: Vec<Result<Vec<u8>, std::io::Error>> = format!("{{\"error\":\"no such key: {form}, sorry\"}}")
                .as_bytes()
                .chunks(3)
                .map(|piece| Ok(piece.to_vec()))
                .collect();
            let answer = axum::response::Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .header("x-request-id", format!("r-{form}"))
                .body(Body::from_stream(futures::stream::iter(pieces)))
                .unwrap();
            scene.will_answer(answer);
            let got = scene
                .ask(
                    Method::POST,
                    "/model/m/v1/messages",
                    "{\"model\":\"x\",\"max_tokens\":1,\"messages\":[]}",
                )
                .await;
            assert_eq!(got.status().as_u16(), status);
            let id = got.headers()["x-request-id"].to_str().unwrap().to_owned();
            let body = axum::body::to_bytes(got.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(!format!("{id}{body}").contains(&form), "{id} {body}");
            assert!(
                id.contains("[MASKED]") && body.contains("[MASKED]") && body.ends_with(", sorry\"}"),
                "{id} {body}"
            );
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_cannot_be_searched_for_the_key_and_is_not_passed_on() {
    use std::io::Write as _;
    for status in [200, 401] {
        let scene = Scene::with(|config| config.budget_tokens = Some(50), None).await;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(b"{\"key\":\"the-key-of-the-worker\"}").unwrap();
        let answer = axum::response::Response::builder()
            .status(status)
            .header("content-encoding", "gzip")
            .body(Body::from(packed.finish().unwrap()))
            .unwrap();
        scene.will_answer(answer);
        let body = r#"{"model":"x","max_tokens":60,"messages":[]}"#;
        let (got, said) = scene.post("/model/m/v1/messages", body).await;
        assert_eq!(got, StatusCode::BAD_GATEWAY, "{said}");
        assert!(said.contains("compressed"), "{said}");
        // What it may have cost is charged; a refusal costs nothing.
        let (next, said) = scene.post("/model/m/v1/messages", body).await;
        assert_eq!(next == StatusCode::OK, status != 200, "{next} {said}");
    }
}
