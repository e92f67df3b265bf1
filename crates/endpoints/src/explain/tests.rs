//! Each reason, produced on purpose, with its verdict.

mod estimate;

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, ErrorRecord},
    store::{LiveWorker, MinuteStats, Stats, TypeCapacity, WorkerId, WorkerInfo, WorkerSlots},
};
use async_endpoints_testkit::jobs::{self, name};
use uuid::Uuid;

use super::{Explained, Facts, Reason, ReasonCode, Viewer, explain};
use crate::types::TypePause;

const WORKER: WorkerId = WorkerId(Uuid::from_u128(7));

/// A time in seconds. The present is second 100.
fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

/// The facts about a job of type `A` that was accepted in second 10. Leases last 8 s, attempts 50 s at most.
struct World {
    job: JobView,
    stats: Stats,
    minutes: Vec<MinuteStats>,
    pause: Option<TypePause>,
    per_process: Option<u32>,
    viewer: Viewer,
}

impl World {
    /// A job in this state. No worker is live.
    fn new(status: JobStatus) -> Self {
        let job = JobView { status, max_retries: 3, ..jobs::job("A", Duration::from_secs(60)).view(at(10), 1, None) };
        let stats = Stats { now: at(100), ..Stats::default() };
        Self { job, stats, minutes: Vec::new(), pause: None, per_process: None, viewer: Viewer::Operator }
    }

    /// A queued job with so many jobs ahead.
    fn queued(ahead: u64) -> Self {
        let mut world = Self::new(JobStatus::Queued);
        world.job.ahead = Some(ahead);
        world
    }

    /// Adds a live worker that runs so many jobs of the type, at most `limit`.
    fn worker(mut self, of: &str, running: u32, limit: u32, idle: u32) -> Self {
        let info = WorkerInfo {
            types: vec![TypeCapacity { name: name(of), running, limit }],
            slots: WorkerSlots { busy: running, idle, leaked: 0 },
            ..jobs::worker(WORKER)
        };
        self.stats.workers.push(LiveWorker { info, last_heartbeat_at: at(99) });
        self
    }

    /// Adds an attempt that ended 10 s ago.
    fn attempt(mut self, outcome: AttemptOutcome, error: Option<ErrorRecord>) -> Self {
        self.job.attempt += 1;
        let (started_at, ended_at) = (at(60), Some(at(90)));
        let attempt = self.job.attempt;
        self.job.error = error.clone().or(self.job.error);
        self.job.attempts.push(AttemptRecord {
            attempt,
            worker: Some(WORKER),
            started_at,
            ended_at,
            outcome: Some(outcome),
            error,
        });
        match outcome {
            AttemptOutcome::Retried => self.job.retry_count += 1,
            AttemptOutcome::Lost => self.job.loss_count += 1,
            AttemptOutcome::Released => self.job.release_count += 1,
            _ => self.job.completed_at = ended_at,
        }
        if self.job.status.is_terminal() {
            self.job.completed_at = ended_at;
        }
        self
    }

    /// A job whose first attempt has run since that second.
    fn running(since: i64) -> Self {
        let mut world = Self::new(JobStatus::InProgress);
        world.job.attempt = 1;
        world.job.started_at = Some(at(since));
        world.job.attempts.push(AttemptRecord {
            attempt: 1,
            worker: Some(WORKER),
            started_at: at(since),
            ended_at: None,
            outcome: None,
            error: None,
        });
        world
    }

    fn explain(&self) -> Explained {
        explain(&Facts {
            job: &self.job,
            stats: &self.stats,
            minutes: &self.minutes,
            running: &[],
            pause: self.pause.as_ref(),
            per_process: self.per_process,
            paused: Vec::new(),
            lease: Duration::from_secs(8),
            timeout: Some(Duration::from_secs(50)),
            viewer: self.viewer,
        })
    }

    /// Verdict, and codes of all reasons.
    fn codes(&self) -> (String, Vec<ReasonCode>) {
        let explained = self.explain();
        (explained.verdict, explained.reasons.iter().map(|reason| reason.code).collect())
    }

    /// The reason with a code.
    fn reason(&self, code: ReasonCode) -> Reason {
        let mut reasons = self.explain().reasons.into_iter();
        reasons.find(|reason| reason.code == code).unwrap_or_else(|| panic!("no reason {code:?}"))
    }
}

fn permanent(code: &'static str) -> ErrorRecord {
    ErrorRecord { retryable: false, ..short(code) }
}

fn short(code: &'static str) -> ErrorRecord {
    ErrorRecord { detail: Some("It broke.".to_owned()), ..jobs::error(code) }
}

fn assert_reason(reason: &Reason, since: Option<i64>, until: Option<i64>, detail: &str) {
    assert_eq!(reason.detail, detail);
    assert_eq!((reason.since, reason.until), (since.map(at), until.map(at)), "{detail}");
}

#[test]
fn waiting_job_is_explained_by_capacity() {
    use ReasonCode::*;
    let other = |world: World| world.worker("B", 0, 8, 8);
    for (world, verdict, codes) in [
        (World::queued(0), "The job waits because no live worker runs A.", vec![NoWorker, Queued]),
        (other(World::queued(2)), "The job waits because no live worker runs A.", vec![NoWorker, Queued]),
        (
            World::queued(0).worker("A", 1, 8, 7),
            "The job is next. A worker takes it with its next claim.",
            vec![Queued],
        ),
        (World::queued(2).worker("A", 1, 8, 7), "The job waits behind 2 jobs.", vec![Queued]),
        (World::queued(0).worker("A", 8, 8, 0), "The job waits for a free slot.", vec![SlotsBusy]),
        (World::queued(1).worker("A", 8, 8, 0), "The job waits for a free slot behind 1 job.", vec![SlotsBusy, Queued]),
        (
            World::queued(0).worker("A", 2, 2, 6),
            "The job waits because 1 worker reached the limit for A.",
            vec![ConcurrencyLimit],
        ),
        (
            World::queued(3).worker("A", 2, 2, 6).worker("A", 2, 8, 0),
            "The job waits because 1 worker reached the limit for A.",
            vec![ConcurrencyLimit, SlotsBusy, Queued],
        ),
        (World::queued(3).worker("A", 2, 2, 6).worker("A", 2, 8, 1), "The job waits behind 3 jobs.", vec![Queued]),
    ] {
        assert_eq!(world.codes(), (verdict.to_owned(), codes));
    }
}

#[test]
fn reasons_of_waiting_have_details() {
    let none = World::queued(0).worker("B", 0, 8, 8).reason(ReasonCode::NoWorker);
    assert_reason(&none, None, None, "None of 1 live worker has a handler for A.");
    let busy = World::queued(1).worker("A", 8, 8, 0);
    assert_reason(&busy.reason(ReasonCode::SlotsBusy), Some(10), None, "None of 8 slots of 1 worker is free.");
    assert_reason(&busy.reason(ReasonCode::Queued), Some(10), None, "The queue of A has 1 job ahead of it.");
    let limit = World::queued(0).worker("A", 2, 2, 6).reason(ReasonCode::ConcurrencyLimit);
    assert_reason(&limit, Some(10), None, "2 of 2 allowed attempts run in 1 worker with free slots.");
    let mut world = World::queued(0).worker("A", 2, 8, 6).worker("A", 2, 8, 6);
    world.per_process = Some(2);
    let detail = "4 of 4 allowed attempts run: an operator's limit is 2 per process.";
    assert_reason(&world.reason(ReasonCode::ConcurrencyLimit), Some(10), None, detail);
}

#[test]
fn silent_workers_are_neither_live_nor_free() {
    use ReasonCode::*;
    let mut world = World::queued(0).worker("A", 1, 1, 0);
    world.stats.workers[0].last_heartbeat_at = at(96);
    assert_eq!(world.codes().1, [SlotsBusy], "silent for 4 s, half a lease");
    world.stats.workers[0].last_heartbeat_at = at(95);
    assert_eq!(world.codes(), ("The job waits because no live worker runs A.".to_owned(), vec![NoWorker, Queued]));
    assert_reason(&world.reason(NoWorker), None, None, "There is no live worker.");
    assert_eq!(world.explain().workers, super::WorkerCounts::default());
    let world = world.worker("A", 2, 2, 6);
    assert_eq!(world.codes().1, [ConcurrencyLimit], "the slots of the silent worker do not count");
    assert_eq!(world.explain().workers, super::WorkerCounts { live: 1, taking: 1, free: 0 });
}

#[test]
fn durations_have_two_units() {
    for (seconds, text) in [
        (0.44, "0.4 s"),
        (12.0, "12 s"),
        (185.0, "3 min 5 s"),
        (3599.0, "59 min 59 s"),
        (3600.0, "1 h 0 min"),
        (3659.2, "1 h 1 min"),
        (7199.0, "2 h 0 min"),
    ] {
        assert_eq!(super::text::duration(Duration::from_secs_f64(seconds)), text);
    }
}

#[test]
fn pause_hides_its_reason_from_callers() {
    let mut world = World::queued(0).worker("A", 0, 8, 8);
    world.pause = Some(TypePause { reason: "The disk is full.".to_owned(), since: at(50), until: Some(at(200)) });
    let verdict = "The job waits because A is paused.".to_owned();
    assert_eq!(world.codes(), (verdict, vec![ReasonCode::Paused, ReasonCode::Queued]));
    let detail = "An operator paused A: The disk is full.";
    assert_reason(&world.reason(ReasonCode::Paused), Some(50), Some(200), detail);
    assert_eq!(world.explain().estimate, None, "the end of a pause is not sure");
    world.viewer = Viewer::Caller;
    assert_reason(&world.reason(ReasonCode::Paused), Some(50), Some(200), "An operator paused A.");
}

#[test]
fn job_before_its_due_time_is_delayed_or_retried() {
    let mut world = World::new(JobStatus::Scheduled);
    world.job.scheduled_at = Some(at(145));
    let verdict = "The job is delayed. It is due in 45 s.".to_owned();
    assert_eq!(world.codes(), (verdict, vec![ReasonCode::Delayed, ReasonCode::NoWorker]));
    let detail = "Its submission set a delay of 2 min 15 s.";
    assert_reason(&world.reason(ReasonCode::Delayed), Some(10), Some(145), detail);
    let world = world.attempt(AttemptOutcome::Retried, Some(short("BROKEN"))).worker("A", 0, 8, 8);
    let verdict = "Attempt 1 failed with BROKEN. The retry is due in 45 s.".to_owned();
    assert_eq!(world.codes(), (verdict, vec![ReasonCode::RetryBackoff, ReasonCode::Retried]));
    let detail = "Attempt 1 failed with BROKEN (It broke.). This is retry 1 of 3.";
    assert_reason(&world.reason(ReasonCode::RetryBackoff), Some(90), Some(145), detail);
    let mut due = World { stats: Stats { now: at(145), ..world.stats.clone() }, ..world };
    due.stats.workers[0].last_heartbeat_at = at(144);
    assert_eq!(due.codes().1, [ReasonCode::Queued, ReasonCode::Retried], "a due job is runnable");
    assert_eq!(due.reason(ReasonCode::Queued).since, Some(at(145)));
}

#[test]
fn running_job_shows_worker_progress_and_timeout() {
    let mut world = World::running(80).worker("A", 1, 8, 7);
    let verdict = "Attempt 1 has run for 20 s.".to_owned();
    assert_eq!(world.codes(), (verdict, vec![ReasonCode::Running]));
    let detail = format!(
        "Attempt 1 runs on worker {WORKER}, process 1 on test. The worker's last heartbeat is 1.0 s old. It times out in 30 s."
    );
    assert_reason(&world.reason(ReasonCode::Running), Some(80), Some(130), &detail);
    world.viewer = Viewer::Caller;
    world.job.progress = Some(jobs_progress());
    let detail = format!(
        "Attempt 1 runs on worker {WORKER}. The worker's last heartbeat is 1.0 s old. Its progress, 5.0 s old, is 3 of 8. \
         It times out in 30 s."
    );
    assert_reason(&world.reason(ReasonCode::Running), Some(80), Some(130), &detail);
    assert_eq!(world.explain().verdict, "Attempt 1 has run for 20 s, 38 % done.");
}

fn jobs_progress() -> async_endpoints_core::job::Progress {
    let (completed, total, percent) = (3, Some(8), Some(37.5));
    async_endpoints_core::job::Progress { completed, total, percent, message: None, updated_at: at(95) }
}

#[test]
fn running_job_with_a_problem_says_so() {
    use ReasonCode::*;
    let mut canceled = World::running(80).worker("A", 1, 8, 7);
    canceled.job.cancel_requested_at = Some(at(98));
    let verdict = "Attempt 1 runs, and was asked to stop.".to_owned();
    assert_eq!(canceled.codes(), (verdict, vec![CancelRequested, Running]));
    assert_eq!(canceled.reason(CancelRequested).since, Some(at(98)));

    let overdue = World::running(40).worker("A", 1, 8, 7);
    assert_eq!(overdue.codes(), ("Attempt 1 runs past its timeout.".to_owned(), vec![Overdue, Running]));
    assert_reason(&overdue.reason(Overdue), Some(90), None, "The timeout passed 10 s ago.");

    let verdict =
        "The worker of the job is not live, and its lease has expired: the job is to be recovered.".to_owned();
    assert_eq!(World::running(80).codes(), (verdict, vec![LeaseNotRenewed, Running]), "its entry expired");
    assert_eq!(World::running(95).codes().1, [Running], "the claim began a lease");
    let mut late = World::running(80).worker("A", 1, 8, 7);
    late.stats.workers[0].last_heartbeat_at = at(91);
    let verdict =
        "The worker of the job has been silent for 9.0 s, and its lease has expired: the job is to be recovered.";
    assert_eq!(late.codes(), (verdict.to_owned(), vec![LeaseNotRenewed, Running]));
    let detail = "The last heartbeat of its worker is 9.0 s old, and leases last 8.0 s. The next sweep returns the job to its \
                  queue, or fails it if it was lost too often.";
    assert_reason(&late.reason(LeaseNotRenewed), Some(91), Some(99), detail);
    late.stats.workers[0].last_heartbeat_at = at(95);
    let verdict = "The worker of the job has been silent for 5.0 s. If it stays silent, the job is recovered when its lease \
                   expires in 3.0 s.";
    assert_eq!(late.codes(), (verdict.to_owned(), vec![LeaseNotRenewed, Running]));
    let detail = "The last heartbeat of its worker is 5.0 s old, and leases last 8.0 s. The first sweep after the lease expires \
                  returns the job to its queue, or fails it if it was lost too often.";
    assert_reason(&late.reason(LeaseNotRenewed), Some(95), Some(103), detail);
    late.stats.workers[0].last_heartbeat_at = at(96);
    assert_eq!(late.codes().1, [Running], "heartbeats may be 4 s apart");
    late.job.started_at = Some(at(97));
    late.stats.workers[0].last_heartbeat_at = at(90);
    assert_eq!(late.codes().1, [Running], "a claim is a heartbeat");
}

#[test]
fn ended_job_is_explained_by_its_last_attempt() {
    use AttemptOutcome::{Canceled, Completed, Failed, Lost, Retried};
    use ReasonCode as R;
    let failed = || World::new(JobStatus::Failed);
    let no_retry = || {
        let mut world = failed();
        world.job.max_retries = 0;
        world
    };
    for (world, verdict, codes, detail) in [
        (
            World::new(JobStatus::Completed).attempt(Completed, None),
            "The job completed in attempt 1.",
            vec![R::Completed],
            "The handler returned a result in attempt 1, after 30 s.",
        ),
        (
            failed().attempt(Failed, Some(permanent("BAD"))),
            "The job failed in attempt 1 with BAD, which is not retried.",
            vec![R::PermanentError],
            "Attempt 1 failed with BAD (It broke.). The error is permanent.",
        ),
        (
            no_retry().attempt(Failed, Some(short("BROKEN"))),
            "The job failed in attempt 1 with BROKEN: its type allows no retry.",
            vec![R::RetriesUsedUp],
            "Attempt 1 failed with BROKEN (It broke.), and its type allows no retry.",
        ),
        (
            failed().attempt(Retried, Some(short("BROKEN"))).attempt(Failed, Some(short("JOB_TIMEOUT"))),
            "The job failed in attempt 2 with JOB_TIMEOUT: all 3 retries were used.",
            vec![R::RetriesUsedUp, R::TimedOut, R::Retried],
            "Attempt 2 failed with JOB_TIMEOUT (It broke.), and all 3 retries were used.",
        ),
        (
            failed().attempt(Lost, Some(short("WORKER_LOST"))),
            "The job failed with WORKER_LOST: more attempts were lost with their workers than allowed.",
            vec![R::TooManyLosses, R::Recovered],
            "Lost attempts: 1. A worker died or was cut off, and the lease expired.",
        ),
        (
            World::new(JobStatus::Canceled).attempt(Canceled, Some(short("JOB_CANCELED"))),
            "The handler canceled the job in attempt 1.",
            vec![R::CanceledByHandler],
            "Attempt 1 reported that the job is canceled. There was no request to cancel it.",
        ),
        (
            World::new(JobStatus::Canceled),
            "The job was canceled on request before it started.",
            vec![R::CanceledByCaller],
            "The job never started.",
        ),
        (
            World::new(JobStatus::Canceled).attempt(Retried, Some(short("BROKEN"))),
            "The job was canceled on request while it waited.",
            vec![R::CanceledByCaller, R::Retried],
            "The job waited after attempt 1.",
        ),
    ] {
        assert_eq!(world.codes(), (verdict.to_owned(), codes));
        assert_eq!(world.explain().reasons[0].detail, detail);
    }
    let mut asked = World::new(JobStatus::Canceled).attempt(Canceled, Some(short("JOB_CANCELED")));
    asked.job.cancel_requested_at = Some(at(85));
    assert_eq!(asked.codes(), ("The job was canceled on request while it ran.".to_owned(), vec![R::CanceledByCaller]));
    let detail = "The request came while attempt 1 ran. The attempt ended 5.0 s later.";
    assert_reason(&asked.reason(R::CanceledByCaller), Some(90), None, detail);
}

#[test]
fn history_names_releases_and_related_jobs() {
    use ReasonCode::*;
    let mut world = World::queued(0).worker("A", 0, 8, 8);
    let [first, second] = [(); 2].map(|()| JobId::random());
    (world.job.retry_of, world.job.retried_by) = (Some(first), Some(second));
    let world = world.attempt(AttemptOutcome::Released, None).attempt(AttemptOutcome::Lost, Some(short("WORKER_LOST")));
    assert_eq!(world.codes().1, [Queued, Recovered, Released, RetryOf, RetriedBy]);
    let detail = "Attempts released so far: 1. Their workers shut down.";
    assert_reason(&world.reason(Released), Some(90), None, detail);
    let detail = "Attempts lost so far: 1. The lease of a lost attempt expired.";
    assert_reason(&world.reason(Recovered), Some(90), None, detail);
    assert_eq!(world.reason(RetryOf).detail, format!("The job was made to retry job {first}."));
    assert_eq!(world.reason(RetriedBy).detail, format!("Job {second} retries the job."));
}
