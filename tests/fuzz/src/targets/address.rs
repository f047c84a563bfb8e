//! Addresses: those that people paste, those that forges name, and those in the headers of answers.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use cofferdam::fuzzing::forge;
use url::Url;

use crate::judge::parts;

const SECRET: &str = "very-secret-0001";

/// An address, or two halves of one, around a secret.
pub fn pasted(data: &[u8]) {
    let parts = parts(data);
    let text = parts[0].as_str();
    for allow_http in [false, true] {
        match forge::canonical(text, allow_http) {
            Ok(address) => {
                assert_eq!(forge::canonical(&address, allow_http).as_deref(), Ok(address.as_str()));
                let url = Url::parse(&address).expect("canonical");
                assert!(url.scheme() == "https" || allow_http && url.scheme() == "http");
                assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
                assert!(
                    !address.contains(['@', '?', '#', ' ', '\\', '%']) && !address.ends_with('/'),
                    "{address:?}"
                );
            }
            Err(error) => assert!(error.len() < 4_000),
        }
    }
    let after = parts.get(1).map_or("", String::as_str);
    for whole in [
        format!("{text}{SECRET}{after}@h.example/x"),
        format!("https://u:{SECRET}{text}@{after}"),
        format!("https://h.example/{text}?{after}={SECRET}"),
        format!("https://h.example/{text}#{after}{SECRET}"),
    ] {
        match forge::canonical(&whole, true) {
            Ok(address) => assert!(!address.contains(SECRET), "{address:?} of {whole:?}"),
            Err(error) => assert!(!error.contains(SECRET), "{error:?} of {whole:?}"),
        }
    }
}

/// An address that a forge names for a project: the token goes there.
pub fn named(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let allowed = ["https://h.example/sub".to_owned(), "https://git.example".to_owned()];
    for (allowed, only) in [(&allowed[..], true), (&[], false)] {
        let Some(address) = forge::clone_url(text, allowed) else {
            continue;
        };
        let url = Url::parse(&address).expect("an address");
        assert!(url.scheme() == "https" && url.username().is_empty() && url.password().is_none());
        assert!(url.query().is_none() && url.fragment().is_none());
        let below =
            |host, path: &str| url.host_str() == Some(host) && url.port().is_none() && url.path().starts_with(path);
        assert!(
            !only || below("h.example", "/sub/") || below("git.example", "/"),
            "{address}"
        );
    }
}

/// Headers of an answer, a line each.
pub fn headers(data: &[u8]) {
    let headers = read(data);
    let (wait, left) = forge::pace(&headers);
    assert!(left.is_none_or(|left| left <= 100) && wait.is_none_or(|wait| wait.as_secs() <= 7 * 24 * 3600));
    let Some((next, redirect)) = forge::next(&headers) else {
        return;
    };
    for url in [next.as_ref().ok().and_then(Option::as_ref), redirect.as_ref().ok()]
        .into_iter()
        .flatten()
    {
        assert!(
            url.scheme() == "https" && url.host_str() == Some("h.example") && url.port().is_none(),
            "{url}"
        );
        assert!(
            url.path().starts_with("/sub/api/v4/") && !url.path().contains("/../"),
            "{url}"
        );
        assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    }
    for error in [next.err(), redirect.err()].into_iter().flatten() {
        assert!(error.len() < 2_000 && !error.contains('?'), "{error}");
    }
}

pub fn read(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(100) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).unwrap_or(axum::http::header::LINK);
        if let Ok(value) = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii()) {
            headers.append(name, value);
        }
    }
    headers
}
