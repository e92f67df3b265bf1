//! How long ended jobs, what is left of them, and keys are kept.

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    store::{CancelOutcome, InsertOutcome, JobLookup, NewJob, Outcome, RetryOutcome, Settled},
};

use crate::{
    Rig,
    jobs::{completed, digest, error, key},
};

const GONE: JobLookup = JobLookup::Gone { owner: Some(digest(9)) };

/// A job with a key and an owner that is kept for so many units after its end.
fn kept(rig: &Rig, units: u32) -> NewJob {
    let mut job = NewJob { key: Some(key("order-17")), owner: Some(digest(9)), ..rig.job("alpha") };
    job.terms.retention = rig.units(units);
    job
}

async fn ended(rig: &Rig, units: u32) -> NewJob {
    let job = kept(rig, units);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.complete(lease).await;
    job
}

/// Past `expires_at` a job reads as gone everywhere, pruned or not.
pub async fn expired_job_is_gone_before_prune(rig: &Rig) {
    let job = kept(rig, 20);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    let logs = vec![crate::jobs::line("one")];
    rig.report(async_endpoints_core::store::Report { lease, progress: None, logs }).await;
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

/// Jobs that have not ended do not expire, and ended ones not before their time.
pub async fn job_is_kept_until_it_expires(rig: &Rig) {
    let job = kept(rig, 2);
    rig.put(&job).await;
    let delayed = rig.put(&NewJob { delay: rig.units(1), key: None, id: JobId::random(), ..job.clone() }).await;
    rig.advance(6).await;
    assert_eq!(rig.prune().await, 0);
    assert_eq!(rig.status(delayed).await, JobStatus::Scheduled);
    rig.cancel(delayed).await;
    let lease = rig.take("alpha").await.lease;
    rig.advance(4).await;
    rig.settle(lease, Outcome::Released).await;
    rig.advance(4).await;
    assert_eq!(rig.status(job.id).await, JobStatus::Queued);
    let lease = rig.take("alpha").await.lease;
    rig.cancel(lease.job).await;
    assert_eq!(rig.prune().await, 1, "the canceled one alone");
    let lasting = rig.start("beta").await.lease;
    rig.complete(lasting).await;
    assert_eq!(rig.prune().await, 0);
    assert_eq!(rig.status(lasting.job).await, JobStatus::Completed);
}

/// A pruned job is told as gone for as long again as it was kept, then as unknown.
pub async fn tombstone_lasts_one_more_retention(rig: &Rig) {
    let job = ended(rig, 20).await;
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

/// Without a prune the same is told at the same times.
pub async fn tombstone_lasts_the_same_without_prune(rig: &Rig) {
    let job = ended(rig, 20).await;
    rig.advance(21).await;
    assert_eq!(rig.lookup(job.id).await, GONE);
    rig.advance(21).await;
    assert_eq!(rig.lookup(job.id).await, JobLookup::NotFound);
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE), "the key is kept for a day");
}

/// A lease of a job that is gone is lost, whatever it says.
pub async fn lease_of_pruned_job_is_lost(rig: &Rig) {
    let mut job = rig.job("alpha");
    job.terms.retention = rig.units(1);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.complete(lease).await;
    rig.advance(2).await;
    rig.prune().await;
    assert_eq!(rig.settle(lease, completed("1")).await, Settled::Lost);
    assert_eq!(rig.renew(lease, 9).await, async_endpoints_core::store::Renewed::Lost);
}

/// Within a day a replay of a job that is gone tells so, by key and by id: it never runs twice.
pub async fn replay_within_a_day_is_gone(rig: &Rig) {
    let job = ended(rig, 1).await;
    rig.advance(3).await;
    rig.prune().await;
    assert_eq!(rig.lookup(job.id).await, JobLookup::NotFound, "`get` tells it no more");
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
    clock.advance(std::time::Duration::from_secs(23 * 3600));
    rig.prune().await;
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE), "23 hours later");
}

/// Nobody can come again for a job whose id nobody chose: nothing is kept of it once it is no longer told as gone.
pub async fn generated_id_is_free_after_tombstone(rig: &Rig) {
    let chosen = kept(rig, 1);
    let made = NewJob { id: JobId::random(), id_chosen: false, key: None, ..chosen.clone() };
    rig.put(&chosen).await;
    rig.put(&made).await;
    for _ in 0..2 {
        let lease = rig.take("alpha").await.lease;
        rig.complete(lease).await;
    }
    rig.advance(3).await;
    rig.prune().await;
    rig.prune().await;
    assert_eq!(rig.insert(&chosen).await, InsertOutcome::Existing(GONE));
    assert!(matches!(rig.insert(&made).await, InsertOutcome::Inserted { .. }), "its id is as good as new");
}

/// A day after the job was created its key and id are free again, once the job is long gone.
pub async fn key_is_free_after_a_day(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let job = ended(rig, 1).await;
    clock.advance(std::time::Duration::from_secs(25 * 3600));
    rig.prune().await;
    rig.put(&job).await;
    assert_eq!(rig.status(job.id).await, JobStatus::Queued);
}

/// A job kept for longer than a day keeps its key as long as it and its tombstone last.
pub async fn key_is_kept_as_long_as_its_job(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let day = std::time::Duration::from_secs(24 * 3600);
    let mut job = kept(rig, 1);
    job.terms.retention = 3 * day;
    rig.put(&job).await;
    clock.advance(2 * day);
    let InsertOutcome::Existing(JobLookup::Found(_)) = rig.insert(&job).await else { panic!("it waits") };
    let lease = rig.take("alpha").await.lease;
    rig.complete(lease).await;
    clock.advance(2 * day);
    rig.prune().await;
    let InsertOutcome::Existing(JobLookup::Found(_)) = rig.insert(&job).await else { panic!("it is kept") };
    clock.advance(2 * day);
    rig.prune().await;
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(GONE));
    clock.advance(3 * day);
    rig.prune().await;
    rig.put(&job).await;
}

/// A prune does no more than it was asked, and says how much.
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
        let listed = rig.stats(&Default::default()).await;
        let left: u64 = listed.types.iter().map(|kind| kind.count(JobStatus::Canceled)).sum();
        steps.push((rig.store.prune(2).await.expect("the store answers"), left));
    }
    assert_eq!(steps, [(2, 5), (2, 3), (1, 1), (0, 0)]);
}

/// A job that ended behind one that is kept longer still reads as gone in time, whenever it is pruned.
pub async fn short_retention_behind_long_expires(rig: &Rig) {
    let lasting = rig.queue("alpha").await;
    rig.cancel(lasting).await;
    let mut short = NewJob { owner: Some(digest(9)), ..rig.job("alpha") };
    short.terms.retention = rig.units(20);
    rig.put(&short).await;
    rig.cancel(short.id).await;
    rig.advance(21).await;
    rig.prune().await;
    assert_eq!(rig.lookup(short.id).await, GONE);
    assert_eq!(rig.ids(Some(JobStatus::Canceled)).await, [lasting]);
    assert_eq!(rig.status(lasting).await, JobStatus::Canceled);
}

/// The new job of a retry outlives the old one's record.
pub async fn retry_job_outlives_the_old_job(rig: &Rig) {
    let job = kept(rig, 30);
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    rig.settle(lease, Outcome::Failed { error: error("F") }).await;
    let new = JobId::random();
    assert!(matches!(rig.retry_as(job.id, new).await, RetryOutcome::Created(_)));
    rig.advance(31).await;
    rig.prune().await;
    let view = rig.view(new).await;
    assert_eq!((view.status, view.retry_of), (JobStatus::Queued, Some(job.id)));
    assert_eq!(rig.lookup(job.id).await, GONE);
}
