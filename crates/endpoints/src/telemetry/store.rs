//! A store decorator that counts, times and traces calls, and logs the life of jobs. Answers pass through unchanged, and only
//! accepted changes are counted and logged.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobStore, SharedState, Store, forward_store_calls,
    job::{AttemptOutcome, ErrorRecord},
    store::{
        Attempt, CancelOutcome, Claim, Claimed, Heartbeat, InsertOutcome, Lease, NewJob, Outcome, Reclaim, Reclaimed,
        Recovered, Renewed, Result, RetryAs, RetryOutcome, Settled, Settlement, StoreOperation, WorkerId,
    },
};
use async_endpoints_telemetry::is_logging;
use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{
    calls::{CallSpan, Calls},
    capture::Capture,
    cause::Cause,
    events,
    instruments::{AttemptEnd, Instruments},
    running::{RunningTable, Started},
    scope,
    series::{SubmissionResult, TypeSeries, WORKER_LOST},
    spans::{self, Spans},
};
use crate::{caller::Caller, envelope};

const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
/// Minimum duration of a dropped call that counts as failed. A call dropped earlier ended with the client's connection.
pub(super) const HANGING: Duration = Duration::from_millis(500);

pub(crate) struct Instrumented {
    inner: Arc<dyn Store>,
    instruments: Arc<Instruments>,
    running: Arc<RunningTable>,
    spans: Arc<Spans>,
    calls: Calls,
    capture: Capture,
}

/// Times one call. Dropped without `end`, the call was dropped too.
struct Watch<'a> {
    instruments: &'a Instruments,
    operation: StoreOperation,
    /// The submitted job's type and series during an insert.
    submitted: Option<(JobName, &'a TypeSeries)>,
    began: Instant,
    span: CallSpan,
    done: bool,
}

impl Watch<'_> {
    fn end<T>(mut self, answer: &Result<T>) -> Instant {
        self.done = true;
        let took = self.began.elapsed();
        self.instruments.operation(self.operation, answer.is_ok(), took);
        self.span.end(answer);
        self.began + took
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if !self.done && took >= HANGING {
            self.instruments.operation(self.operation, false, took);
            self.span.timed_out();
            if let Some((name, series)) = &self.submitted {
                series.submission(SubmissionResult::Rejected);
                rejected(name, SubmissionResult::Rejected, STORE_UNAVAILABLE);
            }
        }
    }
}

impl Instrumented {
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        instruments: Arc<Instruments>,
        running: Arc<RunningTable>,
        spans: Arc<Spans>,
        capture: Capture,
    ) -> Self {
        let calls = Calls { tracing: spans.tracing.clone(), system: inner.kind() };
        Self { inner, instruments, running, spans, capture, calls }
    }

    fn watch(&self, operation: StoreOperation, span: CallSpan) -> Watch<'_> {
        Watch { instruments: &self.instruments, operation, submitted: None, began: Instant::now(), span, done: false }
    }

    /// Times and traces a call. Also returns its end.
    async fn timed<'a, T>(
        &self,
        operation: StoreOperation,
        span: CallSpan,
        call: BoxFuture<'a, Result<T>>,
    ) -> (Result<T>, Instant) {
        let watch = self.watch(operation, span);
        let answer = watch.span.run(call).await;
        let now = watch.end(&answer);
        (answer, now)
    }

    async fn observe<'a, T>(
        &self,
        operation: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        self.timed(operation, self.calls.inside(operation), call()).await.0
    }

    fn claimed(&self, worker: WorkerId, claimed: &Claimed, began: SystemTime, now: Instant) {
        let has_readers = self.calls.tracing.records() || is_logging();
        let start = |attempt: &Attempt| {
            let caller = if has_readers { envelope::read_caller(&attempt.payload) } else { Caller::default() };
            let context = self.spans.process(attempt, &caller);
            let (scope, sink) = self.capture.scope(|| scope::attempt(context, attempt, worker, &caller));
            let series = self.instruments.of(&attempt.name).clone();
            let started = Started::new(series, attempt, scope, sink, claimed.now, now);
            let waited = attempt.started_at.since(attempt.runnable_since);
            started.series.queue_time.record(waited, now, || started.cause.labels());
            started.scope.log(|| events::job_started(waited));
            (attempt.lease, started)
        };
        let started: Vec<(Lease, Started)> = claimed.attempts.iter().map(start).collect();
        let spans = || started.iter().map(|(_, started)| started.span()).collect();
        self.calls.batch(StoreOperation::Claim, "receive", began, spans).end(&Ok(()));
        self.running.start(started);
    }

    fn settled(&self, settlements: &[Settlement], answers: &[Settled], now: Instant) {
        let started = self.running.take(settlements.iter().map(|settlement| settlement.lease));
        for ((settlement, answer), started) in settlements.iter().zip(answers).zip(started) {
            if let (Settled::Settled(status), Some(started)) = (answer, started) {
                self.ended(settlement, *status, &started, now);
            }
        }
    }

    fn ended(&self, settlement: &Settlement, status: JobStatus, started: &Started, now: Instant) {
        // After a cancel request, every outcome but Completed becomes Canceled.
        let canceled = status == JobStatus::Canceled;
        let outcome = if canceled { AttemptOutcome::Canceled } else { settlement.outcome.kind() };
        let (ran, total) = started.times(now);
        let (series, cause) = (&started.series, started.cause);
        for (timer, duration) in [(series.processing_time(outcome), ran), (series.total_time(status), total)] {
            if let Some(timer) = timer {
                timer.record(duration, now, || cause.labels());
            }
        }
        let code = code(&settlement.outcome);
        self.instruments.ended(series, &AttemptEnd { outcome, code, status, now, cause });
        spans::processed(started.scope.context(), outcome, code, status);
        started.scope.log(|| events::attempt_ended(&settlement.outcome, status, ran));
    }

    fn recovered(&self, recovered: &[Recovered], now: Instant) {
        for job in recovered {
            let series = self.instruments.of(&job.name);
            // After a cancel request, a lost attempt is Canceled.
            let canceled = job.status == JobStatus::Canceled;
            let outcome = if canceled { AttemptOutcome::Canceled } else { AttemptOutcome::Lost };
            let cause = Cause::submitted(job.id, job.trace.as_ref());
            if let Some(timer) = series.total_time(job.status) {
                timer.record(job.recovered_at.since(job.created_at), now, || cause.labels());
            }
            self.instruments.ended(series, &AttemptEnd { outcome, code: WORKER_LOST, status: job.status, now, cause });
            series.recovered.add(1);
            events::job_recovered(job);
        }
    }
}

fn rejected(name: &JobName, result: SubmissionResult, code: &'static str) {
    events::job_rejected(name, result, Some(code));
}

fn submission_result(answer: &Result<InsertOutcome>) -> SubmissionResult {
    match answer {
        Ok(InsertOutcome::Inserted { .. }) => SubmissionResult::Accepted,
        Ok(InsertOutcome::Existing(_)) => SubmissionResult::Duplicate,
        Ok(InsertOutcome::Conflict) => SubmissionResult::Conflict,
        Ok(InsertOutcome::Full) | Err(_) => SubmissionResult::Rejected,
    }
}

/// The error code; empty without an error.
fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Failed { error } | Outcome::Canceled { error } => &error.code,
        Outcome::Completed { .. } | Outcome::Released => "",
    }
}

#[async_trait]
impl JobStore for Instrumented {
    /// Not an `async fn`, so that the job moves into the inner call at once instead of being kept in this future as well.
    fn insert<'s: 'a, 'a>(&'s self, job: NewJob) -> BoxFuture<'a, Result<InsertOutcome>> {
        if !self.running.is_observed() {
            return self.inner.insert(job);
        }
        let series = self.instruments.of(&job.name);
        let (id, name) = (job.id, job.name.clone());
        let mut watch = self.watch(StoreOperation::Insert, self.calls.inside(StoreOperation::Insert));
        watch.submitted = Some((name.clone(), series));
        let call = self.inner.insert(job);
        Box::pin(async move {
            let answer = watch.span.run(call).await;
            watch.end(&answer);
            series.submission(submission_result(&answer));
            match &answer {
                Ok(InsertOutcome::Inserted { .. }) => events::job_accepted(id, &name, None),
                Ok(InsertOutcome::Existing(found)) => events::job_duplicate(id, &name, found),
                Ok(InsertOutcome::Conflict) => rejected(&name, SubmissionResult::Conflict, "IDEMPOTENCY_CONFLICT"),
                Ok(InsertOutcome::Full) => rejected(&name, SubmissionResult::Rejected, "QUEUE_FULL"),
                Err(_) => rejected(&name, SubmissionResult::Rejected, STORE_UNAVAILABLE),
            }
            answer
        })
    }

    forward_store_calls!(self.observe => self.inner; get, versions, list, logs, payload, stats, report, prune, probe, health);
    forward_store_calls!(self => self.inner; hints, kind);

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let began = SystemTime::now();
        // The span is started afterwards: an empty claim has none.
        let (answer, now) = self.timed(StoreOperation::Claim, CallSpan::default(), self.inner.claim(claim)).await;
        if let Ok(claimed) = &answer
            && !claimed.attempts.is_empty()
            && self.running.is_observed()
        {
            self.claimed(claim.worker, claimed, began, now);
        }
        answer
    }

    async fn renew(&self, heartbeat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        // An attempt with a lost lease stays: it may have been settled by a call whose answer was lost and that is repeated.
        self.running.renewed(leases, lease * 2);
        self.observe(StoreOperation::Renew, || self.inner.renew(heartbeat, leases, lease)).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        let spans = || self.running.spans(settlements.iter().map(|settlement| settlement.lease));
        let span = self.calls.batch(StoreOperation::Settle, "settle", SystemTime::now(), spans);
        let (answer, now) = self.timed(StoreOperation::Settle, span, self.inner.settle(settlements)).await;
        if let Ok(answers) = &answer
            && self.running.is_observed()
        {
            self.settled(settlements, answers, now);
        }
        answer
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        let answer = self.observe(StoreOperation::Cancel, || self.inner.cancel(id, error)).await?;
        if let CancelOutcome::Canceled(job) = &answer {
            let total = job.completed_at.unwrap_or(job.created_at).since(job.created_at);
            let cause = Cause::submitted(id, job.trace.as_ref());
            self.instruments.of(&job.name).canceled_unstarted(total, cause);
            events::job_canceled(job);
        }
        Ok(answer)
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let answer = self.observe(StoreOperation::Retry, || self.inner.retry(id, new)).await?;
        if let RetryOutcome::Created(job) = &answer {
            self.instruments.of(&job.name).queued.add(1);
            events::job_accepted(job.id, &job.name, job.retry_of);
        }
        Ok(answer)
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let began = SystemTime::now();
        let (answer, now) = self.timed(StoreOperation::Reclaim, CallSpan::default(), self.inner.reclaim(reclaim)).await;
        if let Ok(Reclaimed::Done { recovered, .. }) = &answer {
            let submission = |job: &Recovered| {
                job.trace.as_ref().map(|trace| scope::span_of(trace.traceparent, trace.tracestate.as_deref()))
            };
            let spans = || recovered.iter().filter_map(submission).collect();
            self.calls.batch(StoreOperation::Reclaim, "receive", began, spans).end(&Ok(()));
            self.recovered(recovered, now);
        }
        answer
    }
}

#[async_trait]
impl SharedState for Instrumented {
    forward_store_calls!(self.observe => self.inner; shared_calls);
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::MemoryStore;
    use async_endpoints_testkit::{Fixture, ManualClock, conformance};

    use super::*;
    use crate::{
        options::Options,
        telemetry::{Measured, Telemetry},
    };

    conformance!(instrumented, async {
        let clock = ManualClock::new();
        let telemetry = Telemetry::builder().build().expect("telemetry");
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let measured = Measured::new(telemetry, store.kind(), &Options::default(), std::iter::empty())
            .expect("the only attachment");
        Fixture::manual(measured.store(store), clock)
    });
}
