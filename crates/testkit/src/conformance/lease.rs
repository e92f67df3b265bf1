//! Leases: renewal, expiry, and fencing of writes to a running attempt.

use std::{
    sync::{Arc, Barrier, Mutex, mpsc},
    thread,
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    limits::RENEW_LEASES,
    store::{Fenced, Heartbeat, JobLookup, Lease, LeaseToken, Reclaimed, Renewed, Report, Settled},
};
use uuid::Uuid;

use crate::{
    Rig,
    jobs::{completed, line},
    rig::LONG,
};

/// An expired lease is valid until a sweep reclaims it.
pub async fn settle_after_expiry_is_accepted(rig: &Rig) {
    rig.queue("alpha").await;
    let attempt = rig.take_for("alpha", 1).await;
    rig.advance(3).await;
    assert_eq!(rig.status(attempt.lease.job).await, JobStatus::InProgress);
    assert!(rig.claim_ids(&["alpha"]).await.is_empty(), "an expired lease still holds the job");
    rig.complete(attempt.lease).await;
}

pub async fn renew_after_expiry_is_accepted(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    let attempt = rig.take_for("alpha", 1).await;
    rig.advance(3).await;
    assert_eq!(rig.renew(attempt.lease, 9_000).await, Renewed::Held);
    assert_eq!(rig.sweep().await, []);
    rig.complete(attempt.lease).await;
}

pub async fn report_after_expiry_is_accepted(rig: &Rig) {
    rig.queue("alpha").await;
    let attempt = rig.take_for("alpha", 1).await;
    rig.advance(3).await;
    let report = Report { lease: attempt.lease, progress: None, logs: vec![line("late")] };
    assert_eq!(rig.report(report).await, Fenced::Applied);
}

/// A renewed lease lasts from the time of its renewal.
pub async fn renewed_lease_is_not_reclaimed(rig: &Rig) {
    rig.warm().await;
    let (renewed, expired) = (rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    rig.renew(expired, 1).await;
    for _ in 0..3 {
        assert_eq!(rig.renew(renewed, 20).await, Renewed::Held);
        rig.advance(2).await;
    }
    let taken: Vec<JobId> = rig.sweep().await.iter().map(|recovered| recovered.id).collect();
    assert_eq!(taken, [expired.job]);
    assert_eq!(rig.renew(renewed, 8).await, Renewed::Held);
    assert_eq!(rig.renew(expired, 8).await, Renewed::Lost);
}

pub async fn renew_answers_in_order(rig: &Rig) {
    let (held, requested, ended) =
        (rig.start("alpha").await.lease, rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    rig.cancel(requested.job).await;
    rig.complete(ended).await;
    let foreign = Lease { token: LeaseToken::random(), ..held };
    let unknown = Lease { job: JobId::random(), token: held.token };
    let leases = [ended, held, foreign, requested, unknown, held];
    let answers = rig.store.renew(&rig.heartbeat(), &leases, rig.units(9_000)).await.expect("the store answers");
    use Renewed::{CancelRequested, Held, Lost};
    assert_eq!(answers, [Lost, Held, Lost, CancelRequested, Lost, Held]);
    assert_eq!(rig.renew(requested, 9_000).await, CancelRequested, "every renewal returns the request");
}

pub async fn renew_accepts_empty_and_full_batches(rig: &Rig) {
    let none = rig.store.renew(&rig.heartbeat(), &[], rig.units(9)).await.expect("the store answers");
    assert_eq!(none, []);
    let mut leases = Vec::new();
    while leases.len() < RENEW_LEASES {
        for _ in 0..64 {
            rig.queue("alpha").await;
        }
        leases.extend(rig.claim_any(&["alpha"], 64).await.iter().map(|attempt| attempt.lease));
    }
    let answers = rig.store.renew(&rig.heartbeat(), &leases, rig.units(9_000)).await.expect("the store answers");
    assert_eq!(answers, vec![Renewed::Held; RENEW_LEASES]);
}

pub async fn renew_does_not_change_the_job(rig: &Rig) {
    let attempt = rig.start("alpha").await;
    let before = rig.view(attempt.lease.job).await;
    rig.advance(1).await;
    rig.renew(attempt.lease, 9_000).await;
    assert_eq!(rig.view(attempt.lease.job).await, before);
}

pub async fn writes_with_foreign_lease_are_lost(rig: &Rig) {
    let attempt = rig.start("alpha").await;
    let before = rig.view(attempt.lease.job).await;
    let foreign = Lease { token: LeaseToken::random(), ..attempt.lease };
    let unknown = Lease { job: JobId::random(), ..attempt.lease };
    for lease in [foreign, unknown] {
        assert_eq!(rig.settle(lease, completed("2")).await, Settled::Lost);
        assert_eq!(rig.renew(lease, 9).await, Renewed::Lost);
        let report = Report { lease, progress: None, logs: vec![line("foreign")] };
        assert_eq!(rig.report(report).await, Fenced::Lost);
    }
    assert_eq!(rig.view(attempt.lease.job).await, before);
    assert_eq!(rig.lookup(unknown.job).await, JobLookup::NotFound);
}

/// A queued job has no lease. Tokens that a store might use for "no lease" write nothing either.
pub async fn writes_to_queued_job_are_lost(rig: &Rig) {
    let id = rig.queue("alpha").await;
    for token in [Uuid::nil(), Uuid::max()] {
        let lease = Lease { job: id, token: LeaseToken(token) };
        assert_eq!(rig.settle(lease, completed("2")).await, Settled::Lost);
        assert_eq!(rig.renew(lease, 9).await, Renewed::Lost);
    }
    assert_eq!(rig.status(id).await, JobStatus::Queued);
}

/// All jobs of a claim share one token. Each job is settled separately.
pub async fn jobs_of_one_claim_settle_separately(rig: &Rig) {
    let (first, second) = (rig.queue("alpha").await, rig.queue("alpha").await);
    let leases: Vec<Lease> = rig.claim_any(&["alpha"], 2).await.iter().map(|attempt| attempt.lease).collect();
    assert_eq!(leases[0].token, leases[1].token);
    rig.complete(leases[1]).await;
    assert_eq!((rig.status(first).await, rig.status(second).await), (JobStatus::InProgress, JobStatus::Completed));
    assert_eq!(rig.renew(leases[0], 9_000).await, Renewed::Held);
}

/// Leases can be renewed from a separate thread while handlers block every thread of the runtime.
pub async fn renew_works_with_a_blocked_runtime(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    let lease = rig.take_for("alpha", 6).await.lease;
    let blocked = tokio::runtime::Handle::current().metrics().num_workers();
    let barrier = Arc::new(Barrier::new(blocked + 1));
    let (sender, receiver) = mpsc::channel::<()>();
    let receiver = Arc::new(Mutex::new(receiver));
    let mut blocking = Vec::new();
    for _ in 0..blocked {
        let (barrier, receiver) = (barrier.clone(), receiver.clone());
        blocking.push(tokio::spawn(async move {
            barrier.wait();
            // Blocks until the renewing thread drops the sender.
            drop(receiver.lock().map(|receiver| receiver.recv()));
        }));
    }
    let (store, time, heartbeat) = (rig.store.clone(), rig.time.clone(), rig.heartbeat());
    let renewing = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        barrier.wait();
        let mut answers = Vec::new();
        for _ in 0..12 {
            let renewed = runtime.block_on(store.renew(&heartbeat, &[lease], time.units(6)));
            answers.push(renewed.expect("the store answers while the runtime is blocked"));
            time.advance_blocking(1);
        }
        drop(sender);
        answers
    });
    // The test itself runs on the thread of `block_on`, while all worker threads are blocked.
    let answers = renewing.join().expect("the renewing thread does not panic");
    assert_eq!(answers, vec![vec![Renewed::Held]; 12]);
    for task in blocking {
        task.await.expect("no blocked task panics");
    }
    assert_eq!(rig.reclaim(&rig.sweeper(LONG)).await, Reclaimed::Done { recovered: vec![], more: false });
    rig.complete(lease).await;
}

pub async fn old_lease_is_lost_after_next_claim(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    let (old, _) = rig.lose("alpha").await;
    let new = rig.take("alpha").await;
    assert_eq!(rig.renew(old.lease, 9).await, Renewed::Lost);
    assert_eq!(rig.settle(old.lease, completed("2")).await, Settled::Lost);
    let report = Report { lease: old.lease, progress: None, logs: vec![line("old")] };
    assert_eq!(rig.report(report).await, Fenced::Lost);
    let heartbeat = Heartbeat { ttl: rig.units(1), ..rig.heartbeat() };
    let answers =
        rig.store.renew(&heartbeat, &[old.lease, new.lease], rig.units(9_000)).await.expect("the store answers");
    assert_eq!(answers, [Renewed::Lost, Renewed::Held]);
    rig.complete(new.lease).await;
}
