//! Hints: something wakes whoever waits. They may be repeated and lost, so `Lagged` stands for any.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobStore as _,
    store::{Hint, NewJob, Report, ReportedProgress},
};
use futures_util::{StreamExt as _, stream::BoxStream};

use crate::{Rig, jobs::name};

/// Far longer than any store takes: only a failing test waits for it.
const AT_MOST: Duration = Duration::from_secs(10);

/// What somebody waits for.
#[derive(Debug)]
enum Wanted {
    Work(JobName),
    Job(JobId),
}

impl Wanted {
    fn is_told_by(&self, hint: &Hint) -> bool {
        match (self, hint) {
            (Self::Work(wanted), Hint::Work(name)) => wanted == name,
            (Self::Job(wanted), Hint::Jobs(ids)) => ids.contains(wanted),
            (_, hint) => *hint == Hint::Lagged,
        }
    }
}

/// Passes over other hints until this one, or `Lagged`, comes.
async fn wake(hints: &mut BoxStream<'static, Hint>, wanted: &Wanted) {
    let woken = async {
        while let Some(hint) = hints.next().await {
            if wanted.is_told_by(&hint) {
                return true;
            }
        }
        false
    };
    let woken = tokio::time::timeout(AT_MOST, woken).await;
    assert_eq!(woken, Ok(true), "{wanted:?} comes within {AT_MOST:?}, and the stream does not end");
}

/// Work comes with the first runnable job of a type, and again once the queue was empty.
pub async fn first_runnable_job_is_hinted(rig: &Rig) {
    for _ in 0..3 {
        let mut hints = rig.store.hints();
        let lease = rig.start("alpha").await.lease;
        wake(&mut hints, &Wanted::Work(name("alpha"))).await;
        rig.complete(lease).await;
    }
}

/// Work comes when a job is given back.
pub async fn released_job_is_hinted(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let mut hints = rig.store.hints();
    rig.release(lease).await;
    wake(&mut hints, &Wanted::Work(name("alpha"))).await;
}

/// Work comes when a lease was taken away.
pub async fn recovered_job_is_hinted(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    let mut hints = rig.store.hints();
    rig.lose("alpha").await;
    wake(&mut hints, &Wanted::Work(name("alpha"))).await;
}

/// Work comes when due jobs were promoted and some are left for others.
pub async fn promoted_jobs_are_hinted(rig: &Rig) {
    for _ in 0..3 {
        rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    }
    rig.advance(2).await;
    let mut hints = rig.store.hints();
    rig.take("alpha").await;
    wake(&mut hints, &Wanted::Work(name("alpha"))).await;
}

/// Work comes with an operator's retry.
pub async fn retry_is_hinted(rig: &Rig) {
    let id = rig.queue("alpha").await;
    rig.cancel(id).await;
    let mut hints = rig.store.hints();
    rig.retry_as(id, JobId::random()).await;
    wake(&mut hints, &Wanted::Work(name("alpha"))).await;
}

/// Each visible change of a job is hinted.
pub async fn visible_changes_are_hinted(rig: &Rig) {
    let id = rig.queue("alpha").await;
    let mut hints = rig.store.hints();
    let job = Wanted::Job(id);
    let lease = rig.take("alpha").await.lease;
    wake(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    let progress = Some(ReportedProgress { completed: 1, total: None, percent: None, message: None });
    rig.report(Report { lease, progress, logs: vec![] }).await;
    wake(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    rig.cancel(id).await;
    wake(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    rig.fail_canceled(lease).await;
    wake(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    rig.retry_as(id, JobId::random()).await;
    wake(&mut hints, &job).await;
}

/// A job that is canceled while it waits is hinted; so is one whose lease was taken away.
pub async fn recovery_and_cancel_are_hinted(rig: &Rig) {
    rig.warm().await;
    let id = rig.queue("alpha").await;
    let mut hints = rig.store.hints();
    rig.lose("alpha").await;
    wake(&mut hints, &Wanted::Job(id)).await;
    let mut hints = rig.store.hints();
    rig.cancel(id).await;
    wake(&mut hints, &Wanted::Job(id)).await;
}

/// Everybody who listens is woken.
pub async fn every_listener_is_notified(rig: &Rig) {
    let mut all: Vec<_> = (0..8).map(|_| rig.store.hints()).collect();
    rig.queue("alpha").await;
    for hints in &mut all {
        wake(hints, &Wanted::Work(name("alpha"))).await;
    }
}

/// A listener that does not listen holds nobody up.
pub async fn slow_listener_blocks_no_call(rig: &Rig) {
    let mut slow = rig.store.hints();
    for _ in 0..2_000 {
        rig.queue("alpha").await;
    }
    let lease = rig.take("alpha").await.lease;
    let mut quick = rig.store.hints();
    rig.complete(lease).await;
    wake(&mut quick, &Wanted::Job(lease.job)).await;
    wake(&mut slow, &Wanted::Job(lease.job)).await;
}
