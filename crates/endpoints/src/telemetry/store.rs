//! A store around a store, which counts and times what goes through it. It changes nothing: every answer is the inner
//! store's, and what is not an accepted change is not counted as one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore, SharedState, Store, forward_store_calls,
    job::{AttemptOutcome, ErrorRecord},
    store::{
        Attempt, CancelOutcome, Claim, Claimed, Heartbeat, InsertOutcome, Lease, NewJob, Outcome, Reclaim, Reclaimed,
        Recovered, Renewed, Result, RetryAs, RetryOutcome, Settled, Settlement, StoreOperation,
    },
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{
    exemplars::{Cause, SpanRef},
    instruments::{End, Instruments, LOST, OfType, Submission},
    running::{Running, Started},
};

/// A call that its caller gave up counts as failed if it had not answered for so long; before that, it was the caller's
/// client who hung up.
const HANGING: Duration = Duration::from_millis(500);

pub(crate) struct Instrumented {
    inner: Arc<dyn Store>,
    instruments: Arc<Instruments>,
    running: Arc<Running>,
}

/// The time of one call. Dropped before its end, the call was given up.
struct Watch<'a> {
    instruments: &'a Instruments,
    operation: StoreOperation,
    began: Instant,
    done: bool,
}

impl Watch<'_> {
    fn end(mut self, ok: bool) -> Instant {
        self.done = true;
        let took = self.began.elapsed();
        self.instruments.operation(self.operation, ok, took);
        self.began + took
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if !self.done && took >= HANGING {
            self.instruments.operation(self.operation, false, took);
        }
    }
}

/// A job on its way into the store. One whose call was given up while it hung was not accepted, as far as its submitter
/// knows.
struct Submitting<'a> {
    of_type: &'a OfType,
    began: Instant,
    done: bool,
}

impl Submitting<'_> {
    fn end(mut self, answer: &Result<InsertOutcome>) {
        self.done = true;
        let result = match answer {
            Ok(InsertOutcome::Inserted { .. }) => Submission::Accepted,
            Ok(InsertOutcome::Existing(_)) => Submission::Duplicate,
            Ok(InsertOutcome::Conflict) => Submission::Conflict,
            Ok(InsertOutcome::Full) | Err(_) => Submission::Rejected,
        };
        self.of_type.submission(result);
        if result == Submission::Accepted {
            self.of_type.queued.add(1);
        }
    }
}

impl Drop for Submitting<'_> {
    fn drop(&mut self) {
        if !self.done && self.began.elapsed() >= HANGING {
            self.of_type.submission(Submission::Rejected);
        }
    }
}

impl Instrumented {
    pub(crate) fn new(inner: Arc<dyn Store>, instruments: Arc<Instruments>, running: Arc<Running>) -> Self {
        Self { inner, instruments, running }
    }

    fn watch(&self, operation: StoreOperation) -> Watch<'_> {
        Watch { instruments: &self.instruments, operation, began: Instant::now(), done: false }
    }

    /// Times a call; also says when it ended.
    async fn timed<'a, T>(&self, operation: StoreOperation, call: BoxFuture<'a, Result<T>>) -> (Result<T>, Instant) {
        let watch = self.watch(operation);
        let answer = call.await;
        let now = watch.end(answer.is_ok());
        (answer, now)
    }

    async fn observe<'a, T>(
        &self,
        operation: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        self.timed(operation, call()).await.0
    }

    fn claimed(&self, claimed: &Claimed, now: Instant) {
        let start = |attempt: &Attempt| {
            let started = Started::new(self.instruments.of(&attempt.name).clone(), attempt, claimed.now, now);
            let waited = attempt.started_at.since(attempt.runnable_since);
            started.of_type.queue_time.record(waited, now, || started.cause);
            (attempt.lease, started)
        };
        self.running.start(claimed.attempts.iter().map(start).collect());
    }

    fn settled(&self, settles: &[Settlement], answers: &[Settled], now: Instant) {
        let started = self.running.take(settles.iter().map(|settle| settle.lease));
        for ((settle, answer), started) in settles.iter().zip(answers).zip(started) {
            if let (Settled::Settled(status), Some(started)) = (answer, started) {
                self.ended(settle, *status, &started, now);
            }
        }
    }

    fn ended(&self, settle: &Settlement, status: JobStatus, started: &Started, now: Instant) {
        // A cancel request turns whatever did not complete into Canceled.
        let outcome = if status == JobStatus::Canceled { AttemptOutcome::Canceled } else { settle.outcome.kind() };
        let (ran, total) = started.times(now);
        let (of_type, cause) = (&started.of_type, started.cause);
        for (timer, duration) in [(of_type.processing_time(outcome), ran), (of_type.total_time(status), total)] {
            if let Some(timer) = timer {
                timer.record(duration, now, || cause);
            }
        }
        self.instruments.ended(of_type, &End { outcome, code: code(&settle.outcome), status, now, cause });
    }

    fn recovered(&self, recovered: &[Recovered], now: Instant) {
        for job in recovered {
            let of_type = self.instruments.of(&job.name);
            // A cancel request turns what did not complete into Canceled here too.
            let canceled = job.status == JobStatus::Canceled;
            let outcome = if canceled { AttemptOutcome::Canceled } else { AttemptOutcome::Lost };
            let cause = Cause { job: job.id, span: job.trace.as_ref().and_then(SpanRef::of) };
            if let Some(timer) = of_type.total_time(job.status) {
                timer.record(job.recovered_at.since(job.created_at), now, || cause);
            }
            self.instruments.ended(of_type, &End { outcome, code: LOST, status: job.status, now, cause });
            of_type.recovered.add(1);
        }
    }
}

/// The code of what went wrong.
fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Failed { error } | Outcome::Canceled { error } => &error.code,
        Outcome::Completed { .. } | Outcome::Released => "",
    }
}

#[async_trait]
impl JobStore for Instrumented {
    /// No `async fn`: the job goes to the inner store at once and is not carried along by the future that waits for it.
    fn insert<'s: 'a, 'a>(&'s self, job: NewJob) -> BoxFuture<'a, Result<InsertOutcome>> {
        let watch = self.watch(StoreOperation::Insert);
        let submitting = Submitting { of_type: self.instruments.of(&job.name), began: watch.began, done: false };
        let call = self.inner.insert(job);
        Box::pin(async move {
            let answer = call.await;
            watch.end(answer.is_ok());
            submitting.end(&answer);
            answer
        })
    }

    forward_store_calls!(self.observe => self.inner; get, versions, list, logs, stats, report, prune, probe);
    forward_store_calls!(self => self.inner; hints, kind);

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let (answer, now) = self.timed(StoreOperation::Claim, self.inner.claim(claim)).await;
        if let Ok(claimed) = &answer
            && !claimed.attempts.is_empty()
        {
            self.claimed(claimed, now);
        }
        answer
    }

    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        // One that is lost stays for now: it may have been settled by a call whose answer was lost, and is asked again.
        self.running.renewed(leases, lease * 2);
        self.observe(StoreOperation::Renew, || self.inner.renew(beat, leases, lease)).await
    }

    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        let (answer, now) = self.timed(StoreOperation::Settle, self.inner.settle(settles)).await;
        if let Ok(answers) = &answer {
            self.settled(settles, answers, now);
        }
        answer
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        let answer = self.observe(StoreOperation::Cancel, || self.inner.cancel(id, error)).await?;
        if let CancelOutcome::Canceled(job) = &answer {
            let total = job.completed_at.unwrap_or(job.created_at).since(job.created_at);
            let cause = Cause { job: id, span: job.trace.as_ref().and_then(SpanRef::of) };
            self.instruments.of(&job.name).canceled_unstarted(total, cause);
        }
        Ok(answer)
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let answer = self.observe(StoreOperation::Retry, || self.inner.retry(id, new)).await?;
        if let RetryOutcome::Created(job) = &answer {
            self.instruments.of(&job.name).queued.add(1);
        }
        Ok(answer)
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let (answer, now) = self.timed(StoreOperation::Reclaim, self.inner.reclaim(reclaim)).await;
        if let Ok(Reclaimed::Done { recovered, .. }) = &answer {
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
    use crate::telemetry::{Measured, Telemetry};

    conformance!(instrumented, async {
        let clock = ManualClock::new();
        let telemetry = Telemetry::builder().build().expect("telemetry");
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let measured = Measured::new(telemetry, store.kind(), [].iter()).expect("nobody else is measured");
        Fixture::manual(measured.store(store), clock)
    });
}
