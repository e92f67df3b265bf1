//! Starts spans.

use std::{fmt, sync::Arc};

use opentelemetry::{
    Context, InstrumentationScope, TraceFlags, TraceId,
    global::{BoxedTracer, ObjectSafeTracer},
    trace::{Link, SpanBuilder, SpanContext, TraceContextExt, Tracer, TracerProvider},
};

use super::ids;
use crate::instrument::SCOPE;

/// Semantic conventions of the spans' names and attributes.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Starts spans. A span that is not recorded has valid ids as well: for log lines, exemplars and stored contexts.
///
/// Cheap to clone; made by [`Telemetry::tracing`](crate::Telemetry::tracing).
#[derive(Clone, Default)]
pub struct Tracing {
    tracer: Option<Arc<BoxedTracer>>,
    follows_parents: bool,
}

impl Tracing {
    /// Starts spans with the library's tracer of a provider.
    pub fn new<P>(provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: ObjectSafeTracer + Send + Sync + 'static,
    {
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION"));
        let tracer = provider.tracer_with_scope(scope.with_schema_url(SCHEMA_URL).build());
        Self { tracer: Some(Arc::new(BoxedTracer::new(Box::new(tracer)))), follows_parents: false }
    }

    /// Records no spans.
    pub const fn ids_only() -> Self {
        Self { tracer: None, follows_parents: false }
    }

    /// Whether spans may be recorded.
    pub const fn records(&self) -> bool {
        self.tracer.is_some()
    }

    /// Decides as a [`LinkedSampler`](crate::trace::LinkedSampler) with a parent-based sampler does, without asking it:
    /// records no span below an unsampled one, and no root span whose links are all unsampled. Such spans then cost their
    /// ids only.
    #[cfg(feature = "sdk")]
    pub(crate) fn following_parents(self) -> Self {
        Self { follows_parents: true, ..self }
    }

    fn is_unsampled(&self, parent: &Context, links: &[SpanContext]) -> bool {
        let span = parent.span();
        let above = span.span_context();
        self.follows_parents
            && match above.is_valid() {
                true => !above.is_sampled(),
                false => !links.is_empty() && !links.iter().any(SpanContext::is_sampled),
            }
    }

    /// Starts a span below `parent`, with links, and returns its context. Without a valid span in `parent`, the span begins
    /// a trace.
    ///
    /// `describe` is not called if the span is certainly not recorded. What no sampler reads is better set afterwards, if the span
    /// [is recording](opentelemetry::trace::SpanRef::is_recording).
    ///
    /// A span that is not recorded has the flags of its parent, else the sampled flag of its first link. It is marked as not
    /// sampled if a sampler decided so.
    pub fn start(&self, parent: &Context, links: &[SpanContext], describe: impl FnOnce() -> SpanBuilder) -> Context {
        let Some(tracer) = self.tracer.as_ref().filter(|_| !self.is_unsampled(parent, links)) else {
            return unrecorded(parent, links, TraceId::INVALID, ANY);
        };
        let mut builder = describe();
        if !links.is_empty() {
            builder.links = Some(links.iter().cloned().map(Link::with_context).collect());
        }
        let context = parent.with_span(tracer.build_with_context(builder, parent));
        if context.span().is_recording() {
            return context;
        }
        let trace_id = context.span().span_context().trace_id();
        unrecorded(parent, links, trace_id, !TraceFlags::SAMPLED)
    }
}

const ANY: TraceFlags = TraceFlags::new(u8::MAX);

/// The context of a span without a record: in the parent's trace, else in a new one with this id or a random one.
fn unrecorded(parent: &Context, links: &[SpanContext], trace_id: TraceId, kept: TraceFlags) -> Context {
    let span = parent.span();
    let above = span.span_context();
    let (trace_id, flags) = match links.first() {
        _ if above.is_valid() => (above.trace_id(), above.trace_flags()),
        first => (trace_id, first.map_or(TraceFlags::NOT_SAMPLED, |link| link.trace_flags() & TraceFlags::SAMPLED)),
    };
    let trace_id = if trace_id == TraceId::INVALID { ids::trace_id() } else { trace_id };
    let own = SpanContext::new(trace_id, ids::span_id(), flags & kept, false, above.trace_state().clone());
    parent.with_remote_span_context(own)
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing").field("records", &self.records()).finish()
    }
}

#[cfg(all(test, feature = "sdk"))]
mod tests {
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

    use super::*;
    use crate::trace::{remote_context, traceparent, tracestate};

    fn start(tracing: &Tracing, parent: &Context, links: &[SpanContext]) -> SpanContext {
        tracing.start(parent, links, || SpanBuilder::from_name("a")).span().span_context().clone()
    }

    fn providers() -> [Tracing; 2] {
        let drops = SdkTracerProvider::builder().with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        [Tracing::ids_only(), Tracing::new(&drops.build())]
    }

    #[test]
    fn nothing_is_described_without_a_provider() {
        let context = Tracing::ids_only().start(&Context::new(), &[], || unreachable!("not called"));
        assert!(context.span().span_context().is_valid());
    }

    #[test]
    fn unsampled_parent_or_link_decides_without_sampler() {
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
        let tracing = Tracing::new(&provider).following_parents();
        let remote = |flags: &str| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            remote_context(&text, None).expect("a context")
        };
        let link = |flags: &str| remote(flags).span().span_context().clone();
        let none = Context::new();
        for (parent, links) in [(&remote("02"), vec![]), (&none, vec![link("00"), link("02")])] {
            let context = tracing.start(parent, &links, || unreachable!("not called"));
            assert!(context.span().span_context().is_valid() && !context.span().span_context().is_sampled());
        }
        for (parent, links) in [(&remote("01"), vec![]), (&none, vec![link("00"), link("01")]), (&none, vec![])] {
            assert!(start(&tracing, parent, &links).is_sampled());
        }
    }

    #[test]
    fn unrecorded_root_has_valid_ids() {
        for tracing in providers() {
            let [first, second] = [(); 2].map(|()| start(&tracing, &Context::new(), &[]));
            assert!(first.is_valid() && second.is_valid() && !first.is_sampled(), "{tracing:?}");
            assert!(first.trace_id() != second.trace_id() && first.span_id() != second.span_id());
        }
    }

    #[test]
    fn unrecorded_child_keeps_unknown_flags_and_tracestate() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe";
        let parent = remote_context(parent, Some("a=1 , b=2")).expect("a context");
        for tracing in providers() {
            let context = tracing.start(&parent, &[], || SpanBuilder::from_name("a"));
            let text = traceparent(&context).expect("a span");
            assert!(text.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && text.ends_with("-fe"), "{text}");
            assert_ne!(traceparent(&context), traceparent(&parent));
            assert_eq!(tracestate(&context).as_deref(), Some("a=1 , b=2"));
        }
    }

    #[test]
    fn sampled_flag_is_inherited_without_a_sampler() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";
        let parent = remote_context(parent, None).expect("a context");
        let [none, _] = providers();
        let link = parent.span().span_context().clone();
        assert_eq!(start(&none, &parent, &[]).trace_flags().to_u8(), 3);
        let linked = start(&none, &Context::new(), std::slice::from_ref(&link));
        assert_eq!(linked.trace_flags().to_u8(), 1);
        assert_ne!(linked.trace_id(), link.trace_id());
    }
}
