//! How attempts end, and that a repeat changes nothing.

use async_endpoints_core::{
    JobStatus, JobStore as _, JobView,
    job::{AttemptOutcome, ErrorRecord},
    limits::ATTEMPTS_KEPT,
    store::{Lease, Outcome, Report, ReportedProgress, Settled, Settlement},
};

use crate::{
    Rig,
    jobs::{completed, error},
};

/// Every way an attempt ends, with the state the job goes to by it.
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

fn cause(outcome: &Outcome) -> Option<ErrorRecord> {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Failed { error } | Outcome::Canceled { error } => Some(error.clone()),
        Outcome::Completed { .. } | Outcome::Released => None,
    }
}

fn counters(view: &JobView) -> (u32, u32, u32, u32) {
    (view.attempt, view.retry_count, view.loss_count, view.release_count)
}

/// Each outcome moves the job to its state and is remembered with its error.
pub async fn each_outcome_sets_the_job_state(rig: &Rig) {
    for (outcome, status, kind) in outcomes(rig) {
        let lease = rig.start("alpha").await.lease;
        let before = rig.view(lease.job).await;
        rig.advance(1).await;
        assert_eq!(rig.settle(lease, outcome.clone()).await, Settled::Settled(status));
        let view = rig.view(lease.job).await;
        assert_eq!(view.status, status);
        assert!(view.version > before.version, "an end is a visible change");
        assert_eq!(view.started_at, before.started_at);
        let record = &view.attempts[0];
        assert_eq!((record.attempt, record.outcome, &record.error), (1, Some(kind), &cause(&outcome)));
        assert_eq!((Some(record.started_at), record.ended_at), (view.started_at, Some(view.last_updated_at)));
        let retried = u32::from(kind == AttemptOutcome::Retried);
        let released = u32::from(kind == AttemptOutcome::Released);
        assert_eq!(counters(&view), (1, retried, 0, released));
        if kind != AttemptOutcome::Released {
            assert_eq!(view.error, cause(&outcome));
        }
        let ended = status.is_terminal().then_some(view.last_updated_at);
        assert_eq!((view.completed_at, view.expires_at), (ended, ended.map(|at| at + rig.units(crate::rig::LONG))));
        let result = (status == JobStatus::Completed).then_some(&br#"{"ok":true}"#[..]);
        assert_eq!(view.result.as_deref(), result);
        rig.cancel(lease.job).await;
    }
}

/// A retried job waits its delay, by the store's clock, and then runs.
pub async fn retried_job_runs_after_its_delay(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    rig.again(lease, 3).await;
    let view = rig.view(lease.job).await;
    assert_eq!(view.scheduled_at, Some(view.last_updated_at + rig.units(3)));
    if rig.time.clock().is_some() {
        rig.advance(2).await;
        assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "not before it is due");
    }
    rig.advance(4).await;
    let attempt = rig.take("alpha").await;
    assert_eq!((attempt.lease.job, attempt.attempt, attempt.retry_count), (lease.job, 2, 1));
    assert!(Some(attempt.started_at) >= view.scheduled_at);
}

/// A settlement comes again because its reply was lost: the same answer, no change, also with another outcome.
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

/// The repeat may come after the next claim: the last lease is still known.
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
        assert_eq!(rig.settle(lease, Outcome::Released).await, Settled::Settled(status), "and after its end");
    }
}

/// The last lease is known, the one before it is lost.
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

/// After a cancel request, whatever is not completed is Canceled with `if_canceled`; so is the attempt.
pub async fn cancel_request_overrides_all_but_completed(rig: &Rig) {
    for (outcome, status, kind) in outcomes(rig) {
        let lease = rig.start("alpha").await.lease;
        rig.cancel(lease.job).await;
        let settle = Settlement { if_canceled: error("IF_CANCELED"), ..rig.settlement(lease, outcome.clone()) };
        let completes = kind == AttemptOutcome::Completed;
        let (status, kind) = if completes { (status, kind) } else { (JobStatus::Canceled, AttemptOutcome::Canceled) };
        let why = (!completes).then(|| error("IF_CANCELED"));
        for _ in 0..2 {
            assert_eq!(rig.settle_one(settle.clone()).await, Settled::Settled(status), "{outcome:?}");
        }
        let view = rig.view(lease.job).await;
        assert_eq!((view.status, &view.error), (status, &why));
        assert_eq!((view.attempts[0].outcome, &view.attempts[0].error), (Some(kind), &why));
        assert!(view.cancel_requested_at.is_some(), "it stays known who asked when");
        assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "never a new attempt");
    }
}

fn progress(completed: u64) -> ReportedProgress {
    ReportedProgress { completed, total: Some(80), percent: Some(12.5), message: Some("rows  ünï\n".to_owned()) }
}

/// The last progress is stored with the end of the attempt, whatever the outcome, in the version of the end.
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

/// A progress of a few fields, and no progress before it.
pub async fn final_progress_may_omit_fields(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let little = ReportedProgress { completed: 11, total: None, percent: None, message: None };
    rig.settle_one(Settlement { progress: Some(little.clone()), ..rig.settlement(lease, completed("1")) }).await;
    let view = rig.view(lease.job).await;
    assert_eq!(view.progress, Some(little.stored(view.last_updated_at)));
}

/// Without a last progress, the progress reported before stays.
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

/// The next attempt begins without the last progress of the one before.
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

/// A settlement of a lease that was taken away changes nothing.
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

/// A batch answers for each, in order, and each counts for itself.
pub async fn batch_answers_in_order(rig: &Rig) {
    for _ in 0..6 {
        rig.queue("alpha").await;
    }
    let leases: Vec<Lease> = rig.claim_any(&["alpha"], 6).await.iter().map(|attempt| attempt.lease).collect();
    let stale = Lease { token: async_endpoints_core::store::LeaseToken::random(), ..leases[5] };
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

/// A full batch.
pub async fn full_and_empty_batches_settle(rig: &Rig) {
    for _ in 0..64 {
        rig.queue("alpha").await;
    }
    let settles: Vec<Settlement> = rig
        .claim_any(&["alpha"], 64)
        .await
        .iter()
        .map(|attempt| rig.settlement(attempt.lease, completed("1")))
        .collect();
    let answers = rig.store.settle(&settles).await.expect("the store answers");
    assert_eq!(answers, vec![Settled::Settled(JobStatus::Completed); 64]);
    assert_eq!(rig.store.settle(&[]).await.expect("the store answers"), []);
}

/// A job remembers its last attempts, the running one last.
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
    let (running, ended) = view.attempts.split_last().expect("attempts are remembered");
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

/// Two workers settle one lease at once: one outcome counts, both hear it.
pub async fn concurrent_settles_of_one_lease_agree(rig: &Rig) {
    for _ in 0..20 {
        let lease = rig.start("alpha").await.lease;
        let tasks: Vec<_> = outcomes(rig)
            .into_iter()
            .map(|(outcome, ..)| {
                let (store, settle) = (rig.store.clone(), rig.settlement(lease, outcome));
                tokio::spawn(async move { store.settle(&[settle]).await.expect("the store answers")[0] })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("no task panics"));
        }
        let status = rig.status(lease.job).await;
        assert_eq!(answers, vec![Settled::Settled(status); answers.len()]);
        rig.cancel(lease.job).await;
    }
}
