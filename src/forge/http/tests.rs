//! Tests of the request path against scripted servers: what a hostile or broken forge can do to a client.

mod rates;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::forge::fake::{Fake, Reply, TOKEN, client, client_of, client_with, path};
use crate::forge::{ChangeRequestText, Forge, ProjectFacts};

const GITLAB: ForgeKind = ForgeKind::Gitlab;

fn project_body() -> serde_json::Value {
    json!({"id": 7, "path_with_namespace": "a/b", "default_branch": "main", "web_url": "https://h/a/b",
           "permissions": {"project_access": {"access_level": 40}, "group_access": null}})
}

fn text() -> ChangeRequestText {
    ChangeRequestText {
        title: "Fix it".to_owned(),
        description: "Why".to_owned(),
        draft: false,
    }
}

async fn open(forge: &dyn Forge, project: &ProjectFacts) -> Result<crate::forge::Opened, ForgeError> {
    let (source, target) = ("f".parse().unwrap(), "main".parse().unwrap());
    forge
        .open_change_request(project, (&source, &target), &text(), false)
        .await
}

fn facts() -> ProjectFacts {
    ProjectFacts {
        id: "7".to_owned(),
        path: path("a/b"),
        default_branch: None,
        clone_url: String::new(),
        web_url: String::new(),
        may_push: true,
        archived: false,
        visibility: crate::forge::Visibility::Private,
    }
}

#[tokio::test]
async fn the_token_goes_in_a_header_and_never_in_the_address() {
    let fake = Fake::start(|_, _| Reply::json(200, &project_body())).await;
    client(GITLAB, &fake.url).project(&path("a/b")).await.unwrap();
    client(ForgeKind::Github, &fake.url)
        .project(&path("a/b"))
        .await
        .unwrap_err();
    let seen = fake.seen();
    assert_eq!(seen[0].target, "/api/v4/projects/a%2Fb");
    assert_eq!(seen[0].headers["private-token"], TOKEN);
    assert_eq!(seen[1].target, "/api/v3/repos/a/b");
    assert_eq!(seen[1].headers["authorization"], format!("Bearer {TOKEN}").as_str());
    assert_eq!(seen[1].headers["x-github-api-version"], "2022-11-28");
    for request in seen {
        assert!(
            request.headers["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("cofferdam/")
        );
        assert!(!request.target.contains(TOKEN));
    }
}

#[tokio::test]
async fn a_redirect_to_another_place_is_refused_and_gets_no_token() {
    let other = Fake::start(|_, _| Reply::json(200, &project_body())).await;
    let location = format!("{}/api/v4/projects/7", other.url);
    let fake = Fake::start(move |_, _| Reply::text(301, "moved").with("location", location.clone())).await;
    let error = client(GITLAB, &fake.url).project(&path("a/b")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Answer { .. }), "{error}");
    assert!(error.to_string().contains(&other.url), "{error}");
    assert!(other.seen().is_empty());
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_inside_the_api_is_followed_but_not_in_a_circle() {
    let fake = Fake::start(|seen, _| match seen.target.as_str() {
        "/api/v4/projects/7" => Reply::json(200, &project_body()),
        "/api/v4/projects/old%2Fname" => Reply::text(301, "").with("location", "/api/v4/projects/7"),
        other => Reply::text(302, "").with("location", other),
    })
    .await;
    let forge = client(GITLAB, &fake.url);
    assert_eq!(forge.project(&path("old/name")).await.unwrap().path.as_str(), "a/b");
    let error = forge.project(&path("a/circle")).await.unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
    assert!(fake.seen().len() <= 2 + 1 + MOST_REDIRECTS);
}

#[tokio::test]
async fn a_write_is_not_redirected() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => Reply::text(307, "").with("location", "/api/v4/projects/8/merge_requests"),
    })
    .await;
    let error = open(client(GITLAB, &fake.url).as_ref(), &facts()).await.unwrap_err();
    assert!(matches!(error, ForgeError::Answer { .. }), "{error}");
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn pages_are_followed_at_our_own_address_only() {
    let other = Fake::start(|_, _| Reply::json(200, &json!([]))).await;
    let foreign = format!("<{}/api/v4/projects/7/merge_requests?page=2>; rel=\"next\"", other.url);
    let fake = Fake::start(move |seen, _| {
        if seen.method == "POST" {
            return Reply::text(403, "");
        }
        let page = Reply::json(200, &json!([]));
        if seen.target.contains("page=2") {
            page
        } else {
            page.with("link", foreign.clone())
        }
    })
    .await;
    open(client(GITLAB, &fake.url).as_ref(), &facts()).await.unwrap_err();
    assert!(other.seen().is_empty());
    assert!(
        fake.seen()[1].target.ends_with("merge_requests?page=2"),
        "{:?}",
        fake.lines()
    );
    assert_eq!(fake.seen()[1].headers["private-token"], TOKEN);
}

#[tokio::test]
async fn paging_to_a_foreign_place_is_refused() {
    let other = Fake::start(|_, _| Reply::json(200, &json!([]))).await;
    let foreign = format!("<{}/steal?page=2>; rel=\"next\"", other.url);
    let fake = Fake::start(move |_, _| Reply::json(200, &json!([])).with("link", foreign.clone())).await;
    let error = open(client(GITLAB, &fake.url).as_ref(), &facts()).await.unwrap_err();
    assert!(error.to_string().contains("next page"), "{error}");
    assert!(other.seen().is_empty());
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn endless_paging_ends() {
    let fake = Fake::start(|_, _| {
        Reply::json(200, &json!([])).with("link", "</api/v4/projects/7/merge_requests?page=2>; rel=next")
    })
    .await;
    let error = open(client(GITLAB, &fake.url).as_ref(), &facts()).await.unwrap_err();
    assert!(matches!(error, ForgeError::Answer { .. }), "{error}");
    assert_eq!(fake.seen().len(), MOST_PAGES);
}

#[tokio::test]
async fn oversized_answers_are_not_read() {
    let mut body = project_body();
    body["description"] = json!("x".repeat(5000));
    let fake = Fake::start(move |_, _| Reply::json(200, &body)).await;
    let (forge, _) = client_with(GITLAB, &fake.url, 4096);
    let error = forge.project(&path("a/b")).await.unwrap_err();
    assert!(error.to_string().contains("4096 bytes"), "{error}");
    assert_eq!(fake.seen().len(), 1);
    let (forge, _) = client_with(GITLAB, &fake.url, 1 << 16);
    assert!(forge.project(&path("a/b")).await.is_ok());
}

#[tokio::test]
async fn endless_error_pages_keep_their_meaning() {
    let fake = Fake::start(|_, _| Reply::text(404, &"x".repeat(1_000_000))).await;
    let (forge, _) = client_with(GITLAB, &fake.url, 4096);
    let error = forge.project(&path("a/b")).await.unwrap_err();
    assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn broken_bodies_are_errors_that_say_so() {
    for (body, expected) in [
        (r#"{"id": 7, "path_with_namespace": "a/"#, "EOF"),
        (r#"{"id": "seven", "path_with_namespace": "a/b"}"#, "at id"),
        (r#"{"id": 7, "path_with_namespace": "../b"}"#, "project path"),
        (
            "<html><title>Sign in</title>",
            "an HTML page titled \"Sign in\" instead of JSON",
        ),
        ("", "EOF"),
        ("null", "invalid type"),
    ] {
        let fake = Fake::start(move |_, _| Reply::text(200, body)).await;
        let error = client(GITLAB, &fake.url).project(&path("a/b")).await.unwrap_err();
        assert!(matches!(error, ForgeError::Answer { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(
            fake.seen().len(),
            1,
            "an answer that was read whole is not asked for again"
        );
    }
}

#[tokio::test]
async fn pitfall_11_no_error_holds_the_token_or_floods() {
    for status in [400, 401, 403, 404, 409, 418, 422] {
        let body = format!("{TOKEN} {}\u{1b}[31m {TOKEN}", "x".repeat(280));
        let fake = Fake::start(move |_, _| Reply::json(status, &json!({"message": body}))).await;
        for kind in [GITLAB, ForgeKind::Github] {
            let error = client(kind, &fake.url)
                .project(&path("a/b"))
                .await
                .unwrap_err()
                .to_string();
            assert!(!error.contains("0123456789") && !error.contains('\u{1b}'), "{error}");
            assert!(error.chars().count() < 600, "{error}");
        }
    }
}

#[tokio::test]
async fn reads_survive_a_forge_that_stumbles() {
    let fake = Fake::start(|_, before| match before {
        0 => Reply::text(502, "<html><title>502 Bad Gateway</title>"),
        1 => Reply::text(429, "Retry later\n"),
        2 => Reply::text(429, "Retry later\n").with("retry-after", "0"),
        _ => Reply::json(200, &project_body()),
    })
    .await;
    let (forge, counter) = client_with(GITLAB, &fake.url, 1 << 20);
    forge.project(&path("a/b")).await.unwrap();
    let counted = counter.0.lock().unwrap().clone();
    assert_eq!(
        counted,
        [("project", 502), ("project", 429), ("project", 429), ("project", 200)]
    );
}

#[tokio::test]
async fn a_forge_that_stays_down_is_unavailable_and_a_long_limit_is_reported_at_once() {
    let fake = Fake::start(|_, _| Reply::text(503, "<html><title>Down for maintenance</title>")).await;
    let error = client(GITLAB, &fake.url).project(&path("a/b")).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::Unavailable { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("HTTP 503: an HTML page titled \"Down for maintenance\""),
        "{error}"
    );
    assert_eq!(fake.seen().len(), 6);

    let fake = Fake::start(|_, _| Reply::text(429, "Retry later\n").with("retry-after", "120")).await;
    let error = client(GITLAB, &fake.url).project(&path("a/b")).await.unwrap_err();
    assert!(error.to_string().contains("wait 120 s"), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn writes_are_not_repeated() {
    for (status, transient) in [(500, true), (502, true), (429, true), (403, false)] {
        let fake = Fake::start(move |seen, _| match seen.method.as_str() {
            "GET" => Reply::json(200, &json!([])),
            _ => Reply::text(status, "no"),
        })
        .await;
        let error = open(client(GITLAB, &fake.url).as_ref(), &facts()).await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{error}");
        assert_eq!(
            fake.lines().iter().filter(|line| line.starts_with("POST")).count(),
            1,
            "{status}"
        );
    }
}

/// A raw server: gives each connection the number of those before it, and writes what the script says, then closes.
async fn raw<B: AsRef<[u8]> + Send + Sync + 'static>(
    script: fn(usize) -> B,
) -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 16 * 1024];
            let _ = stream.read(&mut buffer).await;
            let before = counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(script(before).as_ref()).await;
        }
    });
    (url, count, task)
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again_but_never_written_again() {
    let (url, count, task) = raw(|before| match before {
        0 => "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"id\": 7,",
        1 => "",
        2 => "garbage\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 40\r\nconnection: close\r\n\r\n{\"id\":7,\"path_with_namespace\":\"a/b\"}    ",
    })
    .await;
    assert_eq!(client(GITLAB, &url).project(&path("a/b")).await.unwrap().id, "7");
    assert_eq!(count.load(Ordering::SeqCst), 4);
    task.abort();

    let (url, count, task) = raw(|before| match before {
        0 => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]",
        _ => "",
    })
    .await;
    let error = open(client(GITLAB, &url).as_ref(), &facts()).await.unwrap_err();
    assert!(matches!(error, ForgeError::Unavailable { .. }), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    task.abort();
}

#[tokio::test]
async fn bytes_that_are_no_text_are_an_error_like_any_other() {
    for (status, expected) in [("200 OK", "not understood"), ("403 Forbidden", "refused to")] {
        let (url, count, task) = if status == "200 OK" {
            raw(|_| {
                b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"id\":7,\"path_with_namespace\":\"a/\xff\xfe\"}"
                    .as_slice()
            })
            .await
        } else {
            raw(|_| b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n\xff\xfe\x00".as_slice()).await
        };
        let error = client(GITLAB, &url).project(&path("a/b")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(count.load(Ordering::SeqCst), 1);
        task.abort();
    }
}

#[tokio::test]
async fn refused_connections_are_tried_again_even_for_writes() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let (forge, counter) = client_with(GITLAB, &url, 1 << 20);
    let error = forge.change_request(&facts(), 1, Some("text")).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::Unavailable { .. }) && error.is_transient(),
        "{error}"
    );
    let counted = counter.0.lock().unwrap().clone();
    assert_eq!(counted, vec![("change_request_update", 0); 6]);
}

#[tokio::test]
async fn a_server_without_tls_is_not_asked_twice() {
    let (url, count, task) = raw(|_| "HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let error = client(GITLAB, &url.replace("http://", "https://"))
        .project(&path("a/b"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("forge.ca_file"), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    task.abort();
}

#[tokio::test]
async fn a_forge_that_never_answers_does_not_hold_the_caller() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = crate::forge::Config {
        allow_http: true,
        request_timeout_s: 1,
        ..crate::forge::Config::default()
    };
    let pace = Pace {
        total: Duration::from_millis(200),
        first: Duration::from_millis(2),
        settling: Duration::ZERO,
        between_writes: Some(Duration::ZERO),
    };
    let (forge, counter) = client_of(GITLAB, &url, config, pace);
    let error = forge.project(&path("a/b")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Unavailable { .. }), "{error}");
    assert_eq!(counter.0.lock().unwrap().as_slice(), [("project", 0)]);
    drop(listener);
}

#[tokio::test]
async fn an_address_without_the_api_is_named_as_such() {
    let fake = Fake::start(|_, _| Reply::text(404, "<html><title>Not here</title>")).await;
    for kind in [GITLAB, ForgeKind::Github] {
        let error = client(kind, &fake.url).token().await.unwrap_err();
        assert!(error.to_string().contains("check the address"), "{error}");
    }
}
