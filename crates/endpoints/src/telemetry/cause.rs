//! The job and the trace behind a measurement, for exemplars.

use async_endpoints_core::{JobId, job::TraceContext};
use async_endpoints_telemetry::ExemplarLabels;

#[derive(Copy, Clone, Debug)]
pub(crate) struct Cause {
    job: JobId,
    span: Option<SpanRef>,
}

/// Trace and span id in hexadecimal digits.
#[derive(Copy, Clone, Debug)]
struct SpanRef {
    trace: [u8; 32],
    span: [u8; 16],
}

impl Cause {
    pub(crate) fn new(job: JobId, trace: Option<&TraceContext>) -> Self {
        Self { job, span: trace.and_then(|trace| SpanRef::parse(&trace.traceparent)) }
    }

    pub(crate) fn labels(&self) -> ExemplarLabels {
        let text = |hex: &[u8]| String::from_utf8_lossy(hex).into_owned();
        let span = self.span.map(|span| [("trace_id", text(&span.trace)), ("span_id", text(&span.span))]);
        span.into_iter().flatten().chain([("job_id", self.job.to_string())]).collect()
    }
}

impl SpanRef {
    fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.as_bytes();
        let (trace, span) = (text.get(3..35)?, text.get(36..52)?);
        let is_hex = trace.iter().chain(span).all(u8::is_ascii_hexdigit);
        is_hex.then_some(Self { trace: trace.try_into().ok()?, span: span.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_into_an_exemplar() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        let labels = Cause::new(JobId::random(), Some(&TraceContext { traceparent, tracestate: None })).labels();
        assert_eq!(labels[0], ("trace_id", "0af7651916cd43dd8448eb211c80319c".to_owned()));
        assert_eq!(labels[1], ("span_id", "b7ad6b7169203331".to_owned()));
        let length: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(length <= 128, "{labels:?}");
        assert!(SpanRef::parse("00-").is_none());
    }
}
