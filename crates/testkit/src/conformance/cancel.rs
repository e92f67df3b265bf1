//! Cancellation in every state.

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, JobView,
    job::AttemptOutcome,
    store::{CancelOutcome, NewJob, Outcome, Renewed, Settled},
};

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{completed, error},
    rig::LONG,
};

fn terminal(view: &JobView) -> CancelOutcome {
    CancelOutcome::Terminal(Box::new(view.clone()))
}

pub async fn waiting_job_is_canceled_at_once(rig: &Rig) {
    let retried = rig.start("alpha").await.lease;
    rig.again(retried, 1).await;
    let delayed = rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    let queued = rig.queue("alpha").await;
    for id in [queued, delayed, retried.job] {
        let before = rig.view(id).await;
        let answer = rig.cancel(id).await;
        let view = rig.view(id).await;
        assert_eq!(answer, CancelOutcome::Canceled(Box::new(view.clone())));
        assert_eq!((view.status, view.error), (JobStatus::Canceled, Some(error("JOB_CANCELED"))));
        assert_eq!(view.completed_at, Some(view.last_updated_at));
        assert_eq!(view.expires_at, view.completed_at.map(|at| at + rig.units(LONG)));
        assert_eq!((view.attempt, view.cancel_requested_at), (before.attempt, None));
        assert!(view.version > before.version, "a visible change");
    }
    rig.advance(3).await;
    assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "a canceled job never starts");
}

/// A running job continues after the request until its attempt ends.
pub async fn running_job_gets_a_cancel_request(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let before = rig.view(lease.job).await;
    rig.advance(1).await;
    let answer = rig.cancel(lease.job).await;
    let view = rig.view(lease.job).await;
    assert_eq!(answer, CancelOutcome::Requested(Box::new(view.clone())));
    assert_eq!((view.status, view.cancel_requested_at), (JobStatus::InProgress, Some(view.last_updated_at)));
    assert!(view.version > before.version, "a visible change");
    assert_eq!(rig.renew(lease, 9_000).await, Renewed::CancelRequested);
    rig.complete(lease).await;
}

pub async fn repeated_cancel_changes_nothing(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let queued = rig.queue("beta").await;
    let first = rig.cancel(lease.job).await;
    rig.cancel(queued).await;
    let before = rig.view(queued).await;
    rig.advance(1).await;
    assert_eq!(rig.cancel(lease.job).await, first);
    assert_eq!(rig.store.cancel(queued, &error("OTHER")).await.expect("the store answers"), terminal(&before));
    assert_eq!(rig.view(queued).await, before);
}

pub async fn ended_job_is_not_canceled(rig: &Rig) {
    let outcomes = [completed("1"), Outcome::Failed { error: error("A") }, Outcome::Canceled { error: error("B") }];
    for outcome in outcomes {
        let lease = rig.start("alpha").await.lease;
        rig.settle(lease, outcome).await;
        let before = rig.view(lease.job).await;
        rig.advance(1).await;
        assert_eq!(rig.cancel(lease.job).await, terminal(&before));
        assert_eq!(rig.view(lease.job).await, before);
    }
}

pub async fn unknown_job_is_not_found(rig: &Rig) {
    assert_eq!(rig.cancel(JobId::random()).await, CancelOutcome::NotFound);
}

/// A job with a cancel request ends Canceled when its lease is lost, instead of running again.
pub async fn lost_lease_after_request_ends_canceled(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    let lease = rig.take_for("alpha", 1).await.lease;
    rig.cancel(lease.job).await;
    rig.advance(2).await;
    let recovered = rig.sweep().await;
    assert_eq!(recovered.len(), 1);
    assert_eq!(recovered[0].status, JobStatus::Canceled);
    let view = rig.view(lease.job).await;
    assert_eq!((view.status, view.error.as_ref()), (JobStatus::Canceled, Some(&error("JOB_CANCELED"))));
    assert_eq!(view.loss_count, 1, "the loss counts");
    assert_eq!(view.attempts[0].outcome, Some(AttemptOutcome::Canceled));
    assert_eq!(rig.settle(lease, completed("1")).await, Settled::Lost);
}

/// The job ends once, and both answers match its final state.
pub async fn concurrent_cancel_and_settle_agree(rig: &Rig) {
    for round in 0..40 {
        let lease = rig.start("alpha").await.lease;
        let outcome = if round % 2 == 0 { completed("1") } else { Outcome::Failed { error: error("F") } };
        let (store, settle) = (rig.store.clone(), rig.settlement(lease, outcome));
        let settling = tokio::spawn(async move { store.settle(&[settle]).await.expect("the store answers")[0] });
        let canceled = rig.cancel(lease.job).await;
        let settled = settling.await.expect("no task panics");
        let view = rig.view(lease.job).await;
        assert_eq!(settled, Settled::Settled(view.status));
        match canceled {
            CancelOutcome::Requested(_) if round % 2 == 0 => assert_eq!(view.status, JobStatus::Completed),
            CancelOutcome::Requested(_) => assert_eq!(view.status, JobStatus::Canceled),
            CancelOutcome::Terminal(seen) => assert_eq!(*seen, view),
            other => panic!("{other:?}"),
        }
    }
}

/// One call cancels the job; the others return it as terminal.
pub async fn concurrent_cancels_agree(rig: &Rig) {
    let id = rig.queue("alpha").await;
    let cancels = (0..16).map(|_| {
        let store = rig.store.clone();
        async move { store.cancel(id, &error("JOB_CANCELED")).await.expect("the store answers") }
    });
    let mut canceled = 0;
    for outcome in run_concurrently(cancels).await {
        match outcome {
            CancelOutcome::Canceled(_) => canceled += 1,
            CancelOutcome::Terminal(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((canceled, rig.status(id).await), (1, JobStatus::Canceled));
}
