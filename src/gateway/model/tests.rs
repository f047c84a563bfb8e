//! The route by its rules, and against a small model server on loopback: what arrives there, and what comes back and when.

use super::*;

struct Nothing;
impl CountModel for Nothing {
    fn count(&self, _status: u16) {}
}

fn endpoint() -> Endpoint {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config {
        url: "http://127.0.0.1:9/v1".into(),
        key_env: None,
        key_file: None,
        key_as: KeyStyle::Bearer,
        paths: Vec::new(),
    };
    Endpoint::new(&config, Some(Secret::new("sk-test-12345")), Arc::new(Nothing)).unwrap()
}

#[test]
fn only_listed_paths_and_methods_are_open() {
    let endpoint = endpoint();
    assert!(endpoint.allows(&Method::POST, "/v1/chat/completions"));
    assert!(endpoint.allows(&Method::POST, "/v1beta/models/gemini-x:generateContent"));
    for path in [
        "/v1/files",
        "/v1/batches",
        "/v1/chat/completions/..",
        "/v1beta/models/../x",
        "/v1//models",
        "/v1/models%2f",
        "/",
    ] {
        assert!(!endpoint.allows(&Method::GET, path), "{path}");
    }
    assert!(!endpoint.allows(&Method::DELETE, "/v1/models"));
    assert_eq!(endpoint.url, "http://127.0.0.1:9");
}

#[test]
fn a_key_in_the_query_is_found_however_it_is_written() {
    for pair in [
        "key=x",
        "%6bey=x",
        "KEY=x",
        "api_key=x",
        "api-key",
        "access_token=x",
        "",
    ] {
        assert!(names_a_key(pair), "{pair}");
    }
    for pair in ["alt=sse", "beta=true", "pageSize=3"] {
        assert!(!names_a_key(pair), "{pair}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_together_and_give_their_memory_back() {
    let budget = Arc::new(Semaphore::new(4));
    let (first, place) = read(Body::from(vec![1; 3 * PIECE]), &budget).await.ok().unwrap();
    assert_eq!((first.len(), place.num_permits()), (3 * PIECE, 3));
    assert!(matches!(
        read(Body::from(vec![1; 2 * PIECE]), &budget).await,
        Err(Untaken::TooMany)
    ));
    drop(place);
    assert!(read(Body::from(vec![1; 4 * PIECE]), &budget).await.is_ok());
    assert_eq!(budget.available_permits(), 4);
}

#[test]
fn a_key_that_no_header_can_carry_is_refused_at_the_start() {
    let config = Config {
        url: "http://127.0.0.1:9".into(),
        key_env: None,
        key_file: None,
        key_as: KeyStyle::Bearer,
        paths: Vec::new(),
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    assert!(Endpoint::new(&config, Some(Secret::new("a\nb")), Arc::new(Nothing)).is_err());
}

#[test]
fn client_keys_are_dropped_and_ours_is_put_in() {
    let mut sent = HeaderMap::new();
    for name in [
        "authorization",
        "x-api-key",
        "cookie",
        "x-goog-api-key",
        "proxy-authorization",
        "x-forwarded-for",
    ] {
        sent.insert(HeaderName::from_static(name), HeaderValue::from_static("attacker"));
    }
    sent.insert("content-type", HeaderValue::from_static("application/json"));
    let kept = passed(&sent, PASSED_REQUEST_HEADERS);
    assert_eq!(kept.len(), 1);
    assert_eq!(key_header(&endpoint())["authorization"], "Bearer sk-test-12345");
}

/// What reached the model server.
type Seen = Arc<std::sync::Mutex<Vec<(String, HeaderMap)>>>;

/// A model server: answers a stream whose second piece comes when it is told to, redirects, and remembers what it was asked.
async fn upstream() -> (String, Seen, Arc<tokio::sync::Notify>) {
    let (seen, go) = (Seen::default(), Arc::new(tokio::sync::Notify::new()));
    let (seen_by, going) = (seen.clone(), go.clone());
    let router = Router::new().fallback(move |request: Request| {
        let (seen, go) = (seen_by.clone(), going.clone());
        async move {
            seen.lock()
                .unwrap()
                .push((request.uri().to_string(), request.headers().clone()));
            if request.uri().path().ends_with("/models") {
                let away = [("location", "http://127.0.0.1:1/v1/models"), ("set-cookie", "a=b")];
                return (StatusCode::FOUND, away, "moved").into_response();
            }
            let first = futures::stream::iter([Ok::<_, std::io::Error>("data: one\n\n")]);
            let second = futures::stream::once(async move {
                go.notified().await;
                Ok("data: two\n\n")
            });
            (
                [("content-type", "text/event-stream")],
                Body::from_stream(first.chain(second)),
            )
                .into_response()
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/base/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen, go)
}

async fn ask(url: &str, method: Method, target: &str) -> Response {
    use tower::ServiceExt as _;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config {
        url: url.to_owned(),
        key_env: None,
        key_file: None,
        key_as: KeyStyle::XApiKey,
        paths: Vec::new(),
    };
    let endpoint = Endpoint::new(&config, Some(Secret::new("the-key-of-the-worker")), Arc::new(Nothing)).unwrap();
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("x-api-key", "attacker")
        .header("authorization", "Bearer attacker")
        .header("connection", "x-api-key")
        .header("content-type", "application/json")
        .body(Body::from("{}"))
        .unwrap();
    router("m", Arc::new(endpoint)).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn an_answer_streams_and_only_our_key_reaches_the_model() {
    let (url, seen, go) = upstream().await;
    let answer = ask(&url, Method::POST, "/model/m/v1/messages?beta=true&%6bey=attacker").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut pieces = answer.into_body().into_data_stream();
    let limit = Duration::from_secs(20);
    // The first piece is here while the server still holds the second back.
    let first = tokio::time::timeout(limit, pieces.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first, "data: one\n\n");
    go.notify_one();
    let second = tokio::time::timeout(limit, pieces.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(second, "data: two\n\n");
    let seen = seen.lock().unwrap();
    let (target, headers) = &seen[0];
    assert_eq!(target, "/base/v1/messages?beta=true");
    assert_eq!(headers["x-api-key"], "the-key-of-the-worker");
    assert!(headers.get("authorization").is_none() && headers.get_all("x-api-key").iter().count() == 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_headers_stay_here() {
    let (url, seen, _) = upstream().await;
    let answer = ask(&url, Method::GET, "/model/m/v1/models").await;
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert!(answer.headers().get("location").is_none() && answer.headers().get("set-cookie").is_none());
    assert_eq!(seen.lock().unwrap().len(), 1);
    for (method, target, status) in [
        (Method::GET, "/model/m/v1/files", StatusCode::FORBIDDEN),
        (Method::GET, "/model/other/v1/models", StatusCode::NOT_FOUND),
        (Method::DELETE, "/model/m/v1/models", StatusCode::FORBIDDEN),
        (Method::GET, "/model/m/v1/%6dodels", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(ask(&url, method, target).await.status(), status, "{target}");
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}
