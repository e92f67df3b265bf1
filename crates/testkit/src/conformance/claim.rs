//! Claims: which jobs are taken, how many, what an attempt carries, and who gets it under contention.

use std::collections::BTreeSet;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, Priority,
    job::TraceContext,
    limits::BATCH_JOBS,
    store::{Claim, NewJob, Outcome, Settlement, TypeQuota},
};
use bytes::Bytes;

use crate::{
    Rig,
    jobs::{self, error, name},
};

/// An attempt carries all that its worker needs, and the job shows it.
pub async fn attempt_carries_the_job_fields(rig: &Rig) {
    let trace = TraceContext { traceparent: format!("00-{:032x}-{:016x}-01", 7, 9), tracestate: None };
    let mut job = NewJob { trace: Some(trace.clone()), payload: Bytes::from_static(b"body"), ..rig.job("alpha") };
    (job.terms.priority, job.terms.max_retries) = (Priority::new(7), 4);
    rig.put(&job).await;
    let created = rig.view(job.id).await;
    rig.advance(3).await;
    let claim = rig.wanting(&["alpha"], 1);
    let claimed = rig.claim(&claim).await;
    let attempt = &claimed.attempts[0];
    assert_eq!((attempt.lease.job, attempt.lease.token), (job.id, claim.token));
    assert_eq!((attempt.name.as_str(), attempt.attempt, attempt.retry_count), ("alpha", 1, 0));
    assert_eq!((attempt.max_retries, attempt.priority), (4, Priority::new(7)));
    assert_eq!((&attempt.payload[..], attempt.trace.as_ref()), (&b"body"[..], Some(&trace)));
    assert_eq!((attempt.created_at, attempt.runnable_since), (created.created_at, created.created_at));
    assert_eq!((attempt.started_at, attempt.previous_span.as_deref()), (claimed.now, None));
    let view = rig.view(job.id).await;
    assert_eq!((view.status, view.attempt, view.ahead), (JobStatus::InProgress, 1, None));
    assert_eq!((view.started_at, view.last_updated_at), (Some(claimed.now), claimed.now));
    assert_eq!((view.created_at, view.completed_at), (created.created_at, None));
    assert!(view.version > created.version, "a start is a visible change");
}

/// An empty store gives nothing, and has nothing due.
pub async fn claim_without_runnable_jobs_is_empty(rig: &Rig) {
    let claimed = rig.claim(&rig.wanting(&["alpha", "beta"], 5)).await;
    assert_eq!((claimed.attempts.len(), claimed.next_claim), (0, None));
    rig.start("alpha").await;
    assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "what runs is not taken again");
}

/// Types that were not asked for are left alone, due ones too.
pub async fn other_types_are_not_claimed(rig: &Rig) {
    let queued = rig.queue("beta").await;
    let due = rig.put(&NewJob { delay: rig.units(1), ..rig.job("beta") }).await;
    rig.advance(2).await;
    let claimed = rig.claim(&rig.wanting(&["alpha", "bet", "beta.x"], 5)).await;
    assert_eq!((claimed.attempts.len(), claimed.next_claim), (0, None));
    assert_eq!(rig.status(queued).await, JobStatus::Queued);
    assert_eq!(rig.status(due).await, JobStatus::Scheduled, "due, and nobody came for it");
}

/// Each want bounds its own type, `max` bounds them all.
pub async fn quotas_and_max_limit_a_claim(rig: &Rig) {
    for _ in 0..5 {
        rig.queue("alpha").await;
        rig.queue("beta").await;
    }
    let want = |of: &str, n| TypeQuota { name: name(of), max: n, timeout: rig.units(9) };
    let claim = Claim { quotas: vec![want("alpha", 2), want("beta", 4)], ..rig.wanting(&[], 5) };
    let taken = rig.claim(&claim).await.attempts;
    let of = |name: &str| taken.iter().filter(|attempt| attempt.name.as_str() == name).count();
    assert_eq!((of("alpha"), of("beta")), (2, 3));
    assert_eq!(rig.counts("alpha").await.count(JobStatus::Queued), 3);
    assert_eq!(rig.claim_any(&["alpha", "beta"], 1).await.len(), 1);
}

/// No claim gives more than a batch.
pub async fn claim_is_limited_to_a_batch(rig: &Rig) {
    for _ in 0..BATCH_JOBS + 6 {
        rig.queue("alpha").await;
    }
    let first = rig.claim_any(&["alpha"], 1_000).await;
    assert_eq!(first.len(), BATCH_JOBS);
    assert_eq!(rig.claim_any(&["alpha"], 1_000).await.len(), 6);
}

/// `max_bytes` bounds a claim, and a larger single job goes alone, in its turn.
pub async fn max_bytes_limits_a_claim(rig: &Rig) {
    let mut ids = Vec::new();
    for size in [40, 40, 40, 500, 40] {
        ids.push(rig.put(&NewJob { payload: Bytes::from(vec![b'x'; size]), ..rig.job("alpha") }).await);
    }
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let claim = Claim { max_bytes: 100, ..rig.wanting(&["alpha"], 10) };
        let taken = rig.claim(&claim).await.attempts;
        let sizes: usize = taken.iter().map(|attempt| attempt.payload.len()).sum();
        assert!(taken.len() == 1 || sizes <= 100, "{sizes} bytes in {} jobs", taken.len());
        rounds.push(taken.iter().map(|attempt| attempt.lease.job).collect::<Vec<_>>());
    }
    assert_eq!(rounds, [vec![ids[0], ids[1]], vec![ids[2]], vec![ids[3]], vec![ids[4]], vec![]]);
}

/// `next_claim` is zero if runnable jobs were left: by the bounds of the claim, or of one want.
pub async fn next_claim_is_zero_while_jobs_are_left(rig: &Rig) {
    for _ in 0..3 {
        rig.queue("alpha").await;
    }
    rig.put(&NewJob { delay: rig.units(900), ..rig.job("alpha") }).await;
    rig.queue("beta").await;
    let next = async |names: &[&str], max| rig.claim(&rig.wanting(names, max)).await.next_claim;
    assert_eq!(next(&["alpha"], 1).await, Some(std::time::Duration::ZERO));
    let want = TypeQuota { name: name("alpha"), max: 1, timeout: rig.units(9) };
    let claim = Claim { quotas: vec![want], ..rig.wanting(&[], 5) };
    assert_eq!(rig.claim(&claim).await.next_claim, Some(std::time::Duration::ZERO));
    let later = next(&["alpha"], 5).await.expect("one is scheduled");
    assert!(later > rig.units(800) && later <= rig.units(900), "{later:?}: beta is not asked for");
    assert_eq!(next(&["beta"], 1).await, None, "it was the last");
}

/// `next_claim` is the time to the next job of the types asked for.
pub async fn next_claim_covers_requested_types_only(rig: &Rig) {
    rig.put(&NewJob { delay: rig.units(900), ..rig.job("alpha") }).await;
    rig.put(&NewJob { delay: rig.units(300), ..rig.job("beta") }).await;
    let due = async |names: &[&str]| rig.claim(&rig.wanting(names, 1)).await.next_claim;
    let within = |due: Option<std::time::Duration>, units: u32| {
        let due = due.expect("one is scheduled");
        // Time passes between the insert and the claim where nobody can hold it.
        assert!(due <= rig.units(units) && due > rig.units(units - 100), "{due:?} of {units} units");
    };
    within(due(&["alpha"]).await, 900);
    within(due(&["beta"]).await, 300);
    within(due(&["alpha", "beta"]).await, 300);
    assert_eq!(due(&["gamma"]).await, None);
    if rig.time.clock().is_some() {
        rig.advance(1).await;
        assert_eq!(due(&["beta"]).await, Some(rig.units(299)));
    }
}

/// More due jobs than one claim promotes: it says so, and later claims take the rest.
pub async fn bounded_promotion_sets_next_claim_to_zero(rig: &Rig) {
    for _ in 0..130 {
        rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    }
    rig.advance(2).await;
    let mut taken = BTreeSet::new();
    for _ in 0..10 {
        let claimed = rig.claim(&rig.wanting(&["alpha"], 20)).await;
        taken.extend(claimed.attempts.iter().map(|attempt| attempt.lease.job));
        let counts = rig.counts("alpha").await;
        let left = counts.count(JobStatus::Scheduled) + counts.count(JobStatus::Queued);
        assert_eq!(claimed.next_claim == Some(std::time::Duration::ZERO), left > 0, "{left} jobs are left");
    }
    assert_eq!(taken.len(), 130);
}

/// Attempts count starts; every further one has its reason. The error of the last stays until the end.
pub async fn attempts_are_counted_by_reason(rig: &Rig) {
    rig.warm().await;
    let id = rig.queue("alpha").await;
    let first = rig.take("alpha").await;
    rig.again(first.lease, 1).await;
    rig.advance(2).await;
    let second = rig.take("alpha").await;
    assert_eq!((second.attempt, second.retry_count), (2, 1));
    let running = rig.view(id).await;
    assert_eq!(running.error, Some(error("TEST_AGAIN")), "why the last attempt ended");
    rig.release(second.lease).await;
    let (third, _) = rig.lose("alpha").await;
    assert_eq!((third.attempt, third.retry_count), (3, 1));
    let fourth = rig.take("alpha").await;
    assert_eq!((fourth.attempt, fourth.retry_count), (4, 1));
    let view = rig.view(id).await;
    assert_eq!((view.attempt, view.retry_count, view.loss_count, view.release_count), (4, 1, 1, 1));
    assert!(view.started_at > running.started_at, "the latest start");
    rig.complete(fourth.lease).await;
    let ended = rig.view(id).await;
    assert_eq!((ended.attempt, ended.error), (4, None));
}

/// The next attempt links to the one before, if its worker told how.
pub async fn attempt_carries_the_previous_span(rig: &Rig) {
    let first = rig.start("alpha").await;
    let span = format!("00-{:032x}-{:016x}-01", 1, 2);
    let outcome = Outcome::Released;
    rig.settle_one(Settlement { span: Some(span.clone()), ..rig.settlement(first.lease, outcome) }).await;
    let second = rig.take("alpha").await;
    assert_eq!(second.previous_span, Some(span));
    rig.release(second.lease).await;
    let third = rig.take("alpha").await;
    assert_eq!(third.previous_span, None, "the attempt before told none; the one before that is no matter");
}

/// An attempt that was lost told nothing.
pub async fn lost_attempt_leaves_no_span(rig: &Rig) {
    rig.warm().await;
    let first = rig.start("alpha").await;
    let span = Some("00-1-2-01".to_owned());
    rig.settle_one(Settlement { span, ..rig.settlement(first.lease, Outcome::Released) }).await;
    rig.lose("alpha").await;
    assert_eq!(rig.take("alpha").await.previous_span, None);
}

/// A delayed job is runnable since it was due, a released one since it was given back.
pub async fn runnable_since_is_the_start_of_waiting(rig: &Rig) {
    let job = NewJob { delay: rig.units(2), ..rig.job("alpha") };
    rig.put(&job).await;
    rig.advance(5).await;
    let first = rig.take("alpha").await;
    assert_eq!(Some(first.runnable_since), rig.view(job.id).await.scheduled_at);
    rig.advance(2).await;
    rig.release(first.lease).await;
    let released = rig.view(job.id).await;
    rig.advance(2).await;
    let second = rig.take("alpha").await;
    assert_eq!(second.runnable_since, released.last_updated_at);
}

/// However many ask at once, each job is started once.
pub async fn concurrent_claims_take_each_job_once(rig: &Rig) {
    let mut queued = BTreeSet::new();
    for at in 0..60_u32 {
        let delay = if at % 3 == 0 { rig.units(1) } else { std::time::Duration::ZERO };
        let name = if at % 2 == 0 { "alpha" } else { "beta" };
        queued.insert(rig.put(&NewJob { delay, ..rig.job(name) }).await);
    }
    rig.advance(2).await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = rig.store.clone();
            let claims: Vec<Claim> = (0..20).map(|_| rig.wanting(&["alpha", "beta"], 3)).collect();
            tokio::spawn(async move {
                let mut taken: Vec<JobId> = Vec::new();
                for claim in &claims {
                    let claimed = store.claim(claim).await.expect("the store answers");
                    taken.extend(claimed.attempts.iter().map(|attempt| attempt.lease.job));
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.expect("no task panics"));
    }
    assert_eq!(taken.len(), 60, "each once");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), queued);
}

/// A job that is canceled and claimed at once either never starts or is told.
pub async fn concurrent_cancel_and_claim_agree(rig: &Rig) {
    for _ in 0..30 {
        let id = rig.queue("alpha").await;
        let (store, claim) = (rig.store.clone(), rig.wanting(&["alpha"], 1));
        let claiming = tokio::spawn(async move { store.claim(&claim).await.expect("the store answers").attempts });
        let canceled = rig.cancel(id).await;
        let taken = claiming.await.expect("no task panics");
        use async_endpoints_core::store::CancelOutcome;
        match canceled {
            CancelOutcome::Canceled(_) => assert!(taken.is_empty(), "what is canceled never starts"),
            CancelOutcome::Requested(_) => {
                let lease = taken[0].lease;
                let settled = rig.settle(lease, jobs::completed("1")).await;
                assert_eq!(settled, async_endpoints_core::store::Settled::Settled(JobStatus::Completed));
            }
            other => panic!("{other:?}"),
        }
    }
}
