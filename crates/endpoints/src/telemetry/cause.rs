//! The job and the span behind a measurement, for exemplars.

use async_endpoints_core::{JobId, job::TraceContext};
use async_endpoints_telemetry::{
    ExemplarLabels,
    opentelemetry::{Context, SpanId, TraceId, trace::TraceContextExt},
};

use super::scope;

#[derive(Copy, Clone, Debug)]
pub(crate) struct Cause {
    job: JobId,
    trace: TraceId,
    span: SpanId,
}

impl Cause {
    /// A job and the span of one of its attempts.
    pub(crate) fn new(job: JobId, context: &Context) -> Self {
        let span = context.span();
        Self { job, trace: span.span_context().trace_id(), span: span.span_context().span_id() }
    }

    /// A job and the span of its submission.
    pub(crate) fn submitted(job: JobId, trace: Option<&TraceContext>) -> Self {
        Self::new(job, &trace.map(scope::remote).unwrap_or_default())
    }

    pub(crate) fn labels(&self) -> ExemplarLabels {
        let is_known = self.trace != TraceId::INVALID;
        let span = is_known.then(|| [("trace_id", self.trace.to_string()), ("span_id", self.span.to_string())]);
        span.into_iter().flatten().chain([("job_id", self.job.to_string())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_into_an_exemplar() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().expect("a traceparent");
        let labels = Cause::submitted(JobId::random(), Some(&TraceContext { traceparent, tracestate: None })).labels();
        assert_eq!(labels[0], ("trace_id", "0af7651916cd43dd8448eb211c80319c".to_owned()));
        assert_eq!(labels[1], ("span_id", "b7ad6b7169203331".to_owned()));
        let length: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(length <= 128, "{labels:?}");
        assert_eq!(Cause::submitted(JobId::random(), None).labels().len(), 1);
    }
}
