//! Sweeps: expired leases are reclaimed, unless an outage kept all workers from renewing.

use std::collections::BTreeSet;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    job::{AttemptOutcome, TraceContext},
    limits::SWEEP_JOBS,
    store::{Claim, NewJob, Outcome, Reclaim, Reclaimed, Recovered, Renewed},
};

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{error, name, traceparent},
    rig::{LONG, lost},
};

pub async fn expired_lease_counts_a_loss_and_requeues(rig: &Rig) {
    rig.warm().await;
    let trace = TraceContext { traceparent: traceparent(7, 9, 1), tracestate: Some("v=1".into()) };
    let mut job = rig.job("alpha");
    job.trace = Some(trace.clone());
    rig.put(&job).await;
    let id = job.id;
    let (attempt, recovered) = rig.lose("alpha").await;
    let view = rig.view(id).await;
    let expected = Recovered {
        id,
        name: name("alpha"),
        attempt: 1,
        status: JobStatus::Queued,
        created_at: view.created_at,
        recovered_at: view.last_updated_at,
        trace: Some(trace),
    };
    assert_eq!(recovered, expected);
    assert_eq!((view.status, view.attempt, view.loss_count), (JobStatus::Queued, 1, 1));
    assert_eq!((view.retry_count, view.release_count, view.completed_at), (0, 0, None));
    let record = &view.attempts[0];
    assert_eq!((record.outcome, &record.error), (Some(AttemptOutcome::Lost), &Some(lost())));
    assert_eq!((record.started_at, record.ended_at), (attempt.started_at, Some(view.last_updated_at)));
    assert_eq!(view.error, Some(lost()), "the error of the last attempt is kept");
    assert_eq!(rig.sweep().await, [], "the lease is reclaimed once");
    assert_eq!(rig.take("alpha").await.attempt, 2);
}

pub async fn job_fails_beyond_max_losses(rig: &Rig) {
    rig.warm().await;
    let mut job = rig.job("alpha");
    job.terms.max_losses = 2;
    rig.put(&job).await;
    for losses in 1..=3 {
        let (_, recovered) = rig.lose("alpha").await;
        let status = if losses == 3 { JobStatus::Failed } else { JobStatus::Queued };
        assert_eq!((recovered.attempt, recovered.status), (losses, status));
    }
    let view = rig.view(job.id).await;
    assert_eq!((view.status, view.error, view.loss_count), (JobStatus::Failed, Some(lost()), 3));
    assert_eq!(view.attempts[2].outcome, Some(AttemptOutcome::Lost));
    assert_eq!(view.completed_at, Some(view.last_updated_at));
    assert_eq!(view.expires_at, view.completed_at.map(|at| at + rig.units(LONG)));
    assert!(rig.claim_ids(&["alpha"]).await.is_empty());
}

pub async fn zero_max_losses_fails_at_first_loss(rig: &Rig) {
    rig.warm().await;
    let mut job = rig.job("alpha");
    job.terms.max_losses = 0;
    rig.put(&job).await;
    let (_, recovered) = rig.lose("alpha").await;
    assert_eq!(recovered.status, JobStatus::Failed);
}

pub async fn unexpired_lease_is_kept(rig: &Rig) {
    rig.warm().await;
    let lease = rig.start("alpha").await.lease;
    rig.advance(2).await;
    assert_eq!(rig.sweep().await, []);
    assert_eq!(rig.renew(lease, 9).await, Renewed::Held);
}

/// A sweep takes at most `limit` leases, earliest expiry first, and returns whether more leases have expired.
pub async fn sweep_takes_oldest_up_to_limit(rig: &Rig) {
    rig.warm().await;
    let mut jobs: Vec<JobId> = Vec::new();
    for lease in [3, 1, 2] {
        jobs.push(rig.queue("alpha").await);
        rig.take_for("alpha", lease).await;
    }
    rig.start("alpha").await;
    rig.advance(5).await;
    let sweep = async |limit| match rig.reclaim(&Reclaim { limit, ..rig.sweeper(LONG) }).await {
        Reclaimed::Done { recovered, more } => (recovered.iter().map(|job| job.id).collect::<Vec<_>>(), more),
        waiting @ Reclaimed::Waiting(_) => panic!("a warm store sweeps at once, not {waiting:?}"),
    };
    assert_eq!(sweep(2).await, (vec![jobs[1], jobs[2]], true));
    assert_eq!(sweep(2).await, (vec![jobs[0]], false));
    assert_eq!(sweep(2).await, (vec![], false));
}

/// A sweep takes at most `SWEEP_JOBS` leases, even for a larger limit.
pub async fn sweep_limit_is_capped(rig: &Rig) {
    rig.warm().await;
    let all = SWEEP_JOBS as usize + 20;
    for _ in 0..all {
        rig.queue("alpha").await;
    }
    let mut claimed = 0;
    while claimed < all {
        let claim = Claim { lease: rig.units(1), ..rig.wanting(&["alpha"], 64) };
        claimed += rig.claim(&claim).await.attempts.len();
    }
    rig.advance(3).await;
    let reclaim = Reclaim { limit: 1_000, ..rig.sweeper(LONG) };
    let Reclaimed::Done { recovered, more: true } = rig.reclaim(&reclaim).await else { panic!("leases are left") };
    assert_eq!(recovered.len(), SWEEP_JOBS as usize);
    let Reclaimed::Done { recovered, more: false } = rig.reclaim(&reclaim).await else { panic!("no lease is left") };
    assert_eq!(recovered.len(), 20);
}

/// After an outage, sweeps wait for one lease duration, so that running workers can renew. Then they reclaim the leases
/// of dead workers.
pub async fn sweep_after_outage_waits_one_lease(rig: &Rig) {
    rig.warm().await;
    let alive = rig.start("alpha").await.lease;
    let dead = rig.start("alpha").await.lease;
    for lease in [alive, dead] {
        rig.renew(lease, 1).await;
    }
    // The outage: no call for longer than the lease duration of 8 units.
    rig.advance(12).await;
    let reclaim = rig.sweeper(8);
    let Reclaimed::Waiting(wait) = rig.reclaim(&reclaim).await else { panic!("the first sweep waits") };
    assert!(wait <= rig.units(8) && wait > rig.units(4), "waits about 8 units, not {wait:?}");
    assert_eq!(rig.renew(alive, 9_000).await, Renewed::Held);
    rig.advance(2).await;
    let Reclaimed::Waiting(rest) = rig.reclaim(&reclaim).await else { panic!("the second sweep waits") };
    assert!(rest < wait, "{rest:?} of {wait:?} is left");
    let mut reclaimed = Vec::new();
    for _ in 0..20 {
        rig.advance(1).await;
        if let Reclaimed::Done { recovered, .. } = rig.reclaim(&reclaim).await {
            reclaimed = recovered.iter().map(|job| job.id).collect();
            break;
        }
    }
    assert_eq!(reclaimed, [dead.job]);
    assert_eq!(rig.renew(alive, 9).await, Renewed::Held);
}

pub async fn regular_sweeps_never_wait(rig: &Rig) {
    rig.warm().await;
    for _ in 0..10 {
        rig.advance(2).await;
        let answer = rig.reclaim(&rig.sweeper(40)).await;
        assert_eq!(answer, Reclaimed::Done { recovered: vec![], more: false });
    }
}

pub async fn concurrent_sweeps_take_each_lease_once(rig: &Rig) {
    rig.warm().await;
    for _ in 0..40 {
        rig.queue("alpha").await;
    }
    let claim = Claim { lease: rig.units(1), ..rig.wanting(&["alpha"], 40) };
    assert_eq!(rig.claim(&claim).await.attempts.len(), 40);
    rig.advance(3).await;
    let sweeps = (0..8).map(|_| {
        let (store, reclaim) = (rig.store.clone(), Reclaim { limit: 7, ..rig.sweeper(LONG) });
        async move { store.reclaim(&reclaim).await.expect("the store answers") }
    });
    let mut reclaimed = BTreeSet::new();
    for answer in run_concurrently(sweeps).await {
        let Reclaimed::Done { recovered, .. } = answer else { panic!("a warm store sweeps at once") };
        for job in recovered {
            assert!(reclaimed.insert(job.id), "{} was reclaimed twice", job.id);
        }
    }
    assert_eq!(reclaimed.len(), 40);
}

pub async fn jobs_not_running_are_not_reclaimed(rig: &Rig) {
    rig.warm().await;
    rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    rig.queue("alpha").await;
    let lease = rig.start("beta").await.lease;
    rig.settle(lease, Outcome::Failed { error: error("F") }).await;
    rig.advance(3).await;
    assert_eq!(rig.sweep().await, []);
}
