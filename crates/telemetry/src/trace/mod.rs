//! Spans, and their contexts in headers and environment variables.

#[cfg(feature = "reqwest")]
mod client;
mod extract;
mod inject;
#[cfg(any(feature = "console", feature = "otlp"))]
mod redact;
mod sampler;
mod tracing;
mod w3c;

pub use opentelemetry::{Context, TraceId};

#[cfg(feature = "reqwest")]
pub use self::client::inject_request;
#[cfg(any(feature = "console", feature = "otlp"))]
pub(crate) use self::redact::RedactSpans;
pub use self::{
    extract::extract_headers,
    inject::{inject_headers, trace_env},
    sampler::LinkedSampler,
    tracing::Tracing,
    w3c::{context_of, remote_context, remote_span, traceparent, tracestate},
};
