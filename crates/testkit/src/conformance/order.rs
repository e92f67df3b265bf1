//! The order in which jobs of a claim run.

use std::cmp::Reverse;

use async_endpoints_core::{JobId, JobStatus, Priority, store::NewJob};

use crate::Rig;

/// Higher priorities run first, then jobs accepted earlier, merged over all types of a claim.
pub async fn jobs_run_by_priority_then_acceptance(rig: &Rig) {
    let mut jobs = Vec::new();
    for (name, priority) in
        [("alpha", 4), ("beta", 9), ("gamma", 0), ("beta", 4), ("alpha", 9), ("gamma", 4), ("alpha", 0), ("beta", 5)]
    {
        let mut job = rig.job(name);
        job.terms.priority = Priority::new(priority);
        jobs.push((priority, rig.put(&job).await));
    }
    jobs.sort_by_key(|job| Reverse(job.0));
    let expected: Vec<JobId> = jobs.iter().map(|job| job.1).collect();
    assert_eq!(rig.ids(Some(JobStatus::Queued)).await, expected, "the list has the order of claims");
    let mut taken = Vec::new();
    for max in [3, 1, 64] {
        taken.extend(rig.claim_any(&["gamma", "alpha", "beta"], max).await.iter().map(|attempt| attempt.lease.job));
    }
    assert_eq!(taken, expected);
}

/// Jobs with equal timestamps run in the order of their inserts.
pub async fn jobs_of_one_instant_run_in_insert_order(rig: &Rig) {
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(rig.queue("alpha").await);
    }
    let mut taken = Vec::new();
    while taken.len() < ids.len() {
        let batch = rig.claim_ids(&["alpha"]).await;
        assert!(!batch.is_empty(), "only {} of {} jobs are claimed", taken.len(), ids.len());
        taken.extend(batch);
    }
    assert_eq!(taken, ids);
}

/// A promoted job runs before jobs accepted after its due time and after jobs accepted before it.
pub async fn promoted_job_is_ordered_by_due_time(rig: &Rig) {
    let delayed = |units| NewJob { delay: rig.units(units), ..rig.job("alpha") };
    let late = rig.put(&delayed(40)).await;
    let soon = rig.put(&delayed(10)).await;
    let first = rig.queue("alpha").await;
    rig.advance(20).await;
    let between = rig.queue("alpha").await;
    rig.advance(30).await;
    let last = rig.queue("alpha").await;
    assert_eq!(rig.claim_ids(&["alpha"]).await, [first, soon, between, late, last]);
}

/// A claim promotes a job without taking it. The next claim orders the job by its due time.
pub async fn unclaimed_promoted_job_keeps_due_time(rig: &Rig) {
    let soon = rig.put(&NewJob { delay: rig.units(10), ..rig.job("alpha") }).await;
    let first = rig.queue("alpha").await;
    rig.advance(12).await;
    let later = rig.queue("alpha").await;
    assert_eq!(rig.take("alpha").await.lease.job, first);
    assert_eq!(rig.status(soon).await, JobStatus::Queued, "promoted but not claimed");
    assert_eq!(rig.claim_ids(&["alpha"]).await, [soon, later]);
}

pub async fn promoted_job_is_ordered_by_priority_first(rig: &Rig) {
    let plain = rig.queue("alpha").await;
    let mut urgent = NewJob { delay: rig.units(1), ..rig.job("alpha") };
    urgent.terms.priority = Priority::HIGHEST;
    rig.put(&urgent).await;
    rig.advance(2).await;
    assert_eq!(rig.claim_ids(&["alpha"]).await, [urgent.id, plain]);
}

pub async fn retried_job_is_ordered_by_retry_time(rig: &Rig) {
    let first = rig.start("alpha").await.lease;
    let second = rig.queue("alpha").await;
    rig.again(first, 2).await;
    rig.advance(4).await;
    let third = rig.queue("alpha").await;
    assert_eq!(rig.claim_ids(&["alpha"]).await, [second, first.job, third]);
}

pub async fn released_job_keeps_its_position(rig: &Rig) {
    let (first, second) = (rig.queue("alpha").await, rig.queue("alpha").await);
    let lease = rig.take("alpha").await.lease;
    rig.advance(2).await;
    rig.release(lease).await;
    assert_eq!(rig.view(first).await.ahead, Some(0));
    assert_eq!(rig.claim_ids(&["alpha"]).await, [first, second]);
}

pub async fn recovered_job_keeps_its_position(rig: &Rig) {
    rig.warm().await;
    let (first, second) = (rig.queue("alpha").await, rig.queue("alpha").await);
    rig.lose("alpha").await;
    assert_eq!(rig.claim_ids(&["alpha"]).await, [first, second]);
}

pub async fn released_promoted_job_keeps_due_time(rig: &Rig) {
    let soon = rig.put(&NewJob { delay: rig.units(10), ..rig.job("alpha") }).await;
    let first = rig.queue("alpha").await;
    rig.advance(12).await;
    let later = rig.queue("alpha").await;
    for attempt in rig.claim_any(&["alpha"], 2).await.iter().rev() {
        rig.release(attempt.lease).await;
    }
    assert_eq!(rig.claim_ids(&["alpha"]).await, [first, soon, later]);
}
