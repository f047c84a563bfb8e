//! The span of a session: every line that is logged in it bears the session's id, and the trace's where there is one. With the feature `otel` it
//! is a span of that trace, and the events of the session are its children.
//!
//! Exports nothing: what becomes of spans is decided where the log is set up.

use tracing::Span;
use tracing::field::Empty;

use crate::message::{SessionId, TraceParent};

/// The span. At the highest level, so that no filter of lines takes the ids away.
pub(super) fn span(session: SessionId, trace: Option<TraceParent>) -> Span {
    let span = tracing::error_span!("session", %session, trace_id = Empty);
    #[cfg(feature = "otel")]
    otel::begin(&span, trace);
    if let Some(trace) = outgoing_of(&span, trace) {
        span.record("trace_id", trace.trace_id());
    }
    span
}

/// What the events of the session whose span is entered are told to be part of.
pub(super) fn outgoing(incoming: Option<TraceParent>) -> Option<TraceParent> {
    outgoing_of(&Span::current(), incoming)
}

/// Without the feature what came is passed on.
#[cfg(not(feature = "otel"))]
fn outgoing_of(_: &Span, incoming: Option<TraceParent>) -> Option<TraceParent> {
    incoming
}

#[cfg(feature = "otel")]
use otel::outgoing_of;

#[cfg(feature = "otel")]
mod otel {
    //! The same as a span of OpenTelemetry, where spans are exported at all.

    use opentelemetry::Context;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use crate::message::TraceParent;

    /// Makes it a child of what came with the task.
    pub(super) fn begin(span: &Span, incoming: Option<TraceParent>) {
        let Some(trace) = incoming else { return };
        let remote = SpanContext::new(
            TraceId::from_bytes(trace.trace),
            SpanId::from_bytes(trace.span),
            TraceFlags::new(trace.flags),
            true,
            TraceState::default(),
        );
        // Where no spans are exported there is nothing to set.
        let _ = span.set_parent(Context::new().with_remote_span_context(remote));
    }

    pub(super) fn outgoing_of(span: &Span, incoming: Option<TraceParent>) -> Option<TraceParent> {
        let context = span.context();
        let own = context.span().span_context().clone();
        let own = own.is_valid().then(|| TraceParent {
            trace: own.trace_id().to_bytes(),
            span: own.span_id().to_bytes(),
            flags: own.trace_flags().to_u8(),
        });
        own.or(incoming)
    }
}
