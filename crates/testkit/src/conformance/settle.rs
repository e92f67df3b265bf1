//! Settlements: the effect of each outcome on the job, and the idempotence of repeated settlements.

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, JobView,
    job::{AttemptOutcome, ErrorRecord},
    limits::{ATTEMPTS_KEPT, BATCH_JOBS, ERROR_SOURCES, LOG_BYTES_PER_JOB},
    store::{
        Claim, Lease, LeaseToken, ListFilter, Outcome, Page, Report, ReportedProgress, RetryAs, Settled, Settlement,
        WorkerId,
    },
};
use uuid::Uuid;

use super::{report::progress, run_concurrently};
use crate::{
    Rig,
    jobs::{completed, error, line},
    rig::LONG,
};

/// Every outcome, with the resulting state of the job and the recorded outcome of the attempt.
fn outcomes(rig: &Rig) -> Vec<(Outcome, JobStatus, AttemptOutcome)> {
    let error = || error("TEST_ENDED");
    vec![
        (completed(r#"{"ok":true}"#), JobStatus::Completed, AttemptOutcome::Completed),
        (Outcome::Retry { delay: rig.units(1), error: error() }, JobStatus::Scheduled, AttemptOutcome::Retried),
        (Outcome::Failed { error: error() }, JobStatus::Failed, AttemptOutcome::Failed),
        (Outcome::Canceled { error: error() }, JobStatus::Canceled, AttemptOutcome::Canceled),
        (Outcome::Released, JobStatus::Queued, AttemptOutcome::Released),
    ]
}

fn error_of(outcome: &Outcome) -> Option<ErrorRecord> {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Failed { error } | Outcome::Canceled { error } => Some(error.clone()),
        Outcome::Completed { .. } | Outcome::Released => None,
    }
}

fn counters(view: &JobView) -> (u32, u32, u32, u32) {
    (view.attempt, view.retry_count, view.loss_count, view.release_count)
}

/// Each outcome sets the job's state and is recorded in the attempt, with its error.
pub async fn each_outcome_sets_the_job_state(rig: &Rig) {
    for (outcome, status, recorded) in outcomes(rig) {
        let lease = rig.start("alpha").await.lease;
        let before = rig.view(lease.job).await;
        rig.advance(1).await;
        assert_eq!(rig.settle(lease, outcome.clone()).await, Settled::Settled(status));
        let view = rig.view(lease.job).await;
        assert_eq!(view.status, status);
        assert!(view.version > before.version, "a visible change");
        assert_eq!(view.started_at, before.started_at);
        let record = &view.attempts[0];
        assert_eq!((record.attempt, record.outcome, &record.error), (1, Some(recorded), &error_of(&outcome)));
        assert_eq!((Some(record.started_at), record.ended_at), (view.started_at, Some(view.last_updated_at)));
        let retried = u32::from(recorded == AttemptOutcome::Retried);
        let released = u32::from(recorded == AttemptOutcome::Released);
        assert_eq!(counters(&view), (1, retried, 0, released));
        if recorded != AttemptOutcome::Released {
            assert_eq!(view.error, error_of(&outcome));
        }
        let ended = status.is_terminal().then_some(view.last_updated_at);
        assert_eq!((view.completed_at, view.expires_at), (ended, ended.map(|at| at + rig.units(LONG))));
        let result = (status == JobStatus::Completed).then_some(&br#"{"ok":true}"#[..]);
        assert_eq!(view.result.as_deref(), result);
        rig.cancel(lease.job).await;
    }
}

/// The sources of an error are read back byte for byte: in the job, the list and the attempts. An operator's retry has none.
pub async fn error_sources_are_kept(rig: &Rig) {
    let longest = ErrorRecord { sources: vec!["\u{1}ü\"".repeat(1000); 1], ..error("LONG") };
    let many = ErrorRecord { sources: (0..ERROR_SOURCES).map(|n| format!("cause {n}\n")).collect(), ..error("MANY") };
    let lease = rig.start("alpha").await.lease;
    rig.settle(lease, Outcome::Retry { delay: rig.units(1), error: longest.clone() }).await;
    assert_eq!(rig.view(lease.job).await.error, Some(longest.clone()), "between two attempts");
    rig.advance(2).await;
    let next = rig.take("alpha").await.lease;
    rig.settle(next, Outcome::Failed { error: many.clone() }).await;
    let view = rig.view(lease.job).await;
    assert_eq!(view.error, Some(many.clone()));
    let recorded: Vec<_> = view.attempts.iter().map(|attempt| attempt.error.clone()).collect();
    assert_eq!(recorded, [Some(longest), Some(many.clone())]);
    let filter = ListFilter { status: Some(JobStatus::Failed), ..ListFilter::default() };
    let listed = rig.store.list(&filter, &Page { cursor: None, limit: 10 }).await.expect("the store answers");
    assert_eq!(listed.jobs.iter().map(|job| job.error.clone()).collect::<Vec<_>>(), [Some(many)]);
    let retry = RetryAs { id: JobId::random(), trace: None };
    rig.store.retry(lease.job, &retry).await.expect("the store answers");
    assert_eq!(rig.view(retry.id).await.error, None);
}

pub async fn retried_job_runs_after_its_delay(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    rig.again(lease, 3).await;
    let view = rig.view(lease.job).await;
    assert_eq!(view.scheduled_at, Some(view.last_updated_at + rig.units(3)));
    if rig.time.clock().is_some() {
        rig.advance(2).await;
        assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "a job is not claimed before its due time");
    }
    rig.advance(4).await;
    let attempt = rig.take("alpha").await;
    assert_eq!((attempt.lease.job, attempt.attempt, attempt.retry_count), (lease.job, 2, 1));
    assert!(Some(attempt.started_at) >= view.scheduled_at);
}

/// A worker repeats a settlement if the reply was lost. The first outcome stands, even if the repeat has another.
pub async fn repeated_settle_is_idempotent(rig: &Rig) {
    for (outcome, status, _) in outcomes(rig) {
        let lease = rig.start("alpha").await.lease;
        assert_eq!(rig.settle(lease, outcome.clone()).await, Settled::Settled(status));
        let before = rig.view(lease.job).await;
        rig.advance(1).await;
        assert_eq!(rig.settle(lease, outcome).await, Settled::Settled(status));
        assert_eq!(rig.settle(lease, completed("2")).await, Settled::Settled(status));
        assert_eq!(rig.view(lease.job).await, before);
        rig.cancel(lease.job).await;
    }
}

/// A repeat is recognized while the next attempt runs and after that attempt has ended the job.
pub async fn repeated_settle_after_next_claim_is_idempotent(rig: &Rig) {
    for (outcome, status, _) in outcomes(rig).into_iter().filter(|(_, status, _)| !status.is_terminal()) {
        let lease = rig.start("alpha").await.lease;
        rig.settle(lease, outcome.clone()).await;
        rig.advance(2).await;
        let next = rig.take("alpha").await;
        let before = rig.view(lease.job).await;
        assert_eq!(rig.settle(lease, outcome).await, Settled::Settled(status));
        assert_eq!(rig.settle(lease, completed("2")).await, Settled::Settled(status));
        assert_eq!(rig.view(lease.job).await, before);
        rig.complete(next.lease).await;
        assert_eq!(rig.settle(lease, Outcome::Released).await, Settled::Settled(status), "after the end of the job");
    }
}

/// A store recognizes the current lease of a job and the lease before, but no older lease.
pub async fn settle_with_older_lease_is_lost(rig: &Rig) {
    let first = rig.start("alpha").await.lease;
    rig.release(first).await;
    let second = rig.take("alpha").await.lease;
    rig.release(second).await;
    let third = rig.take("alpha").await.lease;
    let before = rig.view(first.job).await;
    assert_eq!(rig.settle(first, completed("1")).await, Settled::Lost);
    assert_eq!(rig.settle(second, completed("1")).await, Settled::Settled(JobStatus::Queued));
    assert_eq!(rig.view(first.job).await, before);
    rig.complete(third).await;
}

/// After a cancel request, every outcome except Completed cancels the job and the attempt with the error `if_canceled`.
pub async fn cancel_request_overrides_all_but_completed(rig: &Rig) {
    for (outcome, status, recorded) in outcomes(rig) {
        let lease = rig.start("alpha").await.lease;
        rig.cancel(lease.job).await;
        let settle = Settlement { if_canceled: error("IF_CANCELED"), ..rig.settlement(lease, outcome.clone()) };
        let (status, recorded, error) = match recorded {
            AttemptOutcome::Completed => (status, recorded, None),
            _ => (JobStatus::Canceled, AttemptOutcome::Canceled, Some(error("IF_CANCELED"))),
        };
        for _ in 0..2 {
            assert_eq!(rig.settle_one(settle.clone()).await, Settled::Settled(status), "{outcome:?}");
        }
        let view = rig.view(lease.job).await;
        assert_eq!((view.status, &view.error), (status, &error));
        assert_eq!((view.attempts[0].outcome, &view.attempts[0].error), (Some(recorded), &error));
        assert!(view.cancel_requested_at.is_some(), "the time of the request is kept");
        assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "no new attempt starts");
    }
}

/// The progress of a settlement is stored for every outcome, in the same version as the outcome.
pub async fn final_progress_replaces_progress(rig: &Rig) {
    for cancel in [false, true] {
        for (outcome, ..) in outcomes(rig) {
            let lease = rig.start("alpha").await.lease;
            rig.report(Report { lease, progress: Some(progress(3)), logs: vec![] }).await;
            if cancel {
                rig.cancel(lease.job).await;
            }
            rig.advance(1).await;
            let settle = Settlement { progress: Some(progress(79)), ..rig.settlement(lease, outcome) };
            rig.settle_one(settle.clone()).await;
            let view = rig.view(lease.job).await;
            assert_eq!(view.progress, Some(progress(79).stored(view.last_updated_at)));
            assert_eq!(view.attempts[0].ended_at, Some(view.last_updated_at));
            rig.advance(1).await;
            rig.settle_one(Settlement { progress: Some(progress(80)), ..settle }).await;
            assert_eq!(rig.view(lease.job).await, view, "a repeat changes nothing");
            rig.cancel(lease.job).await;
        }
    }
}

pub async fn final_progress_may_omit_fields(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let sparse = ReportedProgress { completed: 11, total: None, percent: None, message: None };
    rig.settle_one(Settlement { progress: Some(sparse.clone()), ..rig.settlement(lease, completed("1")) }).await;
    let view = rig.view(lease.job).await;
    assert_eq!(view.progress, Some(sparse.stored(view.last_updated_at)));
}

/// A settlement without progress keeps the progress that was reported before.
pub async fn settle_without_progress_keeps_the_last(rig: &Rig) {
    for (outcome, ..) in outcomes(rig) {
        let lease = rig.start("alpha").await.lease;
        rig.report(Report { lease, progress: Some(progress(3)), logs: vec![] }).await;
        let before = rig.view(lease.job).await.progress;
        rig.advance(1).await;
        rig.settle(lease, outcome).await;
        assert_eq!(rig.view(lease.job).await.progress, before);
        rig.cancel(lease.job).await;
    }
}

pub async fn next_claim_clears_final_progress(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    rig.settle_one(Settlement { progress: Some(progress(79)), ..rig.settlement(lease, Outcome::Released) }).await;
    let next = rig.take("alpha").await.lease;
    assert_eq!(rig.view(lease.job).await.progress, None);
    let late = Settlement { progress: Some(progress(80)), ..rig.settlement(lease, Outcome::Released) };
    assert_eq!(rig.settle_one(late).await, Settled::Settled(JobStatus::Queued));
    assert_eq!(rig.view(lease.job).await.progress, None, "a repeat writes nothing to the running attempt");
    rig.complete(next).await;
}

/// The last lines of an attempt are appended for every outcome, once, behind the reported ones.
pub async fn settle_appends_its_lines_once(rig: &Rig) {
    for cancel in [false, true] {
        for (outcome, ..) in outcomes(rig) {
            let lease = rig.start("alpha").await.lease;
            rig.report(Report { lease, progress: None, logs: vec![line("one")] }).await;
            if cancel {
                rig.cancel(lease.job).await;
            }
            let logs = vec![line("two\n\0ünï"), line(""), line("four")];
            let settle = Settlement { logs, ..rig.settlement(lease, outcome) };
            rig.settle_one(settle.clone()).await;
            let lines = log_lines(rig, lease.job).await;
            let expected = ["one", "two\n\0ünï", "", "four"];
            assert_eq!(lines, (1..).zip(expected).map(|(at, text)| (at, 1, text.to_owned())).collect::<Vec<_>>());
            rig.settle_one(settle).await;
            assert_eq!(log_lines(rig, lease.job).await, lines, "a repeat appends nothing");
            rig.cancel(lease.job).await;
        }
    }
}

/// Lines of a settlement count like reported ones: their numbers are continued, and the oldest attempt's are dropped.
pub async fn lines_of_settlements_are_limited(rig: &Rig) {
    let block = "x".repeat(LOG_BYTES_PER_JOB / 10);
    let id = rig.queue("alpha").await;
    for _ in 0..4 {
        let lease = rig.take("alpha").await.lease;
        let logs = vec![line(&block), line(&block), line(&block)];
        rig.settle_one(Settlement { logs, ..rig.settlement(lease, Outcome::Released) }).await;
    }
    let kept: Vec<(u64, u32)> =
        log_lines(rig, id).await.into_iter().map(|(line, attempt, _)| (line, attempt)).collect();
    assert_eq!(kept, (4..=12).map(|line| (line, (line as u32 - 1) / 3 + 1)).collect::<Vec<_>>());
}

pub async fn settle_with_lost_lease_appends_no_lines(rig: &Rig) {
    let first = rig.start("alpha").await.lease;
    rig.release(first).await;
    let second = rig.take("alpha").await.lease;
    let stale = Lease { token: LeaseToken::random(), ..second };
    for lease in [first, stale] {
        let settle = rig.settlement(lease, completed("1"));
        rig.settle_one(Settlement { logs: vec![line("late")], ..settle }).await;
    }
    assert_eq!(log_lines(rig, first.job).await, []);
    rig.complete(second).await;
}

async fn log_lines(rig: &Rig, id: JobId) -> Vec<(u64, u32, String)> {
    let lines = rig.store.logs(id, 0, 1_000).await.expect("the store answers");
    lines.into_iter().map(|line| (line.line, line.attempt, line.message)).collect()
}

/// A settlement with a reclaimed lease changes nothing.
pub async fn settle_after_reclaim_is_lost(rig: &Rig) {
    rig.warm().await;
    for (outcome, _, _) in outcomes(rig) {
        rig.queue("alpha").await;
        let (attempt, _) = rig.lose("alpha").await;
        let before = rig.view(attempt.lease.job).await;
        let settle = Settlement { progress: Some(progress(79)), ..rig.settlement(attempt.lease, outcome.clone()) };
        assert_eq!(rig.settle_one(settle).await, Settled::Lost);
        assert_eq!(rig.view(attempt.lease.job).await, before);
        let next = rig.take("alpha").await;
        assert_eq!(rig.settle(attempt.lease, outcome).await, Settled::Lost);
        rig.complete(next.lease).await;
    }
}

/// The answers have the order of the settlements. A lost lease or a repeat affects no other settlement of the batch.
pub async fn batch_answers_in_order(rig: &Rig) {
    for _ in 0..6 {
        rig.queue("alpha").await;
    }
    let leases: Vec<Lease> = rig.claim_any(&["alpha"], 6).await.iter().map(|attempt| attempt.lease).collect();
    let stale = Lease { token: LeaseToken::random(), ..leases[5] };
    let mut settles: Vec<Settlement> =
        outcomes(rig).into_iter().zip(&leases).map(|((outcome, ..), lease)| rig.settlement(*lease, outcome)).collect();
    settles.insert(2, rig.settlement(stale, completed("1")));
    settles.push(settles[0].clone());
    let answers = rig.store.settle(&settles).await.expect("the store answers");
    let mut expected: Vec<Settled> = outcomes(rig).iter().map(|(_, status, _)| Settled::Settled(*status)).collect();
    expected.insert(2, Settled::Lost);
    expected.push(expected[0]);
    assert_eq!(answers, expected);
    assert_eq!(rig.status(leases[5].job).await, JobStatus::InProgress);
}

pub async fn full_and_empty_batches_settle(rig: &Rig) {
    for _ in 0..BATCH_JOBS {
        rig.queue("alpha").await;
    }
    let attempts = rig.claim_any(&["alpha"], BATCH_JOBS as u32).await;
    let settles: Vec<_> = attempts.iter().map(|attempt| rig.settlement(attempt.lease, completed("1"))).collect();
    let answers = rig.store.settle(&settles).await.expect("the store answers");
    assert_eq!(answers, vec![Settled::Settled(JobStatus::Completed); BATCH_JOBS]);
    assert_eq!(rig.store.settle(&[]).await.expect("the store answers"), []);
}

/// A job keeps its last `ATTEMPTS_KEPT` attempts, oldest first, including the running attempt.
pub async fn last_attempts_are_kept(rig: &Rig) {
    let id = rig.queue("alpha").await;
    let rounds = ATTEMPTS_KEPT as u32 + 5;
    for round in 1..=rounds {
        let lease = rig.take("alpha").await.lease;
        if round % 2 == 0 {
            rig.release(lease).await;
        } else {
            rig.again(lease, 1).await;
            rig.advance(2).await;
        }
    }
    let last = rig.take("alpha").await;
    let view = rig.view(id).await;
    let numbers: Vec<u32> = view.attempts.iter().map(|record| record.attempt).collect();
    let expected: Vec<u32> = (rounds + 2 - ATTEMPTS_KEPT as u32..=rounds + 1).collect();
    assert_eq!(numbers, expected, "the last {ATTEMPTS_KEPT}, oldest first");
    let (running, ended) = view.attempts.split_last().expect("attempts are kept");
    assert_eq!((running.ended_at, running.outcome, &running.error), (None, None, &None));
    assert_eq!(Some(running.started_at), view.started_at);
    for record in ended {
        let released = record.attempt % 2 == 0;
        let outcome = if released { AttemptOutcome::Released } else { AttemptOutcome::Retried };
        assert_eq!((record.outcome, record.error.is_some()), (Some(outcome), !released));
        assert!(record.ended_at >= Some(record.started_at));
    }
    rig.complete(last.lease).await;
}

/// Each attempt names the worker that claimed it, while it runs and however it ended.
pub async fn attempts_name_their_worker(rig: &Rig) {
    rig.warm().await;
    let settled = outcomes(rig).into_iter().map(|(outcome, ..)| Some(outcome));
    for outcome in settled.chain([None]) {
        let id = rig.queue("alpha").await;
        let mut workers = Vec::new();
        // The first attempt is released, the second ends with the outcome, or its lease is lost.
        for is_last in [false, true] {
            let worker = WorkerId(Uuid::new_v4());
            workers.push(Some(worker));
            let claim = Claim { worker, lease: rig.units(1), ..rig.wanting(&["alpha"], 1) };
            let lease = rig.claim(&claim).await.attempts[0].lease;
            assert_eq!(workers_of(rig, id).await, workers, "the attempt runs");
            match &outcome {
                _ if !is_last => rig.release(lease).await,
                Some(outcome) => {
                    rig.settle(lease, outcome.clone()).await;
                }
                None => {
                    rig.advance(2).await;
                    assert_eq!(rig.sweep().await.len(), 1, "the expired lease is reclaimed");
                }
            }
            assert_eq!(workers_of(rig, id).await, workers, "{outcome:?}");
        }
        rig.cancel(id).await;
    }
}

async fn workers_of(rig: &Rig, id: JobId) -> Vec<Option<WorkerId>> {
    rig.view(id).await.attempts.iter().map(|attempt| attempt.worker).collect()
}

/// Concurrent settlements of one lease apply one outcome, and every call returns it.
pub async fn concurrent_settles_of_one_lease_agree(rig: &Rig) {
    for _ in 0..20 {
        let lease = rig.start("alpha").await.lease;
        let settles = outcomes(rig).into_iter().map(|(outcome, ..)| {
            let (store, settle) = (rig.store.clone(), rig.settlement(lease, outcome));
            async move { store.settle(&[settle]).await.expect("the store answers")[0] }
        });
        let answers = run_concurrently(settles).await;
        let status = rig.status(lease.job).await;
        assert_eq!(answers, vec![Settled::Settled(status); answers.len()]);
        rig.cancel(lease.job).await;
    }
}
