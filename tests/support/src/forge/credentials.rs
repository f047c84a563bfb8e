//! Finding the token in a request and the person behind it. Never logs a value.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Forge;
use super::seed::Side;
use super::state::Caller;

/// What a request showed, and what it is worth.
pub(crate) enum Presented {
    /// No credential.
    Nothing,
    /// A value that this forge does not know.
    Unknown,
    /// A token past its date.
    Expired(String),
    /// A revoked token.
    Revoked(String),
    /// A live token.
    Alive(Box<Caller>),
}

/// User name and password of HTTP Basic.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The value after `Bearer`, or GitHub's older `token`.
fn bearer(headers: &HeaderMap, side: Side) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || (side == Side::Github && scheme.eq_ignore_ascii_case("token"));
    known.then(|| token.trim().to_owned())
}

/// The value that a request shows as its credential.
fn value(side: Side, headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let plain = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned)
    };
    if side == Side::Gitlab {
        if let Some(value) = plain("private-token") {
            return Some(value);
        }
        if let Some(value) = query.and_then(|query| super::parameters::find(query, "private_token")) {
            return Some(value);
        }
    }
    if let Some(value) = bearer(headers, side) {
        return Some(value);
    }
    let (user, password) = basic(headers)?;
    // GitHub also takes the token as the user name.
    let as_user = side == Side::Github && (password.is_empty() || password == "x-oauth-basic");
    Some(if as_user { user } else { password })
}

/// Judges the credential of a request.
pub(crate) fn presented(forge: &Forge, side: Side, headers: &HeaderMap, query: Option<&str>) -> Presented {
    // For CI jobs only, which are not played: a token of another kind in it is worth nothing.
    if side == Side::Gitlab && headers.contains_key("job-token") {
        return Presented::Unknown;
    }
    let Some(value) = value(side, headers, query) else {
        return if headers.contains_key(AUTHORIZATION) {
            Presented::Unknown
        } else {
            Presented::Nothing
        };
    };
    let world = forge.world();
    let Some(token) = world.token(side, &value) else {
        return Presented::Unknown;
    };
    if token.revoked {
        return Presented::Revoked(token.name.clone());
    }
    if token.expired() {
        return Presented::Expired(token.name.clone());
    }
    match world.user(token.user) {
        Some(user) => Presented::Alive(Box::new(Caller {
            user: user.clone(),
            token: token.clone(),
        })),
        None => Presented::Unknown,
    }
}
