//! An operator's retry: creates one new job from a failed or canceled job.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, JobView, Priority,
    job::TraceContext,
    store::{InsertOutcome, JobLookup, Lease, NewJob, RetryAs, RetryOutcome},
};
use bytes::Bytes;

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{digest, key, traceparent},
};

async fn run_and_fail(rig: &Rig, job: &NewJob) -> Lease {
    rig.put(job).await;
    let lease = rig.take(job.name.as_str()).await.lease;
    rig.fail(lease).await;
    lease
}

fn created(outcome: RetryOutcome) -> JobView {
    match outcome {
        RetryOutcome::Created(view) => *view,
        other => panic!("expected a new job, not {other:?}"),
    }
}

fn job_with_all_fields(rig: &Rig) -> NewJob {
    let trace = TraceContext { traceparent: traceparent(7, 9, 1), tracestate: None };
    let mut job = NewJob {
        payload: Bytes::from_static(b"\xffbody"),
        key: Some(key("order-17")),
        owner: Some(digest(9)),
        owner_label: Some("Ada".to_owned()),
        trace: Some(trace),
        delay: rig.units(1),
        ..rig.job("alpha")
    };
    (job.terms.priority, job.terms.max_retries, job.terms.max_losses) = (Priority::new(7), 1, 0);
    job.terms.retention = rig.units(7_777);
    job
}

/// The new job has the payload, type, terms and owner of the old job, and no history.
pub async fn new_job_copies_the_submission(rig: &Rig) {
    rig.warm().await;
    let job = job_with_all_fields(rig);
    rig.put(&job).await;
    rig.advance(2).await;
    let lease = rig.take("alpha").await.lease;
    rig.fail(lease).await;
    let old = rig.view(job.id).await;
    rig.advance(1).await;
    let trace = TraceContext { traceparent: traceparent(1, 2, 0), tracestate: Some("op=1".into()) };
    let new_id = JobId::random();
    let outcome = rig.store.retry(job.id, &RetryAs { id: new_id, trace: Some(trace.clone()) }).await;
    let new = created(outcome.expect("the store answers"));
    assert_eq!(new, rig.view(new_id).await);
    let copy = NewJob { id: new_id, delay: Duration::ZERO, trace: Some(trace.clone()), ..job.clone() };
    let expected = JobView { retry_of: Some(job.id), ..copy.view(new.created_at, new.version, Some(0)) };
    assert_eq!(new, expected);
    assert!(new.created_at > old.created_at);
    let attempt = rig.take_for("alpha", 1).await;
    assert_eq!((attempt.lease.job, &attempt.payload, attempt.attempt), (new_id, &job.payload, 1));
    assert_eq!((attempt.priority, attempt.max_retries, attempt.trace), (Priority::new(7), 1, Some(trace)));
    assert_eq!((attempt.owner, attempt.owner_label), (job.owner, job.owner_label));
    rig.advance(3).await;
    assert_eq!(rig.sweep().await[0].status, JobStatus::Failed, "`max_losses` is copied");
    let ended = rig.view(new_id).await;
    assert_eq!(ended.expires_at, ended.completed_at.map(|at| at + rig.units(7_777)), "the retention is copied");
}

/// A retry sets `retried_by` of the old job in a new version and changes no other field.
pub async fn retried_job_links_to_the_new_job(rig: &Rig) {
    let lease = run_and_fail(rig, &rig.job("alpha")).await;
    let before = rig.view(lease.job).await;
    rig.advance(1).await;
    let new = created(rig.retry_as(lease.job, JobId::random()).await);
    let after = rig.view(lease.job).await;
    assert!(after.version > before.version, "a visible change");
    assert_eq!(after, JobView { retried_by: Some(new.id), version: after.version, ..before });
}

/// The key keeps identifying the old job.
pub async fn key_is_not_copied(rig: &Rig) {
    let job = NewJob { key: Some(key("order-17")), owner: Some(digest(9)), ..rig.job("alpha") };
    run_and_fail(rig, &job).await;
    let new = created(rig.retry_as(job.id, JobId::random()).await);
    let InsertOutcome::Existing(JobLookup::Found(view)) = rig.insert(&job).await else { panic!("the key is known") };
    assert_eq!((view.id, view.retried_by), (job.id, Some(new.id)));
}

/// A repeated retry, with any id, returns the current state of the first new job.
pub async fn repeated_retry_returns_the_same_job(rig: &Rig) {
    let lease = run_and_fail(rig, &rig.job("alpha")).await;
    let new = created(rig.retry_as(lease.job, JobId::random()).await);
    let other = JobId::random();
    for id in [new.id, other, lease.job] {
        let before = rig.view(lease.job).await;
        let now = rig.view(new.id).await;
        assert_eq!(rig.retry_as(lease.job, id).await, RetryOutcome::Existing(JobLookup::Found(Box::new(now))));
        assert_eq!(rig.view(lease.job).await, before);
    }
    assert_eq!(rig.lookup(other).await, JobLookup::NotFound);
    let attempt = rig.take("alpha").await;
    rig.complete(attempt.lease).await;
    let now = rig.view(new.id).await;
    assert_eq!(rig.retry_as(lease.job, other).await, RetryOutcome::Existing(JobLookup::Found(Box::new(now))));
}

pub async fn concurrent_retries_make_one_job(rig: &Rig) {
    let lease = run_and_fail(rig, &rig.job("alpha")).await;
    let retries = (0..16).map(|_| {
        let (store, new) = (rig.store.clone(), RetryAs { id: JobId::random(), trace: None });
        async move { store.retry(lease.job, &new).await.expect("the store answers") }
    });
    let (mut created, mut existing) = (Vec::new(), Vec::new());
    for outcome in run_concurrently(retries).await {
        match outcome {
            RetryOutcome::Created(view) => created.push(view.id),
            RetryOutcome::Existing(JobLookup::Found(view)) => existing.push(view.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((created.len(), existing), (1, vec![created[0]; 15]));
    assert_eq!(rig.ids(None).await, [created[0], lease.job]);
}

pub async fn canceled_jobs_and_retries_can_be_retried(rig: &Rig) {
    let id = rig.queue("alpha").await;
    rig.cancel(id).await;
    let second = created(rig.retry_as(id, JobId::random()).await);
    rig.cancel(second.id).await;
    let third = created(rig.retry_as(second.id, JobId::random()).await);
    assert_eq!((second.retry_of, third.retry_of), (Some(id), Some(second.id)));
}

/// Only failed and canceled jobs can be retried.
pub async fn other_states_are_not_retried(rig: &Rig) {
    let completed = rig.start("alpha").await.lease;
    rig.complete(completed).await;
    let running = rig.start("alpha").await.lease.job;
    let queued = rig.queue("alpha").await;
    let delayed = rig.put(&NewJob { delay: rig.units(900), ..rig.job("alpha") }).await;
    let states = [
        (completed.job, JobStatus::Completed),
        (running, JobStatus::InProgress),
        (queued, JobStatus::Queued),
        (delayed, JobStatus::Scheduled),
    ];
    for (id, status) in states {
        let before = rig.view(id).await;
        assert_eq!(rig.retry_as(id, JobId::random()).await, RetryOutcome::NotEnded(status));
        assert_eq!(rig.view(id).await, before);
    }
    assert_eq!(rig.retry_as(JobId::random(), JobId::random()).await, RetryOutcome::NotFound);
}

pub async fn taken_id_conflicts(rig: &Rig) {
    let lease = run_and_fail(rig, &rig.job("alpha")).await;
    let other = rig.queue("beta").await;
    let before = rig.view(lease.job).await;
    assert_eq!(rig.retry_as(lease.job, other).await, RetryOutcome::Conflict);
    assert_eq!(rig.retry_as(lease.job, lease.job).await, RetryOutcome::Conflict);
    assert_eq!(rig.view(lease.job).await, before);
    created(rig.retry_as(lease.job, JobId::random()).await);
}

pub async fn id_of_a_pruned_job_conflicts(rig: &Rig) {
    let mut pruned = rig.job("beta");
    pruned.terms.retention = rig.units(20);
    run_and_fail(rig, &pruned).await;
    rig.advance(21).await;
    rig.prune().await;
    let lease = run_and_fail(rig, &rig.job("alpha")).await;
    assert_eq!(rig.retry_as(lease.job, pruned.id).await, RetryOutcome::Conflict);
    created(rig.retry_as(lease.job, JobId::random()).await);
}

pub async fn expired_job_is_gone(rig: &Rig) {
    let mut job = NewJob { owner: Some(digest(9)), ..rig.job("alpha") };
    job.terms.retention = rig.units(20);
    run_and_fail(rig, &job).await;
    rig.advance(21).await;
    let gone = RetryOutcome::Gone { owner: Some(digest(9)) };
    assert_eq!(rig.retry_as(job.id, JobId::random()).await, gone, "before the prune");
    rig.prune().await;
    assert_eq!(rig.retry_as(job.id, JobId::random()).await, gone, "after the prune");
}

/// A repeated retry returns the new job until the old job expires.
pub async fn expired_job_with_a_retry_is_gone(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let mut job = NewJob { owner: Some(digest(9)), ..rig.job("alpha") };
    job.terms.retention = rig.units(100);
    let lease = run_and_fail(rig, &job).await;
    clock.advance(rig.units(90));
    let new = created(rig.retry_as(lease.job, JobId::random()).await);
    rig.cancel(new.id).await;
    let now = rig.view(new.id).await;
    assert_eq!(rig.retry_as(lease.job, JobId::random()).await, RetryOutcome::Existing(JobLookup::Found(Box::new(now))));
    clock.advance(rig.units(20));
    let answer = rig.retry_as(lease.job, JobId::random()).await;
    assert_eq!(answer, RetryOutcome::Gone { owner: Some(digest(9)) }, "the old job has expired");
}
