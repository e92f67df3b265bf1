//! Hints: notifications about runnable and changed jobs. Stores may repeat hints, and `Lagged` replaces lost ones.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobStore as _,
    store::{Hint, NewJob, Report, ReportedProgress},
};
use futures_util::{StreamExt as _, stream::BoxStream};

use crate::{Rig, jobs::name};

/// Far longer than a store takes to publish a hint. Only a failing test waits for so long.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Expected {
    Work(JobName),
    Job(JobId),
}

impl Expected {
    fn matches(&self, hint: &Hint) -> bool {
        match (self, hint) {
            (Self::Work(expected), Hint::Work(name)) => expected == name,
            (Self::Job(expected), Hint::Jobs(ids)) => ids.contains(expected),
            (_, hint) => *hint == Hint::Lagged,
        }
    }
}

/// Skips other hints until the expected hint or `Lagged` arrives.
async fn expect_hint(hints: &mut BoxStream<'static, Hint>, expected: &Expected) {
    let arrival = async {
        while let Some(hint) = hints.next().await {
            if expected.matches(&hint) {
                return true;
            }
        }
        false
    };
    let arrived = tokio::time::timeout(TIMEOUT, arrival).await;
    assert_eq!(arrived, Ok(true), "{expected:?} arrives within {TIMEOUT:?} and before the end of the stream");
}

/// Each job that makes an empty queue non-empty publishes a hint.
pub async fn first_runnable_job_is_hinted(rig: &Rig) {
    for _ in 0..3 {
        let mut hints = rig.store.hints();
        let lease = rig.start("alpha").await.lease;
        expect_hint(&mut hints, &Expected::Work(name("alpha"))).await;
        rig.complete(lease).await;
    }
}

pub async fn released_job_is_hinted(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let mut hints = rig.store.hints();
    rig.release(lease).await;
    expect_hint(&mut hints, &Expected::Work(name("alpha"))).await;
}

pub async fn recovered_job_is_hinted(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    let mut hints = rig.store.hints();
    rig.lose("alpha").await;
    expect_hint(&mut hints, &Expected::Work(name("alpha"))).await;
}

/// A claim that promotes more jobs than it takes publishes a hint for other workers.
pub async fn promoted_jobs_are_hinted(rig: &Rig) {
    for _ in 0..3 {
        rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    }
    rig.advance(2).await;
    let mut hints = rig.store.hints();
    rig.take("alpha").await;
    expect_hint(&mut hints, &Expected::Work(name("alpha"))).await;
}

pub async fn retry_is_hinted(rig: &Rig) {
    let id = rig.queue("alpha").await;
    rig.cancel(id).await;
    let mut hints = rig.store.hints();
    rig.retry_as(id, JobId::random()).await;
    expect_hint(&mut hints, &Expected::Work(name("alpha"))).await;
}

pub async fn visible_changes_are_hinted(rig: &Rig) {
    let id = rig.queue("alpha").await;
    let mut hints = rig.store.hints();
    let job = Expected::Job(id);
    let lease = rig.take("alpha").await.lease;
    expect_hint(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    let progress = Some(ReportedProgress { completed: 1, total: None, percent: None, message: None });
    rig.report(Report { lease, progress, logs: vec![] }).await;
    expect_hint(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    rig.cancel(id).await;
    expect_hint(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    rig.fail_canceled(lease).await;
    expect_hint(&mut hints, &job).await;
    let mut hints = rig.store.hints();
    rig.retry_as(id, JobId::random()).await;
    expect_hint(&mut hints, &job).await;
}

pub async fn recovery_and_cancel_are_hinted(rig: &Rig) {
    rig.warm().await;
    let id = rig.queue("alpha").await;
    let mut hints = rig.store.hints();
    rig.lose("alpha").await;
    expect_hint(&mut hints, &Expected::Job(id)).await;
    let mut hints = rig.store.hints();
    rig.cancel(id).await;
    expect_hint(&mut hints, &Expected::Job(id)).await;
}

pub async fn every_listener_is_notified(rig: &Rig) {
    let mut listeners: Vec<_> = (0..8).map(|_| rig.store.hints()).collect();
    rig.queue("alpha").await;
    for hints in &mut listeners {
        expect_hint(hints, &Expected::Work(name("alpha"))).await;
    }
}

/// A stream that is not read delays neither calls nor other streams.
pub async fn slow_listener_blocks_no_call(rig: &Rig) {
    let mut slow = rig.store.hints();
    for _ in 0..2_000 {
        rig.queue("alpha").await;
    }
    let lease = rig.take("alpha").await.lease;
    let mut fresh = rig.store.hints();
    rig.complete(lease).await;
    expect_hint(&mut fresh, &Expected::Job(lease.job)).await;
    expect_hint(&mut slow, &Expected::Job(lease.job)).await;
}
