//! Spans, and their contexts in headers and environment variables.

#[cfg(feature = "reqwest")]
mod client;
mod extract;
mod ids;
mod inject;
#[cfg(any(feature = "console", feature = "otlp"))]
mod redact;
#[cfg(feature = "sdk")]
mod sampler;
mod tracing;
mod w3c;

pub use opentelemetry::{Context, TraceId};

#[cfg(feature = "reqwest")]
pub use self::client::inject_request;
#[cfg(any(feature = "console", feature = "otlp"))]
pub(crate) use self::redact::RedactSpans;
#[cfg(feature = "sdk")]
pub use self::sampler::LinkedSampler;
pub use self::{
    extract::extract_headers,
    inject::{inject_headers, trace_env},
    tracing::Tracing,
    w3c::{context_of, remote_context, remote_span, traceparent, tracestate},
};
