//! Claims: which jobs a claim takes, how many, and the fields of an attempt.

use std::{collections::BTreeSet, time::Duration};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, Priority,
    job::TraceContext,
    limits::BATCH_JOBS,
    store::{CancelOutcome, Claim, NewJob, Outcome, Settled, Settlement, TypeQuota},
};
use bytes::Bytes;

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{self, error, name, traceparent},
};

pub async fn attempt_carries_the_job_fields(rig: &Rig) {
    let trace = TraceContext { traceparent: traceparent(7, 9, 1), tracestate: None };
    let (owner, owner_label) = (Some(jobs::digest(9)), Some("Ada".to_owned()));
    let mut job = NewJob { trace: Some(trace.clone()), owner, owner_label, ..rig.job("alpha") };
    job.payload = Bytes::from_static(b"body");
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
    assert_eq!((attempt.owner, attempt.owner_label.as_deref()), (owner, Some("Ada")));
    assert_eq!((attempt.created_at, attempt.runnable_since), (created.created_at, created.created_at));
    assert_eq!((attempt.started_at, attempt.previous_span), (claimed.now, None));
    let view = rig.view(job.id).await;
    assert_eq!((view.status, view.attempt, view.ahead), (JobStatus::InProgress, 1, None));
    assert_eq!((view.started_at, view.last_updated_at), (Some(claimed.now), claimed.now));
    assert_eq!((view.created_at, view.completed_at), (created.created_at, None));
    assert!(view.version > created.version, "a start is a visible change");
}

pub async fn claim_without_runnable_jobs_is_empty(rig: &Rig) {
    let claimed = rig.claim(&rig.wanting(&["alpha", "beta"], 5)).await;
    assert_eq!((claimed.attempts.len(), claimed.next_claim), (0, None));
    rig.start("alpha").await;
    assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "a running job is not claimed again");
}

/// A claim changes no job of types that it does not list; it does not promote their due jobs either.
pub async fn other_types_are_not_claimed(rig: &Rig) {
    let queued = rig.queue("beta").await;
    let due = rig.put(&NewJob { delay: rig.units(1), ..rig.job("beta") }).await;
    rig.advance(2).await;
    let claimed = rig.claim(&rig.wanting(&["alpha", "bet", "beta.x"], 5)).await;
    assert_eq!((claimed.attempts.len(), claimed.next_claim), (0, None));
    assert_eq!(rig.status(queued).await, JobStatus::Queued);
    assert_eq!(rig.status(due).await, JobStatus::Scheduled, "due but not promoted");
}

/// A quota limits its type, `max` limits the whole claim.
pub async fn quotas_and_max_limit_a_claim(rig: &Rig) {
    for _ in 0..5 {
        rig.queue("alpha").await;
        rig.queue("beta").await;
    }
    let quota = |of: &str, max| TypeQuota { name: name(of), max, timeout: rig.units(9) };
    let claim = Claim { quotas: vec![quota("alpha", 2), quota("beta", 4)], ..rig.wanting(&[], 5) };
    let attempts = rig.claim(&claim).await.attempts;
    let count = |name: &str| attempts.iter().filter(|attempt| attempt.name.as_str() == name).count();
    assert_eq!((count("alpha"), count("beta")), (2, 3));
    assert_eq!(rig.counts("alpha").await.count(JobStatus::Queued), 3);
    assert_eq!(rig.claim_any(&["alpha", "beta"], 1).await.len(), 1);
}

pub async fn claim_is_limited_to_a_batch(rig: &Rig) {
    for _ in 0..BATCH_JOBS + 6 {
        rig.queue("alpha").await;
    }
    let first = rig.claim_any(&["alpha"], 1_000).await;
    assert_eq!(first.len(), BATCH_JOBS);
    assert_eq!(rig.claim_any(&["alpha"], 1_000).await.len(), 6);
}

/// `max_bytes` limits the payloads of a claim. A job with a larger payload is claimed alone, in its turn.
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

/// `next_claim` is zero if `max` or a quota left runnable jobs unclaimed.
pub async fn next_claim_is_zero_while_jobs_are_left(rig: &Rig) {
    for _ in 0..3 {
        rig.queue("alpha").await;
    }
    rig.put(&NewJob { delay: rig.units(900), ..rig.job("alpha") }).await;
    rig.queue("beta").await;
    let next = async |names: &[&str], max| rig.claim(&rig.wanting(names, max)).await.next_claim;
    assert_eq!(next(&["alpha"], 1).await, Some(Duration::ZERO));
    let quota = TypeQuota { name: name("alpha"), max: 1, timeout: rig.units(9) };
    let claim = Claim { quotas: vec![quota], ..rig.wanting(&[], 5) };
    assert_eq!(rig.claim(&claim).await.next_claim, Some(Duration::ZERO));
    let later = next(&["alpha"], 5).await.expect("an alpha job is scheduled");
    assert!(later > rig.units(800) && later <= rig.units(900), "{later:?}: the queued beta job does not count");
    assert_eq!(next(&["beta"], 1).await, None, "no beta job is left");
}

/// `next_claim` is the time until the next job of the claim's types is due.
pub async fn next_claim_covers_requested_types_only(rig: &Rig) {
    rig.put(&NewJob { delay: rig.units(900), ..rig.job("alpha") }).await;
    rig.put(&NewJob { delay: rig.units(300), ..rig.job("beta") }).await;
    let next = async |names: &[&str]| rig.claim(&rig.wanting(names, 1)).await.next_claim;
    let assert_near = |next: Option<Duration>, units: u32| {
        let next = next.expect("a job is scheduled");
        // In real time, some time passes between the insert and the claim.
        assert!(next <= rig.units(units) && next > rig.units(units - 100), "{next:?} of {units} units");
    };
    assert_near(next(&["alpha"]).await, 900);
    assert_near(next(&["beta"]).await, 300);
    assert_near(next(&["alpha", "beta"]).await, 300);
    assert_eq!(next(&["gamma"]).await, None);
    if rig.time.clock().is_some() {
        rig.advance(1).await;
        assert_eq!(next(&["beta"]).await, Some(rig.units(299)));
    }
}

/// One claim promotes a limited number of due jobs. `next_claim` is zero while due jobs are left for later claims.
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
        assert_eq!(claimed.next_claim == Some(Duration::ZERO), left > 0, "{left} jobs are left");
    }
    assert_eq!(taken.len(), 130);
}

/// Each attempt after the first has one reason: a retry, a loss or a release. The last error is kept until the job
/// completes.
pub async fn attempts_are_counted_by_reason(rig: &Rig) {
    rig.warm().await;
    let id = rig.queue("alpha").await;
    let first = rig.take("alpha").await;
    rig.again(first.lease, 1).await;
    rig.advance(2).await;
    let second = rig.take("alpha").await;
    assert_eq!((second.attempt, second.retry_count), (2, 1));
    let running = rig.view(id).await;
    assert_eq!(running.error, Some(error("TEST_AGAIN")), "the error of the last attempt is kept");
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

/// `previous_span` is the span reported with the previous attempt's settlement, or none.
pub async fn attempt_carries_the_previous_span(rig: &Rig) {
    let first = rig.start("alpha").await;
    let span = traceparent(1, 2, 1);
    let outcome = Outcome::Released;
    rig.settle_one(Settlement { span: Some(span), ..rig.settlement(first.lease, outcome) }).await;
    let second = rig.take("alpha").await;
    assert_eq!(second.previous_span, Some(span));
    rig.release(second.lease).await;
    let third = rig.take("alpha").await;
    assert_eq!(third.previous_span, None, "the second attempt reported no span");
}

pub async fn lost_attempt_leaves_no_span(rig: &Rig) {
    rig.warm().await;
    let first = rig.start("alpha").await;
    let span = Some(traceparent(1, 2, 1));
    rig.settle_one(Settlement { span, ..rig.settlement(first.lease, Outcome::Released) }).await;
    rig.lose("alpha").await;
    assert_eq!(rig.take("alpha").await.previous_span, None);
}

/// A delayed job is runnable since its due time, a released job since its release.
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

pub async fn concurrent_claims_take_each_job_once(rig: &Rig) {
    let mut queued = BTreeSet::new();
    for number in 0..60 {
        let delay = if number % 3 == 0 { rig.units(1) } else { Duration::ZERO };
        let name = if number % 2 == 0 { "alpha" } else { "beta" };
        queued.insert(rig.put(&NewJob { delay, ..rig.job(name) }).await);
    }
    rig.advance(2).await;
    let claimers = (0..16).map(|_| {
        let store = rig.store.clone();
        let claims: Vec<Claim> = (0..20).map(|_| rig.wanting(&["alpha", "beta"], 3)).collect();
        async move {
            let mut taken: Vec<JobId> = Vec::new();
            for claim in &claims {
                let claimed = store.claim(claim).await.expect("the store answers");
                taken.extend(claimed.attempts.iter().map(|attempt| attempt.lease.job));
            }
            taken
        }
    });
    let taken = run_concurrently(claimers).await.concat();
    assert_eq!(taken.len(), 60, "no job is claimed twice");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), queued);
}

/// Either the job is canceled and never starts, or it runs and the cancel is a request.
pub async fn concurrent_cancel_and_claim_agree(rig: &Rig) {
    for _ in 0..30 {
        let id = rig.queue("alpha").await;
        let (store, claim) = (rig.store.clone(), rig.wanting(&["alpha"], 1));
        let claiming = tokio::spawn(async move { store.claim(&claim).await.expect("the store answers").attempts });
        let canceled = rig.cancel(id).await;
        let taken = claiming.await.expect("no task panics");
        match canceled {
            CancelOutcome::Canceled(_) => assert!(taken.is_empty(), "a canceled job never starts"),
            CancelOutcome::Requested(_) => {
                let lease = taken[0].lease;
                let settled = rig.settle(lease, jobs::completed("1")).await;
                assert_eq!(settled, Settled::Settled(JobStatus::Completed));
            }
            other => panic!("{other:?}"),
        }
    }
}
