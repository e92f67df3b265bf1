//! Inserts: idempotency keys, ids, queue limits, and the stored fields of a job.

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, Priority,
    job::{JobTerms, TraceContext},
    limits::AHEAD_COUNTED,
    store::{InsertOutcome, JobLookup, NewJob, Outcome, RetryOutcome},
};
use bytes::Bytes;
use futures_util::future::join;

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{digest, error, key, name, traceparent},
};

fn existing_id(outcome: InsertOutcome) -> JobId {
    match outcome {
        InsertOutcome::Existing(JobLookup::Found(view)) => view.id,
        other => panic!("expected the existing job, not {other:?}"),
    }
}

fn keyed(rig: &Rig, name: &str) -> NewJob {
    NewJob { key: Some(key("order-17")), owner: Some(digest(9)), ..rig.job(name) }
}

/// A new job reads as `NewJob::view` computes it.
pub async fn new_job_reads_as_submitted(rig: &Rig) {
    let trace = TraceContext { traceparent: traceparent(7, 9, 1), tracestate: Some("v=1".into()) };
    let terms = JobTerms { priority: Priority::HIGHEST, max_retries: 7, max_losses: 0, retention: rig.units(9) };
    let label = Some("Ada Lovelace ♥".to_owned());
    let full = NewJob { terms, owner_label: label, trace: Some(trace), ..keyed(rig, "a.b_c-9") };
    let delayed = NewJob { delay: rig.units(5), ..rig.job("alpha") };
    for job in [rig.job("alpha"), full, delayed, rig.job("alpha")] {
        let InsertOutcome::Inserted { created_at, version, ahead } = rig.insert(&job).await else {
            panic!("a new job is accepted")
        };
        assert_eq!(rig.view(job.id).await, job.view(created_at, version, ahead));
        assert_eq!(rig.version(job.id).await, Some(version));
        assert_eq!(ahead.is_some(), job.delay.is_zero(), "`ahead` is present only while the job is queued");
    }
}

/// `ahead` counts the queued jobs of the type that run before this job.
pub async fn ahead_counts_earlier_jobs_of_the_type(rig: &Rig) {
    let first = rig.queue("alpha").await;
    rig.queue("beta").await;
    let second = rig.queue("alpha").await;
    let mut urgent = rig.job("alpha");
    urgent.terms.priority = Priority::HIGHEST;
    rig.put(&urgent).await;
    let ahead = async |id| rig.view(id).await.ahead;
    assert_eq!((ahead(urgent.id).await, ahead(first).await, ahead(second).await), (Some(0), Some(1), Some(2)));
    rig.take("alpha").await;
    assert_eq!((ahead(urgent.id).await, ahead(first).await, ahead(second).await), (None, Some(0), Some(1)));
}

/// `ahead` is exact up to `AHEAD_COUNTED`. Farther back, it is at least `AHEAD_COUNTED`.
pub async fn ahead_is_exact_up_to_its_limit(rig: &Rig) {
    let mut ids = Vec::new();
    for _ in 0..AHEAD_COUNTED + 20 {
        ids.push(rig.queue("alpha").await);
    }
    for (actual, id) in (0..).zip(&ids).filter(|(index, _)| index % 250 == 0 || *index > AHEAD_COUNTED - 3) {
        let ahead = rig.view(*id).await.ahead.expect("the job is queued");
        assert!(ahead <= actual && ahead >= actual.min(AHEAD_COUNTED), "reports {ahead} of {actual} jobs ahead");
    }
}

/// An insert with the owner, type, key and fingerprint of an existing job returns this job, with any id.
pub async fn same_key_returns_the_job(rig: &Rig) {
    let job = keyed(rig, "alpha");
    rig.put(&job).await;
    assert_eq!(existing_id(rig.insert(&job).await), job.id);
    let again = NewJob { id: JobId::random(), ..job.clone() };
    assert_eq!(existing_id(rig.insert(&again).await), job.id);
    assert_eq!(rig.lookup(again.id).await, JobLookup::NotFound);
    assert_eq!(rig.ids(None).await, [job.id]);
}

pub async fn key_with_other_fingerprint_conflicts(rig: &Rig) {
    let job = keyed(rig, "alpha");
    rig.put(&job).await;
    let other = NewJob { id: JobId::random(), fingerprint: digest(2), ..job.clone() };
    assert_eq!(rig.insert(&other).await, InsertOutcome::Conflict);
    assert_eq!(rig.insert(&NewJob { id: job.id, ..other }).await, InsertOutcome::Conflict);
    assert_eq!(rig.ids(None).await, [job.id]);
}

pub async fn key_is_scoped_to_owner_and_type(rig: &Rig) {
    let job = keyed(rig, "alpha");
    rig.put(&job).await;
    let fresh = || NewJob { id: JobId::random(), ..job.clone() };
    rig.put(&NewJob { owner: Some(digest(8)), ..fresh() }).await;
    rig.put(&NewJob { owner: None, ..fresh() }).await;
    rig.put(&NewJob { name: name("beta"), ..fresh() }).await;
    rig.put(&NewJob { key: Some(key("order-18")), ..fresh() }).await;
    rig.put(&NewJob { key: Some(key("ORDER-17")), ..fresh() }).await;
    assert_eq!(rig.ids(None).await.len(), 6);
}

/// Keys stay distinct when a store joins them with type names, and when they contain special characters.
pub async fn similar_keys_are_distinct(rig: &Rig) {
    for (name, text) in [("a", "b:c"), ("a.b", "c"), ("a", "b.c"), ("a", "{b}"), ("a-b", ":c"), ("a", "\"'%_*?[x]\\")] {
        let job = NewJob { key: Some(key(text)), ..rig.job(name) };
        rig.put(&job).await;
        assert_eq!(existing_id(rig.insert(&job).await), job.id, "{name} {text}");
    }
    let long = "k".repeat(255);
    rig.put(&NewJob { key: Some(key(&long)), ..rig.job("a") }).await;
    rig.put(&NewJob { key: Some(key(&long[1..])), ..rig.job("a") }).await;
}

/// An insert with the id, owner and fingerprint of an existing job returns this job.
pub async fn same_id_returns_the_job(rig: &Rig) {
    let job = NewJob { owner: Some(digest(9)), ..rig.job("alpha") };
    rig.put(&job).await;
    assert_eq!(existing_id(rig.insert(&job).await), job.id);
    assert_eq!(rig.insert(&NewJob { fingerprint: digest(2), ..job.clone() }).await, InsertOutcome::Conflict);
    assert_eq!(rig.insert(&NewJob { owner: Some(digest(8)), ..job.clone() }).await, InsertOutcome::Conflict);
    assert_eq!(rig.insert(&NewJob { owner: None, ..job.clone() }).await, InsertOutcome::Conflict);
    assert_eq!(rig.ids(None).await, [job.id]);
    // The job was accepted with a key; the replay has only the id.
    let with_key = keyed(rig, "alpha");
    rig.put(&with_key).await;
    assert_eq!(existing_id(rig.insert(&NewJob { key: None, ..with_key.clone() }).await), with_key.id);
}

/// A known key decides, whatever the id. The id is checked only for new keys.
pub async fn key_takes_precedence_over_id(rig: &Rig) {
    let (with_key, other) = (keyed(rig, "alpha"), rig.job("alpha"));
    rig.put(&with_key).await;
    rig.put(&other).await;
    let known_key = NewJob { id: other.id, ..with_key.clone() };
    assert_eq!(existing_id(rig.insert(&known_key).await), with_key.id, "a known key wins over a taken id");
    let new_key = NewJob { key: Some(key("order-18")), ..other.clone() };
    assert_eq!(rig.insert(&new_key).await, InsertOutcome::Conflict, "a new key with a taken id");
    let fresh = NewJob { id: JobId::random(), ..new_key };
    rig.put(&fresh).await;
    assert_eq!(rig.view(fresh.id).await.id, fresh.id);
}

/// The store checks the key first, then the id, then the queue limit.
pub async fn key_and_id_are_checked_before_limit(rig: &Rig) {
    let job = NewJob { queue_limit: Some(1), ..keyed(rig, "alpha") };
    rig.put(&job).await;
    let full = NewJob { id: JobId::random(), key: Some(key("order-18")), ..job.clone() };
    let same_key = NewJob { id: JobId::random(), ..full.clone() };
    let both = join(rig.insert(&full), rig.insert(&same_key)).await;
    assert_eq!(both, (InsertOutcome::Full, InsertOutcome::Full));
    assert_eq!(existing_id(rig.insert(&job).await), job.id, "a full queue accepts a replay");
    assert_eq!(rig.insert(&NewJob { fingerprint: digest(2), ..job.clone() }).await, InsertOutcome::Conflict);
    assert_eq!(existing_id(rig.insert(&NewJob { key: None, ..job.clone() }).await), job.id);
    assert_eq!(rig.insert(&NewJob { key: None, owner: None, ..job.clone() }).await, InsertOutcome::Conflict);
    // A refused job takes neither its key nor its id.
    assert_eq!(rig.lookup(full.id).await, JobLookup::NotFound);
    rig.put(&NewJob { queue_limit: None, fingerprint: digest(3), ..full }).await;
}

pub async fn replay_returns_the_current_job(rig: &Rig) {
    let job = keyed(rig, "alpha");
    rig.put(&job).await;
    let lease = rig.take("alpha").await.lease;
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(JobLookup::Found(Box::new(rig.view(job.id).await))));
    rig.complete(lease).await;
    let view = rig.view(job.id).await;
    assert_eq!((view.status, view.result.as_deref()), (JobStatus::Completed, Some(&b"1"[..])));
    assert_eq!(rig.insert(&job).await, InsertOutcome::Existing(JobLookup::Found(Box::new(view))));
}

pub async fn concurrent_inserts_of_one_key_make_one_job(rig: &Rig) {
    let job = keyed(rig, "alpha");
    let inserts = (0..64).map(|_| {
        let (store, job) = (rig.store.clone(), NewJob { id: JobId::random(), ..job.clone() });
        async move { (job.id, store.insert(job).await.expect("the store answers")) }
    });
    let (mut inserted, mut existing) = (Vec::new(), Vec::new());
    for (id, outcome) in run_concurrently(inserts).await {
        match outcome {
            InsertOutcome::Inserted { .. } => inserted.push(id),
            other => existing.push(existing_id(other)),
        }
    }
    assert_eq!(inserted.len(), 1, "one insert creates the job");
    assert!(existing.iter().all(|id| *id == inserted[0]), "the other inserts return it");
    assert_eq!(rig.ids(None).await, inserted);
}

/// The limit counts Queued and never-started Scheduled jobs of the type.
pub async fn queue_limit_counts_waiting_jobs(rig: &Rig) {
    let limited = |name: &str| NewJob { queue_limit: Some(2), ..rig.job(name) };
    rig.put(&limited("alpha")).await;
    rig.put(&NewJob { delay: rig.units(5_000), ..limited("alpha") }).await;
    assert_eq!(rig.insert(&limited("alpha")).await, InsertOutcome::Full);
    rig.put(&limited("beta")).await;
    let lease = rig.take("alpha").await.lease;
    rig.put(&limited("alpha")).await;
    assert_eq!(rig.insert(&limited("alpha")).await, InsertOutcome::Full);
    rig.again(lease, 5_000).await;
    let counts = rig.counts("alpha").await;
    assert_eq!((counts.count(JobStatus::Scheduled), counts.never_started, counts.waiting()), (2, 1, 2));
    let delayed = rig.ids(Some(JobStatus::Scheduled)).await;
    let first = rig.view(delayed[0]).await;
    let never_started = if first.attempt == 0 { delayed[0] } else { delayed[1] };
    rig.cancel(never_started).await;
    rig.put(&limited("alpha")).await;
    assert_eq!(rig.insert(&NewJob { queue_limit: Some(0), ..rig.job("gamma") }).await, InsertOutcome::Full);
}

/// Released, recovered and retried jobs, and the new job of an operator's retry, ignore the queue limit.
pub async fn accepted_jobs_requeue_past_queue_limit(rig: &Rig) {
    rig.warm().await;
    let limited = || NewJob { queue_limit: Some(1), ..rig.job("alpha") };
    rig.put(&limited()).await;
    let released = rig.take("alpha").await.lease;
    rig.put(&limited()).await;
    rig.release(released).await;
    assert_eq!(rig.insert(&limited()).await, InsertOutcome::Full, "a released job counts again");
    let (_, recovered) = rig.lose("alpha").await;
    assert_eq!((recovered.id, recovered.status), (released.job, JobStatus::Queued));
    let retried = rig.take("alpha").await.lease;
    rig.again(retried, 1).await;
    rig.advance(2).await;
    let lease = rig.take("alpha").await.lease;
    rig.fail(lease).await;
    let answer = rig.retry_as(lease.job, JobId::random()).await;
    assert!(matches!(answer, RetryOutcome::Created(_)), "{answer:?}");
}

/// Payloads and results are opaque bytes for a store.
pub async fn payload_and_result_bytes_are_preserved(rig: &Rig) {
    let large: Vec<u8> = (0..2_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hostile: [&[u8]; 6] =
        [b"", b"\0", b"null", b"\xff\xfe\x80 not UTF-8 \0\r\n", b"'; DROP TABLE jobs; --", &large];
    for payload in hostile {
        let job = NewJob { payload: Bytes::copy_from_slice(payload), ..rig.job("alpha") };
        rig.put(&job).await;
        let attempt = rig.take("alpha").await;
        assert!(attempt.payload == payload, "a payload of {} bytes is preserved", payload.len());
        let outcome = Outcome::Completed { result: attempt.payload };
        rig.settle(attempt.lease, outcome).await;
        let result = rig.view(job.id).await.result.expect("a completed job has its result");
        assert!(result == payload, "a result of {} bytes is preserved", payload.len());
    }
}

/// A payload can be read until its job completes, since a job that failed or was canceled can be retried.
pub async fn payload_is_readable_until_the_job_completes(rig: &Rig) {
    let read = async |id: JobId| rig.store.payload(id).await.expect("the store answers");
    assert_eq!(read(JobId::random()).await, None, "an unknown job");
    for (outcome, is_kept) in [
        (Outcome::Failed { error: error("BROKEN") }, true),
        (Outcome::Canceled { error: error("CANCELED") }, true),
        (Outcome::Completed { result: Bytes::from_static(b"1") }, false),
    ] {
        let job = NewJob { payload: Bytes::from_static(b"\xff\0body"), ..rig.job("alpha") };
        rig.put(&job).await;
        assert_eq!(read(job.id).await, Some(job.payload.clone()), "a queued job");
        let lease = rig.take("alpha").await.lease;
        assert_eq!(read(job.id).await, Some(job.payload.clone()), "a running job");
        rig.settle(lease, outcome.clone()).await;
        let kept = is_kept.then(|| job.payload.clone());
        assert_eq!(read(job.id).await, kept, "{outcome:?}");
    }
}

pub async fn error_text_is_preserved(rig: &Rig) {
    let attempt = rig.start("alpha").await;
    let mut error = error("TEST_FAILED");
    error.detail = Some("\0 \u{1F980} {}:'\"\\ \r\n %s ${x} \u{202e}".to_owned());
    rig.settle(attempt.lease, Outcome::Failed { error: error.clone() }).await;
    let view = rig.view(attempt.lease.job).await;
    assert_eq!((view.error.as_ref(), view.attempts[0].error.as_ref()), (Some(&error), Some(&error)));
}
