//! Sweeps: expired leases are taken away, by sweepers that were not cut off themselves.

use async_endpoints_core::{
    JobId, JobStatus,
    job::{AttemptOutcome, TraceContext},
    limits::SWEEP_JOBS,
    store::{NewJob, Reclaim, Reclaimed, Recovered, Renewed},
};

use crate::{
    Rig,
    jobs::{error, name},
    rig::{LONG, lost},
};

/// A lost lease counts a loss; the job is queued again and told as recovered.
pub async fn expired_lease_counts_a_loss_and_requeues(rig: &Rig) {
    rig.warm().await;
    let trace = TraceContext { traceparent: format!("00-{:032x}-{:016x}-01", 7, 9), tracestate: Some("v=1".into()) };
    let mut job = rig.job("alpha");
    job.trace = Some(trace.clone());
    rig.put(&job).await;
    let id = job.id;
    let (attempt, recovered) = rig.lose("alpha").await;
    let view = rig.view(id).await;
    let told = Recovered {
        id,
        name: name("alpha"),
        attempt: 1,
        status: JobStatus::Queued,
        created_at: view.created_at,
        recovered_at: view.last_updated_at,
        trace: Some(trace),
    };
    assert_eq!(recovered, told);
    assert_eq!((view.status, view.attempt, view.loss_count), (JobStatus::Queued, 1, 1));
    assert_eq!((view.retry_count, view.release_count, view.completed_at), (0, 0, None));
    let record = &view.attempts[0];
    assert_eq!((record.outcome, &record.error), (Some(AttemptOutcome::Lost), &Some(lost())));
    assert_eq!((record.started_at, record.ended_at), (attempt.started_at, Some(view.last_updated_at)));
    assert_eq!(view.error, Some(lost()), "why the last attempt ended");
    assert_eq!(rig.sweep().await, [], "once");
    assert_eq!(rig.take("alpha").await.attempt, 2);
}

/// One loss beyond those allowed fails the job.
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

/// No loss allowed: the first fails the job.
pub async fn zero_max_losses_fails_at_first_loss(rig: &Rig) {
    rig.warm().await;
    let mut job = rig.job("alpha");
    job.terms.max_losses = 0;
    rig.put(&job).await;
    let (_, recovered) = rig.lose("alpha").await;
    assert_eq!(recovered.status, JobStatus::Failed);
}

/// Leases that have not expired stay.
pub async fn unexpired_lease_is_kept(rig: &Rig) {
    rig.warm().await;
    let lease = rig.start("alpha").await.lease;
    rig.advance(2).await;
    assert_eq!(rig.sweep().await, []);
    assert_eq!(rig.renew(lease, 9).await, Renewed::Held);
}

/// A sweep is bounded, oldest first, and tells whether more have expired.
pub async fn sweep_takes_oldest_up_to_limit(rig: &Rig) {
    rig.warm().await;
    let mut jobs: Vec<JobId> = Vec::new();
    for lease in [3, 1, 2] {
        jobs.push(rig.queue("alpha").await);
        rig.take_for("alpha", lease).await;
    }
    rig.start("alpha").await;
    rig.advance(5).await;
    let step = async |limit| match rig.reclaim(&Reclaim { limit, ..rig.sweeper(LONG) }).await {
        Reclaimed::Done { recovered, more } => (recovered.iter().map(|one| one.id).collect::<Vec<_>>(), more),
        waiting @ Reclaimed::Waiting(_) => panic!("a warm store sweeps, not {waiting:?}"),
    };
    assert_eq!(step(2).await, (vec![jobs[1], jobs[2]], true));
    assert_eq!(step(2).await, (vec![jobs[0]], false));
    assert_eq!(step(2).await, (vec![], false));
}

/// No sweep takes more than its bound, whatever it asks for.
pub async fn sweep_limit_is_capped(rig: &Rig) {
    rig.warm().await;
    let all = SWEEP_JOBS as usize + 20;
    for _ in 0..all {
        rig.queue("alpha").await;
    }
    let mut claimed = 0;
    while claimed < all {
        let claim = async_endpoints_core::store::Claim { lease: rig.units(1), ..rig.wanting(&["alpha"], 64) };
        claimed += rig.claim(&claim).await.attempts.len();
    }
    rig.advance(3).await;
    let greedy = Reclaim { limit: 1_000, ..rig.sweeper(LONG) };
    let Reclaimed::Done { recovered, more: true } = rig.reclaim(&greedy).await else { panic!("more have expired") };
    assert_eq!(recovered.len(), SWEEP_JOBS as usize);
    let Reclaimed::Done { recovered, more: false } = rig.reclaim(&greedy).await else { panic!("no more") };
    assert_eq!(recovered.len(), 20);
}

/// After an outage everybody was cut off: living workers renew first, only then are the dead taken.
pub async fn sweep_after_outage_waits_one_lease(rig: &Rig) {
    rig.warm().await;
    let living = rig.start("alpha").await.lease;
    let dead = rig.start("alpha").await.lease;
    for lease in [living, dead] {
        rig.renew(lease, 1).await;
    }
    // Nobody reached the store for more than a lease of eight.
    rig.advance(12).await;
    let cut_off = rig.sweeper(8);
    let Reclaimed::Waiting(wait) = rig.reclaim(&cut_off).await else { panic!("it was cut off itself") };
    assert!(wait <= rig.units(8) && wait > rig.units(4), "about one lease, not {wait:?}");
    assert_eq!(rig.renew(living, 9_000).await, Renewed::Held);
    rig.advance(2).await;
    let Reclaimed::Waiting(less) = rig.reclaim(&cut_off).await else { panic!("the lease has not passed yet") };
    assert!(less < wait, "{less:?} of {wait:?} is left");
    let mut taken = Vec::new();
    for _ in 0..20 {
        rig.advance(1).await;
        if let Reclaimed::Done { recovered, .. } = rig.reclaim(&cut_off).await {
            taken = recovered;
            break;
        }
    }
    let ids: Vec<JobId> = taken.iter().map(|recovered| recovered.id).collect();
    assert_eq!(ids, [dead.job]);
    assert_eq!(rig.renew(living, 9).await, Renewed::Held);
}

/// A sweeper that comes on time never waits.
pub async fn regular_sweeps_never_wait(rig: &Rig) {
    rig.warm().await;
    for _ in 0..10 {
        rig.advance(2).await;
        let answer = rig.reclaim(&rig.sweeper(40)).await;
        assert_eq!(answer, Reclaimed::Done { recovered: vec![], more: false });
    }
}

/// Many sweepers take each lease once.
pub async fn concurrent_sweeps_take_each_lease_once(rig: &Rig) {
    rig.warm().await;
    for _ in 0..40 {
        rig.queue("alpha").await;
    }
    let claim = async_endpoints_core::store::Claim { lease: rig.units(1), ..rig.wanting(&["alpha"], 40) };
    assert_eq!(rig.claim(&claim).await.attempts.len(), 40);
    rig.advance(3).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, sweep) = (rig.store.clone(), Reclaim { limit: 7, ..rig.sweeper(LONG) });
            tokio::spawn(async move {
                use async_endpoints_core::JobStore as _;
                store.reclaim(&sweep).await.expect("the store answers")
            })
        })
        .collect();
    let mut taken = std::collections::BTreeSet::new();
    for task in tasks {
        let Reclaimed::Done { recovered, .. } = task.await.expect("no task panics") else { panic!("it is warm") };
        for one in recovered {
            assert!(taken.insert(one.id), "{} was taken twice", one.id);
        }
    }
    assert_eq!(taken.len(), 40);
}

/// The delay of a job has nothing to do with its leases: a scheduled job is never swept.
pub async fn jobs_not_running_are_not_reclaimed(rig: &Rig) {
    rig.warm().await;
    rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    rig.queue("alpha").await;
    let lease = rig.start("beta").await.lease;
    rig.settle(lease, async_endpoints_core::store::Outcome::Failed { error: error("F") }).await;
    rig.advance(3).await;
    assert_eq!(rig.sweep().await, []);
}
