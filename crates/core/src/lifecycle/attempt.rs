//! The whole effect of an ended attempt on its job, and the attempts that readers see.

use std::time::Duration;

use crate::{
    job::{AttemptOutcome, AttemptRecord, ErrorRecord, JobStatus, WorkerId},
    limits::ATTEMPTS_KEPT,
    store::{MinuteStats, Outcome, Reclaim, Settlement},
    time::Timestamp,
};

/// The fields of a running job that decide what the end of its attempt does.
#[derive(Copy, Clone, Debug)]
pub struct RunningJob {
    /// The running attempt; 1 for the first.
    pub attempt: u32,
    /// The worker that runs it.
    pub worker: Option<WorkerId>,
    /// When this attempt started.
    pub started_at: Timestamp,
    /// Failures retried so far.
    pub retry_count: u32,
    /// Leases lost so far.
    pub loss_count: u32,
    /// Attempts released so far.
    pub release_count: u32,
    /// Lost leases allowed.
    pub max_losses: u32,
    /// Whether a caller asked to cancel the job.
    pub cancel_requested: bool,
}

/// How an attempt ended.
#[derive(Copy, Clone, Debug)]
pub struct EndedAttempt<'a> {
    outcome: AttemptOutcome,
    error: Option<&'a ErrorRecord>,
    if_canceled: &'a ErrorRecord,
    delay: Duration,
    slow: bool,
}

impl<'a> EndedAttempt<'a> {
    /// An attempt that its worker settled.
    pub const fn settled(settlement: &'a Settlement) -> Self {
        let (error, delay) = match &settlement.outcome {
            Outcome::Completed { .. } | Outcome::Released => (None, Duration::ZERO),
            Outcome::Retry { delay, error } => (Some(error), *delay),
            Outcome::Failed { error } | Outcome::Canceled { error } => (Some(error), Duration::ZERO),
        };
        let (outcome, if_canceled, slow) = (settlement.outcome.kind(), &settlement.if_canceled, settlement.slow);
        Self { outcome, error, if_canceled, delay, slow }
    }

    /// An attempt whose lease a sweep took away.
    pub const fn lost(reclaim: &'a Reclaim) -> Self {
        Self {
            outcome: AttemptOutcome::Lost,
            error: Some(&reclaim.lost),
            if_canceled: &reclaim.canceled,
            delay: Duration::ZERO,
            slow: false,
        }
    }
}

/// What becomes of the job's error.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ErrorEffect<'a> {
    /// The error of an earlier attempt stays.
    Keep,
    /// The job completed.
    Clear,
    /// The attempt's error.
    Replace(&'a ErrorRecord),
}

/// What a store writes when an attempt ends, besides its version, its indexes and its lease.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptEffect<'a> {
    /// The job's new state.
    pub status: JobStatus,
    /// The outcome that is recorded and counted.
    pub outcome: AttemptOutcome,
    /// Failures retried, including this one.
    pub retry_count: u32,
    /// Leases lost, including this one.
    pub loss_count: u32,
    /// Attempts released, including this one.
    pub release_count: u32,
    /// The job's error.
    pub error: ErrorEffect<'a>,
    /// The job's new due time, if it is Scheduled; else its due time stays.
    pub due: Option<Timestamp>,
    /// Since when the job is runnable again; none if it is terminal.
    pub runnable_since: Option<Timestamp>,
    /// When the job became terminal.
    pub ended_at: Option<Timestamp>,
    /// The attempt, for the job's history; none for a completed one, which [`attempts`] derives.
    pub record: Option<AttemptRecord>,
    /// How long the attempt ran; none if it was lost, since its real end is unknown.
    pub processing_time: Option<Duration>,
    /// Whether the attempt ended slow.
    pub slow: bool,
}

/// The effect of the end of `job`'s running attempt at `now`.
pub fn end_attempt<'a>(job: &RunningJob, end: &EndedAttempt<'a>, now: Timestamp) -> AttemptEffect<'a> {
    let last = job.loss_count >= job.max_losses;
    let status = state_after(end.outcome, job.cancel_requested, last);
    let outcome = if status == JobStatus::Canceled { AttemptOutcome::Canceled } else { end.outcome };
    let error = if job.cancel_requested && status == JobStatus::Canceled { Some(end.if_canceled) } else { end.error };
    let runnable_since = (!status.is_terminal()).then(|| now + end.delay);
    let counted = |counts: bool, count: u32| count.saturating_add(u32::from(counts));
    AttemptEffect {
        status,
        outcome,
        retry_count: counted(status == JobStatus::Scheduled, job.retry_count),
        loss_count: counted(end.outcome == AttemptOutcome::Lost, job.loss_count),
        release_count: counted(outcome == AttemptOutcome::Released, job.release_count),
        error: match error {
            _ if status == JobStatus::Completed => ErrorEffect::Clear,
            Some(error) => ErrorEffect::Replace(error),
            None => ErrorEffect::Keep,
        },
        due: runnable_since.filter(|_| status == JobStatus::Scheduled),
        runnable_since,
        ended_at: status.is_terminal().then_some(now),
        record: (outcome != AttemptOutcome::Completed).then(|| AttemptRecord {
            attempt: job.attempt,
            worker: job.worker,
            started_at: job.started_at,
            ended_at: Some(now),
            outcome: Some(outcome),
            error: error.cloned(),
        }),
        processing_time: (end.outcome != AttemptOutcome::Lost).then(|| now.since(job.started_at)),
        slow: end.slow,
    }
}

const fn state_after(outcome: AttemptOutcome, cancel_requested: bool, last_loss: bool) -> JobStatus {
    match outcome {
        AttemptOutcome::Completed => JobStatus::Completed,
        _ if cancel_requested => JobStatus::Canceled,
        AttemptOutcome::Canceled => JobStatus::Canceled,
        AttemptOutcome::Retried => JobStatus::Scheduled,
        AttemptOutcome::Failed => JobStatus::Failed,
        AttemptOutcome::Lost if last_loss => JobStatus::Failed,
        AttemptOutcome::Released | AttemptOutcome::Lost => JobStatus::Queued,
    }
}

impl AttemptEffect<'_> {
    /// Adds the attempt, and the job if it ended, to the counts of a minute.
    pub fn count(&self, minute: &mut MinuteStats) {
        minute.attempts[self.outcome as usize] += 1;
        minute.slow += u64::from(self.slow);
        if let Some(duration) = self.processing_time {
            minute.processing_time.record(duration);
        }
        minute.count_ended(self.status);
    }
}

/// The attempts that a reader sees, oldest first: the recorded ones, and the running or completed one, which has no record.
/// At most [`ATTEMPTS_KEPT`]. `attempt`, `worker` and the times are those of the latest attempt.
pub fn attempts(
    mut recorded: Vec<AttemptRecord>,
    status: JobStatus,
    attempt: u32,
    worker: Option<WorkerId>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
) -> Vec<AttemptRecord> {
    let missing = recorded.last().is_none_or(|last| last.attempt < attempt);
    if let (true, Some(started_at)) = (missing, started_at) {
        let outcome = (status == JobStatus::Completed).then_some(AttemptOutcome::Completed);
        recorded.push(AttemptRecord { attempt, worker, started_at, ended_at, outcome, error: None });
    }
    recorded.drain(..recorded.len().saturating_sub(ATTEMPTS_KEPT));
    recorded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::JobId,
        store::{Lease, LeaseToken},
    };

    const START: Timestamp = Timestamp::from_micros(1_000_000);
    const NOW: Timestamp = Timestamp::from_micros(8_000_000);
    const DELAY: Duration = Duration::from_secs(30);
    const WORKER: WorkerId = WorkerId(uuid::Uuid::from_u128(7));

    fn error(code: &'static str) -> ErrorRecord {
        ErrorRecord {
            code: code.into(),
            title: "A test".into(),
            status: 500,
            detail: None,
            retryable: true,
            sources: Vec::new(),
        }
    }

    fn job(loss_count: u32, cancel_requested: bool) -> RunningJob {
        let (attempt, retry_count, release_count, max_losses) = (7, 10, 30, 21);
        RunningJob {
            attempt,
            worker: Some(WORKER),
            started_at: START,
            retry_count,
            loss_count,
            release_count,
            max_losses,
            cancel_requested,
        }
    }

    fn outcomes() -> [Option<Outcome>; 6] {
        let error = error("OWN");
        [
            Some(Outcome::Completed { result: bytes::Bytes::new() }),
            Some(Outcome::Retry { delay: DELAY, error: error.clone() }),
            Some(Outcome::Failed { error: error.clone() }),
            Some(Outcome::Canceled { error }),
            Some(Outcome::Released),
            None, // Lost.
        ]
    }

    /// One row: state, recorded outcome, counters (retries, losses, releases), error code (`-` kept, `0` cleared), seconds
    /// until it is runnable (-1: never), whether it has a processing time.
    fn row(effect: &AttemptEffect<'_>) -> String {
        let AttemptEffect { status, outcome, retry_count, loss_count, release_count, .. } = effect;
        let error = match effect.error {
            ErrorEffect::Keep => "-",
            ErrorEffect::Clear => "0",
            ErrorEffect::Replace(error) => &*error.code,
        };
        let runnable = effect.runnable_since.map_or(-1, |at| at.since(NOW).as_secs() as i64);
        let timed = effect.processing_time.is_some();
        format!("{status} {outcome:?} {retry_count},{loss_count},{release_count} {error} {runnable} {timed}")
    }

    const TABLE: [[&str; 6]; 4] = [
        // Losses left, no cancel request.
        [
            "Completed Completed 10,20,30 0 -1 true",
            "Scheduled Retried 11,20,30 OWN 30 true",
            "Failed Failed 10,20,30 OWN -1 true",
            "Canceled Canceled 10,20,30 OWN -1 true",
            "Queued Released 10,20,31 - 0 true",
            "Queued Lost 10,21,30 LOST 0 false",
        ],
        // Losses left, cancel requested.
        [
            "Completed Completed 10,20,30 0 -1 true",
            "Canceled Canceled 10,20,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,20,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,20,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,20,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,21,30 CANCELED -1 false",
        ],
        // No loss left, no cancel request.
        [
            "Completed Completed 10,21,30 0 -1 true",
            "Scheduled Retried 11,21,30 OWN 30 true",
            "Failed Failed 10,21,30 OWN -1 true",
            "Canceled Canceled 10,21,30 OWN -1 true",
            "Queued Released 10,21,31 - 0 true",
            "Failed Lost 10,22,30 LOST -1 false",
        ],
        // No loss left, cancel requested.
        [
            "Completed Completed 10,21,30 0 -1 true",
            "Canceled Canceled 10,21,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,21,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,21,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,21,30 IF_CANCELED -1 true",
            "Canceled Canceled 10,22,30 CANCELED -1 false",
        ],
    ];

    #[test]
    fn effect_of_every_outcome_matches_table() {
        let reclaim = Reclaim { limit: 1, lease: DELAY, lost: error("LOST"), canceled: error("CANCELED") };
        let lease = Lease { job: JobId::random(), token: LeaseToken::random() };
        let jobs = [job(20, false), job(20, true), job(21, false), job(21, true)];
        for (job, rows) in jobs.iter().zip(TABLE) {
            for (outcome, expected) in outcomes().into_iter().zip(rows) {
                let settlement = outcome.map(|outcome| Settlement::new(lease, outcome, error("IF_CANCELED")));
                let end = settlement.as_ref().map_or(EndedAttempt::lost(&reclaim), EndedAttempt::settled);
                let effect = end_attempt(job, &end, NOW);
                assert_eq!(row(&effect), expected, "{job:?}");
                check_derived(job, &effect);
            }
        }
    }

    /// The values that follow from those of a row.
    fn check_derived(job: &RunningJob, effect: &AttemptEffect<'_>) {
        let terminal = effect.status.is_terminal();
        assert_eq!((effect.ended_at, effect.runnable_since.is_none()), (terminal.then_some(NOW), terminal));
        let scheduled = effect.status == JobStatus::Scheduled;
        assert_eq!(effect.due, scheduled.then_some(NOW + DELAY));
        assert!(effect.processing_time.is_none_or(|ran| ran == Duration::from_secs(7)));
        let recorded = effect.record.as_ref().map(|record| {
            let AttemptRecord { attempt, worker, started_at, ended_at, outcome, error } = record;
            (*attempt, *worker, *started_at, *ended_at, *outcome, error.as_ref())
        });
        let error = if let ErrorEffect::Replace(error) = effect.error { Some(error) } else { None };
        let expected = (job.attempt, Some(WORKER), START, Some(NOW), Some(effect.outcome), error);
        assert_eq!(recorded, (effect.outcome != AttemptOutcome::Completed).then_some(expected));
    }

    #[test]
    fn attempts_end_with_the_one_without_record() {
        let record = |attempt| AttemptRecord {
            attempt,
            worker: None,
            started_at: START,
            ended_at: Some(NOW),
            outcome: Some(AttemptOutcome::Released),
            error: None,
        };
        let numbers = |attempts: &[AttemptRecord]| attempts.iter().map(|one| one.attempt).collect::<Vec<_>>();
        assert_eq!(attempts(vec![], JobStatus::Queued, 0, None, None, None), []);
        let waiting = attempts(vec![record(1), record(2)], JobStatus::Queued, 2, Some(WORKER), Some(START), None);
        assert_eq!(numbers(&waiting), [1, 2]);
        let running = attempts(waiting, JobStatus::InProgress, 3, Some(WORKER), Some(NOW), None);
        assert_eq!(numbers(&running), [1, 2, 3]);
        assert_eq!((running[1].worker, running[2].worker), (None, Some(WORKER)));
        assert_eq!((running[2].started_at, running[2].ended_at, running[2].outcome), (NOW, None, None));
        let completed = attempts(vec![], JobStatus::Completed, 1, None, Some(START), Some(NOW));
        assert_eq!((completed[0].ended_at, completed[0].outcome), (Some(NOW), Some(AttemptOutcome::Completed)));
        let many = attempts((1..=20).map(record).collect(), JobStatus::InProgress, 21, None, Some(NOW), None);
        assert_eq!(numbers(&many), (2..=21).collect::<Vec<_>>());
    }
}
