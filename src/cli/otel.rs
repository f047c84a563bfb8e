//! Traces of sessions for OpenTelemetry: spans leave by OTLP over HTTP, as JSON, to where `OTEL_EXPORTER_OTLP_ENDPOINT` (or its twin for
//! traces) says; without either nothing leaves.
//!
//! Only this program's own spans go, and no event of the log: ids, stages, names of operations and statuses are in them, and no text of a
//! session. Everything else about the exporter (headers, time limit, sampling) is set by OpenTelemetry's own variables.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// Time limit of one answer of the collector.
const LIMIT: Duration = Duration::from_secs(10);
/// Where traces go to, in the order in which the exporter looks.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Keeps the exporter; what it still has goes out when this is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Tracing(SdkTracerProvider);

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// The layer over `below` that makes spans of OpenTelemetry, where an endpoint is named. Needs a running tokio.
///
/// # Errors
/// The endpoint cannot be used.
pub(in crate::cli) fn layer<S>(_below: &S) -> Result<Option<(impl Layer<S> + use<S>, Tracing)>, String>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !ENDPOINTS.into_iter().any(is_set) {
        return Ok(None);
    }
    let client = Client {
        // A collector that sends elsewhere would send the headers there, too.
        client: reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .build()
            .map_err(|error| error.to_string())?,
        runtime: Handle::current(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpJson)
        .build()
        .map_err(|error| error.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("cofferdam").build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("cofferdam"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter::filter_fn(is_own));
    Ok(Some((layer, Tracing(provider))))
}

fn is_own(about: &Metadata<'_>) -> bool {
    about.is_span() && about.target().split("::").next() == Some("cofferdam")
}

/// Sends on the worker's runtime: the exporter has a thread of its own, in which there is none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let status = answer.status();
            // What a collector says beside its status is not needed, and not read without a bound.
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            Ok::<_, reqwest::Error>(response)
        });
        Ok(sent.await??)
    }
}
