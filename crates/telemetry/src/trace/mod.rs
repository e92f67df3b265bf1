//! Spans, and their contexts in headers and environment variables.

mod inject;
mod sampler;
mod tracing;
mod w3c;

pub use self::{
    inject::{inject_headers, trace_env},
    sampler::LinkedSampler,
    tracing::Tracing,
    w3c::{remote_context, traceparent, tracestate},
};
