//! One request over plain HTTP: a new connection, a clean head, the body within the limits. Follows no redirect, reuses no connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::budget::{Budget, Direction};
use super::{Body, No, Proxy};
use crate::grant::egress::{Allowed, Refusal, Rule, Way};

/// What belongs to one connection, what says who asks and through whom, and what says another method than the one that was allowed: not sent
/// on, in neither direction.
const NOT_PASSED: [HeaderName; 17] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

impl Proxy {
    /// Sends a request in absolute form on, once it is allowed.
    pub(super) async fn forward(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, No> {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        let (Some("http"), Some(authority)) = (parts.uri.scheme_str(), &authority) else {
            let said = self
                .egress
                .decide(authority.as_deref().unwrap_or_default(), Way::Tunnel);
            let (host, port) = said.map_or_else(|no| (no.host, no.port), |yes| (yes.host.to_string(), yes.port));
            return Err(No::Refused(Refusal {
                rule: Rule::Scheme,
                host,
                port,
                message:
                    "this is a proxy: it takes CONNECT for https, and requests for http:// addresses in absolute form."
                        .to_owned(),
            }));
        };
        let allowed = self
            .egress
            .decide(authority, Way::Plain(parts.method.as_str()))
            .map_err(No::Refused)?;
        let no = |rule, message| {
            Err(No::Refused(Refusal {
                rule,
                host: allowed.host.to_string(),
                port: allowed.port,
                message,
            }))
        };
        if allowed.reads && !body.is_end_stream() {
            return no(
                Rule::Method,
                format!("{} may only be read: a request has no body.", allowed.host),
            );
        }
        let budget = self.budget(&allowed)?;
        if budget.is_spent(Direction::Up, body.size_hint().lower()) {
            return no(
                Rule::UploadLimit,
                super::over(Direction::Up, &allowed.host, &self.config),
            );
        }
        let upstream = self.dial(&allowed).await?;
        if parts.headers.contains_key(header::TRANSFER_ENCODING) {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        clean(&mut parts.headers);
        parts.headers.insert(header::HOST, host_header(&allowed)?);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // A secret fits a path or a header as well as a body.
        let head = parts.method.as_str().len() + path.len() + head_size(&parts.headers);
        if !budget.take(Direction::Up, head) {
            return no(
                Rule::UploadLimit,
                super::over(Direction::Up, &allowed.host, &self.config),
            );
        }
        parts.uri = path
            .parse::<Uri>()
            .map_err(|_| No::failed("the path of the request is unreadable".to_owned()))?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();

        let over = Arc::new(AtomicBool::new(false));
        let sent: Body = if body.is_end_stream() {
            Empty::new().map_err(|never| match never {}).boxed_unsync()
        } else {
            let metered = self
                .clone()
                .metered(body, Direction::Up, &allowed, &budget, over.clone(), None);
            StreamBody::new(metered).boxed_unsync()
        };
        // An upload may take long; without a byte it ends by itself.
        let wait = Duration::from_secs(if sent.is_end_stream() {
            self.config.idle_timeout_s
        } else {
            self.config.total_timeout_s
        });
        let asked = async {
            let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
                .max_buf_size(128 * 1024)
                .handshake::<_, Body>(TokioIo::new(upstream))
                .await
                .ok()?;
            let connection = AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection out of a sandbox ended early");
                }
            }));
            let answer = sender.send_request(Request::from_parts(parts, sent)).await.ok()?;
            Some((answer, connection))
        };
        let answered = tokio::time::timeout(wait, asked).await.ok().flatten();
        let Some((answer, connection)) = answered else {
            if over.load(Ordering::Acquire) {
                return Err(No::Told(Refusal {
                    rule: Rule::UploadLimit,
                    host: allowed.host.to_string(),
                    port: allowed.port,
                    message: super::over(Direction::Up, &allowed.host, &self.config),
                }));
            }
            return Err(No::failed(format!("{} gave no answer that is HTTP", allowed.host)));
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(No::failed(format!("{} changed the protocol unasked", allowed.host)));
        }
        let (mut parts, body) = answer.into_parts();
        clean(&mut parts.headers);
        if !budget.take(Direction::Down, head_size(&parts.headers)) {
            return no(
                Rule::DownloadLimit,
                super::over(Direction::Down, &allowed.host, &self.config),
            );
        }
        parts.extensions.clear();
        parts.version = Version::HTTP_11;
        let metered = self
            .clone()
            .metered(body, Direction::Down, &allowed, &budget, over, Some(connection));
        Ok(Response::from_parts(parts, StreamBody::new(metered).boxed_unsync()))
    }

    /// A body that is counted, ends at the limit, and does not wait for ever. Holds its connection, where it is given one.
    fn metered(
        self: Arc<Self>,
        body: Incoming,
        direction: Direction,
        allowed: &Allowed,
        budget: &Arc<Budget>,
        over: Arc<AtomicBool>,
        connection: Option<AbortOnDropHandle<()>>,
    ) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + use<> {
        let (allowed, budget) = (allowed.clone(), budget.clone());
        let state = (self, body, connection);
        futures::stream::try_unfold(state, move |(proxy, mut body, connection)| {
            let (allowed, budget, over) = (allowed.clone(), budget.clone(), over.clone());
            async move {
                let idle = Duration::from_secs(proxy.config.idle_timeout_s);
                let bytes = loop {
                    let frame = match tokio::time::timeout(idle, body.frame()).await {
                        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
                        Ok(None) => return Ok(None),
                        Ok(Some(Err(error))) => return Err(std::io::Error::other(error)),
                        Ok(Some(Ok(frame))) => frame,
                    };
                    // Trailers belong to one connection.
                    if let Ok(bytes) = frame.into_data() {
                        break bytes;
                    }
                };
                if !budget.take(direction, bytes.len()) {
                    over.store(true, Ordering::Release);
                    let refusal = Refusal {
                        rule: direction.rule(),
                        host: allowed.host.to_string(),
                        port: allowed.port,
                        message: super::over(direction, &allowed.host, &proxy.config),
                    };
                    proxy.refused(&refusal).await;
                    return Err(std::io::Error::other(refusal.message));
                }
                proxy.metrics.gateway.egress_bytes(direction.as_str(), bytes.len());
                Ok(Some((Frame::data(bytes), (proxy, body, connection))))
            }
        })
    }
}

/// Bytes of a head as it is written, without what its first line says.
fn head_size(headers: &HeaderMap) -> usize {
    let each = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.iter().map(each).sum::<usize>() + 16
}

/// Drops what must not go on, with what the head itself says belongs to one connection.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Framing is not the client's to drop.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    let forwarded: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded-"))
        .cloned()
        .collect();
    for name in NOT_PASSED.iter().chain(&named).chain(&forwarded) {
        headers.remove(name);
    }
}

/// The host that was decided about, whatever the client's own header says.
fn host_header(allowed: &Allowed) -> Result<HeaderValue, No> {
    let text = if allowed.port == 80 {
        allowed.host.to_string()
    } else {
        format!("{}:{}", allowed.host, allowed.port)
    };
    HeaderValue::from_str(&text).map_err(|_| No::failed("the host is unreadable".to_owned()))
}
