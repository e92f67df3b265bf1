//! The sampler that keeps both halves of a job.

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind, TraceContextExt, TraceState},
};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Samples a root span with links if a linked span was sampled, for spans of kind CONSUMER or CLIENT. Another sampler
/// decides on all other spans.
///
/// Without it, a ratio of traces would often contain the producer's half of a message without the consumer's.
#[derive(Clone, Debug)]
pub struct LinkedSampler<S>(S);

impl<S: ShouldSample> LinkedSampler<S> {
    /// Asks `others` about all other spans.
    pub const fn new(others: S) -> Self {
        Self(others)
    }
}

impl<S: ShouldSample + Clone + 'static> ShouldSample for LinkedSampler<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_root = !parent.is_some_and(|parent| parent.span().span_context().is_valid());
        if !is_root || links.is_empty() || !matches!(kind, SpanKind::Consumer | SpanKind::Client) {
            return self.0.should_sample(parent, trace_id, name, kind, attributes, links);
        }
        let decision = match links.iter().any(|link| link.span_context.is_sampled()) {
            true => SamplingDecision::RecordAndSample,
            false => SamplingDecision::Drop,
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::Sampler;

    use super::*;
    use crate::trace::remote_context;

    fn decide(others: Sampler, kind: &SpanKind, flags: &str, parent: Option<&Context>) -> SamplingDecision {
        let linked = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let linked = remote_context(&linked, None).expect("a context").span().span_context().clone();
        let links = [Link::with_context(linked)];
        LinkedSampler::new(others).should_sample(parent, TraceId::from(1), "process", kind, &[], &links).decision
    }

    #[test]
    fn linked_root_follows_its_links() {
        use SamplingDecision::{Drop, RecordAndSample};
        assert_eq!(decide(Sampler::AlwaysOff, &SpanKind::Consumer, "01", None), RecordAndSample);
        assert_eq!(decide(Sampler::AlwaysOn, &SpanKind::Consumer, "02", None), Drop);
        assert_eq!(decide(Sampler::AlwaysOn, &SpanKind::Internal, "00", None), RecordAndSample);
        let parent = remote_context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", None);
        assert_eq!(decide(Sampler::AlwaysOn, &SpanKind::Consumer, "00", parent.as_ref()), RecordAndSample);
    }
}
