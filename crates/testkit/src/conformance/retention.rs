//! Retention: how long ended jobs, their tombstones, and idempotency keys are kept.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    store::{CancelOutcome, InsertOutcome, JobLookup, NewJob, Renewed, Report, RetryOutcome, Settled},
};

use crate::{
    Rig,
    jobs::{completed, digest, key, line},
};

const HOUR: Duration = Duration::from_secs(3600);
const GONE: JobLookup = JobLookup::Gone { owner: Some(digest(9)) };

/// A job with a key, an owner and a retention of `units`.
fn retained(rig: &Rig, units: u32) -> NewJob {
    let mut job = NewJob { key: Some(key("order-17")), owner: Some(digest(9)), ..rig.job("alpha") };
    job.terms.retention = rig.units(units);
    job
}

async fn completed_job(rig: &Rig, units: u32) -> NewJob {
    let job = retained(rig, units);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.complete(lease).await;
    job
}

/// Every call treats a job past `expires_at` as gone, even before a prune removes the job.
pub async fn expired_job_is_gone_before_prune(rig: &Rig) {
    let job = retained(rig, 20);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.report(Report { lease, progress: None, logs: vec![line("one")] }).await;
    rig.fail(lease).await;
    rig.advance(21).await;
    assert_eq!(rig.lookup(job.id).await, GONE);
    assert_eq!(rig.cancel(job.id).await, CancelOutcome::Gone { owner: Some(digest(9)) });
    assert_eq!(rig.retry_as(job.id, JobId::random()).await, RetryOutcome::Gone { owner: Some(digest(9)) });
    assert_eq!(rig.version(job.id).await, None);
    assert_eq!(rig.store.logs(job.id, 0, 10).await.expect("the store answers"), []);
    assert_eq!(rig.ids(None).await, []);
    assert_eq!(rig.ids(Some(JobStatus::Failed)).await, []);
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE));
}

/// Jobs that have not ended do not expire. Ended jobs expire only after their retention.
pub async fn job_is_kept_until_it_expires(rig: &Rig) {
    let job = retained(rig, 2);
    rig.put(&job).await;
    let delayed = rig.put(&NewJob { delay: rig.units(1), key: None, id: JobId::random(), ..job.clone() }).await;
    rig.advance(6).await;
    assert_eq!(rig.prune().await, 0);
    assert_eq!(rig.status(delayed).await, JobStatus::Scheduled);
    rig.cancel(delayed).await;
    let lease = rig.take("alpha").await.lease;
    rig.advance(4).await;
    rig.release(lease).await;
    rig.advance(4).await;
    assert_eq!(rig.status(job.id).await, JobStatus::Queued);
    let lease = rig.take("alpha").await.lease;
    rig.cancel(lease.job).await;
    assert_eq!(rig.prune().await, 1, "only the canceled job");
    let long_lived = rig.start("beta").await.lease;
    rig.complete(long_lived).await;
    assert_eq!(rig.prune().await, 0);
    assert_eq!(rig.status(long_lived.job).await, JobStatus::Completed);
}

/// A pruned job is gone for one more retention period. Then its id is unknown.
pub async fn tombstone_lasts_one_more_retention(rig: &Rig) {
    let job = completed_job(rig, 20).await;
    rig.advance(21).await;
    assert_eq!(rig.prune().await, 1);
    assert_eq!(rig.lookup(job.id).await, GONE);
    assert_eq!(rig.cancel(job.id).await, CancelOutcome::Gone { owner: Some(digest(9)) });
    assert_eq!(rig.retry_as(job.id, JobId::random()).await, RetryOutcome::Gone { owner: Some(digest(9)) });
    assert_eq!(rig.version(job.id).await, None);
    assert_eq!(rig.ids(None).await, []);
    rig.advance(21).await;
    assert_eq!(rig.lookup(job.id).await, JobLookup::NotFound);
    assert_eq!(rig.cancel(job.id).await, CancelOutcome::NotFound);
    assert_eq!(rig.retry_as(job.id, JobId::random()).await, RetryOutcome::NotFound);
}

pub async fn tombstone_lasts_the_same_without_prune(rig: &Rig) {
    let job = completed_job(rig, 20).await;
    rig.advance(21).await;
    assert_eq!(rig.lookup(job.id).await, GONE);
    rig.advance(21).await;
    assert_eq!(rig.lookup(job.id).await, JobLookup::NotFound);
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE), "the key is kept for a day");
}

pub async fn lease_of_pruned_job_is_lost(rig: &Rig) {
    let mut job = rig.job("alpha");
    job.terms.retention = rig.units(1);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.complete(lease).await;
    rig.advance(2).await;
    rig.prune().await;
    assert_eq!(rig.settle(lease, completed("1")).await, Settled::Lost);
    assert_eq!(rig.renew(lease, 9).await, Renewed::Lost);
}

/// A replay within a day of acceptance never runs the job again, even after its tombstone has expired.
pub async fn replay_within_a_day_is_gone(rig: &Rig) {
    let job = completed_job(rig, 1).await;
    rig.advance(3).await;
    rig.prune().await;
    assert_eq!(rig.lookup(job.id).await, JobLookup::NotFound, "the tombstone has expired");
    rig.prune().await;
    let by_key = NewJob { id: JobId::random(), ..job.clone() };
    let by_id = NewJob { key: None, ..job.clone() };
    for replay in [&job, &by_key, &by_id] {
        assert_eq!(rig.insert(replay).await, InsertOutcome::Existing(GONE));
    }
    assert_eq!(rig.insert(&NewJob { fingerprint: digest(2), ..by_key }).await, InsertOutcome::Conflict);
    assert_eq!(rig.insert(&NewJob { fingerprint: digest(2), ..by_id.clone() }).await, InsertOutcome::Conflict);
    assert_eq!(rig.insert(&NewJob { owner: Some(digest(8)), ..by_id }).await, InsertOutcome::Conflict);
    let Some(clock) = rig.time.clock() else { return };
    clock.advance(23 * HOUR);
    rig.prune().await;
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE), "23 hours later");
}

/// No caller can replay a job without a key and with a generated id. The store forgets the job with its tombstone.
pub async fn generated_id_is_free_after_tombstone(rig: &Rig) {
    let chosen = retained(rig, 1);
    let generated = NewJob { id: JobId::random(), id_chosen: false, key: None, ..chosen.clone() };
    rig.put(&chosen).await;
    rig.put(&generated).await;
    for _ in 0..2 {
        let lease = rig.take("alpha").await.lease;
        rig.complete(lease).await;
    }
    rig.advance(3).await;
    rig.prune().await;
    rig.prune().await;
    assert_eq!(rig.insert(&chosen).await, InsertOutcome::Existing(GONE));
    rig.put(&generated).await;
}

/// The key and the id of an expired job are free one day after its acceptance.
pub async fn key_is_free_after_a_day(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let job = completed_job(rig, 1).await;
    clock.advance(25 * HOUR);
    rig.prune().await;
    rig.put(&job).await;
    assert_eq!(rig.status(job.id).await, JobStatus::Queued);
}

/// A key outlasts the day if its job or tombstone does.
pub async fn key_is_kept_as_long_as_its_job(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let day = 24 * HOUR;
    let mut job = retained(rig, 1);
    job.terms.retention = 3 * day;
    rig.put(&job).await;
    clock.advance(2 * day);
    let InsertOutcome::Existing(JobLookup::Found(_)) = rig.insert(&job).await else { panic!("the job is queued") };
    let lease = rig.take("alpha").await.lease;
    rig.complete(lease).await;
    clock.advance(2 * day);
    rig.prune().await;
    let InsertOutcome::Existing(JobLookup::Found(_)) = rig.insert(&job).await else { panic!("the job is kept") };
    clock.advance(2 * day);
    rig.prune().await;
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE));
    clock.advance(3 * day);
    rig.prune().await;
    rig.put(&job).await;
}

/// A prune removes at most as many jobs as its limit and returns their number.
pub async fn prune_stops_at_its_limit(rig: &Rig) {
    for name in ["alpha", "alpha", "beta", "alpha", "beta"] {
        let mut job = rig.job(name);
        job.terms.retention = rig.units(1);
        rig.put(&job).await;
        rig.cancel(job.id).await;
    }
    rig.advance(2).await;
    let mut steps = Vec::new();
    for _ in 0..4 {
        let stats = rig.stats(&Default::default()).await;
        let left: u64 = stats.types.iter().map(|of_type| of_type.count(JobStatus::Canceled)).sum();
        steps.push((rig.store.prune(2).await.expect("the store answers"), left));
    }
    assert_eq!(steps, [(2, 5), (2, 3), (1, 1), (0, 0)]);
}

/// A job expires on time even if a job that ended earlier is kept longer.
pub async fn short_retention_behind_long_expires(rig: &Rig) {
    let long = rig.queue("alpha").await;
    rig.cancel(long).await;
    let mut short = NewJob { owner: Some(digest(9)), ..rig.job("alpha") };
    short.terms.retention = rig.units(20);
    rig.put(&short).await;
    rig.cancel(short.id).await;
    rig.advance(21).await;
    rig.prune().await;
    assert_eq!(rig.lookup(short.id).await, GONE);
    assert_eq!(rig.ids(Some(JobStatus::Canceled)).await, [long]);
    assert_eq!(rig.status(long).await, JobStatus::Canceled);
}

/// The new job of a retry keeps its `retry_of` after the old job has expired.
pub async fn retry_job_outlives_the_old_job(rig: &Rig) {
    let job = retained(rig, 30);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.fail(lease).await;
    let new = JobId::random();
    assert!(matches!(rig.retry_as(job.id, new).await, RetryOutcome::Created(_)));
    rig.advance(31).await;
    rig.prune().await;
    let view = rig.view(new).await;
    assert_eq!((view.status, view.retry_of), (JobStatus::Queued, Some(job.id)));
    assert_eq!(rig.lookup(job.id).await, GONE);
}
