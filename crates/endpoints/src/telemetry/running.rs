//! Attempts that this process claimed and has not ended yet: the base of durations at their end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    Timestamp,
    store::{Attempt, Lease},
};
use foldhash::HashMap;

use super::{capture::AttemptSink, cause::Cause, series::TypeSeries, spans::Spans};
use crate::{caller::Caller, progress::ProgressReporter, sync::Mutex};
use async_endpoints_telemetry::{
    Scope, is_logging,
    opentelemetry::trace::{SpanContext, TraceContextExt},
};
use tracing::Span;

/// Time between two sweeps for attempts whose leases are no longer renewed.
const SWEEP: Duration = Duration::from_secs(60);

/// A claimed attempt.
pub(crate) struct Started {
    pub(crate) series: Arc<TypeSeries>,
    pub(crate) cause: Cause,
    pub(crate) scope: Scope,
    sink: Option<Arc<AttemptSink>>,
    at: Instant,
    /// Age of the job at `at`, by the store's clock.
    age: Duration,
    handler_ended: Option<Instant>,
    /// The last renewal of the lease.
    renewed: Instant,
}

impl Started {
    pub(crate) fn new(
        series: Arc<TypeSeries>,
        attempt: &Attempt,
        scope: Scope,
        sink: Option<Arc<AttemptSink>>,
        store_now: Timestamp,
        at: Instant,
    ) -> Self {
        let cause = Cause::new(attempt.lease.job, scope.context());
        let age = store_now.since(attempt.created_at);
        Self { series, cause, scope, sink, at, age, handler_ended: None, renewed: at }
    }

    /// The attempt's span.
    pub(crate) fn span(&self) -> SpanContext {
        self.scope.context().span().span_context().clone()
    }

    /// Duration of the handler and age of the job. The handler ran until `now` if its end was not seen.
    pub(crate) fn times(&self, now: Instant) -> (Duration, Duration) {
        let ran = self.handler_ended.unwrap_or(now).saturating_duration_since(self.at);
        (ran, self.age + now.saturating_duration_since(self.at))
    }
}

/// The running attempts by lease. Those that no telemetry observes are not in it.
pub(crate) struct RunningTable {
    table: Mutex<Table>,
    spans: Arc<Spans>,
    measures: bool,
}

struct Table {
    started: HashMap<Lease, Started>,
    swept: Instant,
}

impl RunningTable {
    /// `measures` says whether metrics are recorded.
    pub(crate) fn new(spans: Arc<Spans>, measures: bool) -> Self {
        let table = Mutex::new(Table { started: HashMap::default(), swept: Instant::now() });
        Self { table, spans, measures }
    }

    /// Whether metrics, spans or log lines are recorded now. If not, no attempts are added.
    pub(crate) fn is_observed(&self) -> bool {
        self.measures || self.spans.tracing.records() || is_logging()
    }

    pub(crate) fn start(&self, attempts: Vec<(Lease, Started)>) {
        self.table.lock().started.extend(attempts);
    }

    /// The scope of an attempt that starts, with `reporter` for captured lines. Without fields of log lines if no telemetry
    /// observes the attempt.
    pub(crate) fn enter(&self, attempt: &Attempt, reporter: &ProgressReporter) -> Scope {
        if self.is_observed()
            && let Some(started) = self.table.lock().started.get(&attempt.lease)
        {
            if let Some(sink) = &started.sink {
                sink.report_to(reporter);
            }
            return started.scope.clone();
        }
        Scope::new(self.spans.process(attempt, &Caller::default()), Span::none())
    }

    /// The spans of running attempts.
    pub(crate) fn spans(&self, leases: impl Iterator<Item = Lease>) -> Vec<SpanContext> {
        let table = self.table.lock();
        leases.filter_map(|lease| Some(table.started.get(&lease)?.span())).collect()
    }

    /// Records the end of a handler, which ends the processing time. The settlement follows.
    pub(crate) fn handler_ended(&self, lease: Lease) {
        if self.is_observed()
            && let Some(started) = self.table.lock().started.get_mut(&lease)
        {
            started.handler_ended.get_or_insert_with(Instant::now);
        }
    }

    /// Removes attempts, in the order of `leases`. None for an attempt that was counted before.
    pub(crate) fn take(&self, leases: impl Iterator<Item = Lease>) -> Vec<Option<Started>> {
        let mut table = self.table.lock();
        leases.map(|lease| table.started.remove(&lease)).collect()
    }

    /// Records renewals. Once a minute, removes attempts that were not renewed for `expiry`: their leases are lost.
    pub(crate) fn renewed(&self, leases: &[Lease], expiry: Duration) {
        let (mut table, now) = (self.table.lock(), Instant::now());
        for lease in leases {
            if let Some(started) = table.started.get_mut(lease) {
                started.renewed = now;
            }
        }
        if now.saturating_duration_since(table.swept) >= SWEEP {
            table.swept = now;
            table.started.retain(|_, started| now.saturating_duration_since(started.renewed) < expiry);
        }
    }
}
