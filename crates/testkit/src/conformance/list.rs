//! Lists: each state's order, and pages that give each job once.

use std::collections::BTreeSet;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, Priority,
    limits::PAGE_JOBS,
    store::{ListFilter, NewJob, Outcome, Page},
};

use crate::{
    Rig,
    jobs::{error, name},
};

/// Without a state: newest accepted first, over all types and states.
pub async fn all_jobs_are_listed_newest_first(rig: &Rig) {
    let mut ids = Vec::new();
    for at in 0..9 {
        let job = rig.job(["alpha", "beta", "gamma"][at % 3]);
        ids.push(rig.put(&NewJob { delay: rig.units(if at % 2 == 0 { 900 } else { 0 }), ..job }).await);
    }
    rig.take("beta").await;
    rig.cancel(ids[3]).await;
    ids.reverse();
    for limit in [1, 2, 4, 9, 100] {
        let listed: Vec<JobId> = rig.list(None, None, limit).await.iter().map(|job| job.id).collect();
        assert_eq!(listed, ids, "{limit} a page");
    }
}

/// Queued: next to run first. Scheduled: soonest due first. InProgress: longest running first.
pub async fn waiting_and_running_jobs_are_ordered(rig: &Rig) {
    let (mut queued, mut scheduled, mut running) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..3 {
        running.push(rig.start("delta").await.lease);
        rig.advance(1).await;
        for (at, of) in ["alpha", "beta"].into_iter().enumerate() {
            let mut job = rig.job(of);
            job.terms.priority = Priority::new(round);
            queued.push((9 - round, round, at, rig.put(&job).await));
            let delay = rig.units(2_000 - 400 * u32::from(round) - 7 * at as u32);
            scheduled.push((delay, rig.put(&NewJob { delay, ..rig.job(of) }).await));
        }
    }
    queued.sort_unstable();
    scheduled.sort_unstable();
    assert_eq!(rig.ids(Some(JobStatus::Queued)).await, queued.iter().map(|job| job.3).collect::<Vec<_>>());
    assert_eq!(rig.ids(Some(JobStatus::Scheduled)).await, scheduled.iter().map(|job| job.1).collect::<Vec<_>>());
    let running: Vec<JobId> = running.iter().map(|lease| lease.job).collect();
    assert_eq!(rig.ids(Some(JobStatus::InProgress)).await, running);
}

/// Ended: last ended first, whenever it was accepted.
pub async fn ended_jobs_are_listed_latest_first(rig: &Rig) {
    let leases = [rig.start("alpha").await.lease, rig.start("beta").await.lease, rig.start("alpha").await.lease];
    let order = [2, 0, 1];
    for at in order {
        rig.complete(leases[at]).await;
    }
    let expected: Vec<JobId> = order.iter().rev().map(|at| leases[*at].job).collect();
    assert_eq!(rig.ids(Some(JobStatus::Completed)).await, expected);
    for (status, outcome) in [
        (JobStatus::Failed, Outcome::Failed { error: error("F") }),
        (JobStatus::Canceled, Outcome::Canceled { error: error("C") }),
    ] {
        let (first, second) = (rig.start("alpha").await.lease, rig.start("beta").await.lease);
        rig.settle(second, outcome.clone()).await;
        rig.settle(first, outcome).await;
        assert_eq!(rig.ids(Some(status)).await, [first.job, second.job]);
    }
    let (first, second) = (rig.queue("gamma").await, rig.queue("gamma").await);
    rig.cancel(second).await;
    rig.cancel(first).await;
    assert_eq!(rig.ids(Some(JobStatus::Canceled)).await[..2], [first, second], "those that never ran too");
}

/// A name filters, with and without a state.
pub async fn list_filters_by_name(rig: &Rig) {
    let alpha = [rig.queue("alpha").await, rig.queue("alpha").await, rig.queue("alpha").await];
    rig.queue("beta").await;
    rig.queue("alpha.x").await;
    let ids = async |status, of: &str| -> Vec<JobId> {
        rig.list(status, Some(name(of)), 2).await.iter().map(|job| job.id).collect()
    };
    assert_eq!(ids(None, "alpha").await, [alpha[2], alpha[1], alpha[0]]);
    assert_eq!(ids(Some(JobStatus::Queued), "alpha").await, alpha);
    assert_eq!(ids(Some(JobStatus::Failed), "alpha").await, []);
    assert_eq!(ids(None, "alph").await, []);
}

/// Items are the jobs, without their results.
pub async fn items_omit_results(rig: &Rig) {
    let ended = rig.start("alpha").await.lease;
    rig.complete(ended).await;
    rig.start("alpha").await;
    rig.queue("alpha").await;
    rig.put(&NewJob { delay: rig.units(9), ..rig.job("alpha") }).await;
    for item in rig.list(None, None, 10).await {
        let mut view = rig.view(item.id).await;
        // A place in the queue is told by `get`; a list may leave it out.
        (view.result, view.ahead) = (None, item.ahead.and(view.ahead));
        assert_eq!(item, view);
    }
}

/// A page holds no more than its bound, whatever it asks for, and the pages hold everything.
pub async fn page_size_is_capped(rig: &Rig) {
    let all = PAGE_JOBS as usize + 30;
    for _ in 0..all {
        rig.queue("alpha").await;
    }
    for status in [None, Some(JobStatus::Queued)] {
        let filter = ListFilter { status, name: None };
        let page = rig.store.list(&filter, &Page { cursor: None, limit: 10_000 }).await.expect("the store answers");
        assert!(page.jobs.len() <= PAGE_JOBS as usize, "{} jobs in one page", page.jobs.len());
        assert!(page.next.is_some(), "there is more");
        assert_eq!(rig.list(status, None, PAGE_JOBS).await.len(), all);
    }
    assert_eq!(rig.ids(Some(JobStatus::Failed)).await, []);
}

/// An empty store has one empty page.
pub async fn empty_store_lists_nothing(rig: &Rig) {
    for status in [None].into_iter().chain(JobStatus::ALL.map(Some)) {
        assert_eq!(rig.list(status, None, 5).await, []);
    }
}

/// Whatever is inserted, started and ended between pages: no job comes twice, and none that was there is left out.
pub async fn changing_jobs_are_listed_once(rig: &Rig) {
    let mut there = BTreeSet::new();
    for _ in 0..12 {
        there.insert(rig.queue("alpha").await);
        there.insert(rig.queue("beta").await);
    }
    let filter = ListFilter::default();
    let (mut cursor, mut listed) = (None, Vec::new());
    loop {
        let page = rig.store.list(&filter, &Page { cursor, limit: 3 }).await.expect("the store answers");
        listed.extend(page.jobs.iter().map(|job| job.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        rig.queue("alpha").await;
        let lease = rig.take("beta").await.lease;
        rig.complete(lease).await;
    }
    let once: BTreeSet<JobId> = listed.iter().copied().collect();
    assert_eq!(once.len(), listed.len(), "no job twice");
    assert!(there.is_subset(&once), "each job that was there");
}

/// The same for the lists of the states, where jobs come and go.
pub async fn changing_jobs_of_a_state_are_not_repeated(rig: &Rig) {
    for _ in 0..10 {
        rig.queue("alpha").await;
        let lease = rig.start("beta").await.lease;
        rig.complete(lease).await;
    }
    for status in [JobStatus::Queued, JobStatus::Completed, JobStatus::InProgress] {
        let filter = ListFilter { status: Some(status), name: None };
        let (mut cursor, mut listed) = (None, Vec::new());
        loop {
            let page = rig.store.list(&filter, &Page { cursor, limit: 2 }).await.expect("the store answers");
            listed.extend(page.jobs.iter().map(|job| job.id));
            cursor = page.next;
            if cursor.is_none() || listed.len() > 60 {
                break;
            }
            rig.queue("alpha").await;
            let lease = rig.take("alpha").await.lease;
            if listed.len() % 4 == 0 {
                rig.complete(lease).await;
            }
        }
        let once: BTreeSet<JobId> = listed.iter().copied().collect();
        assert_eq!(once.len(), listed.len(), "no {status} job twice");
    }
}

/// A job that left a state and came back at a later place was on an earlier page: it is left out.
pub async fn requeued_job_is_not_listed_twice(rig: &Rig) {
    let back = rig.queue("alpha").await;
    let others = [rig.queue("alpha").await, rig.queue("alpha").await];
    rig.advance(1).await;
    let next = async |status, cursor| {
        let filter = ListFilter { status: Some(status), name: None };
        let page = rig.store.list(&filter, &Page { cursor, limit: 1 }).await.expect("the store answers");
        (page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), page.next)
    };
    let (first, mut queued) = next(JobStatus::Queued, None).await;
    assert_eq!(first, [back]);
    rig.advance(1).await;
    let lease = rig.take("alpha").await.lease;
    rig.again(lease, 1).await;
    rig.advance(2).await;
    // Promotes it, behind the others, and takes the first of them.
    let first = rig.take("alpha").await.lease;
    assert_eq!((first.job, rig.status(back).await), (others[0], JobStatus::Queued));
    let mut rest = Vec::new();
    while let Some(cursor) = queued {
        let (page, after) = next(JobStatus::Queued, Some(cursor)).await;
        rest.extend(page);
        queued = after;
    }
    assert!(!rest.contains(&back), "it was on the first page");
    assert_eq!(rest, [others[1]]);
}

/// The same for what runs: started again, it runs for less long than when it was listed.
pub async fn restarted_job_is_not_listed_twice(rig: &Rig) {
    let back = rig.start("alpha").await.lease;
    rig.advance(1).await;
    let other = rig.start("beta").await.lease;
    rig.advance(1).await;
    let filter = ListFilter { status: Some(JobStatus::InProgress), name: None };
    let list = async |cursor| rig.store.list(&filter, &Page { cursor, limit: 1 }).await.expect("the store answers");
    let first = list(None).await;
    assert_eq!(first.jobs[0].id, back.job);
    rig.advance(1).await;
    rig.release(back).await;
    rig.take("alpha").await;
    let (mut cursor, mut rest) = (first.next, Vec::new());
    while cursor.is_some() {
        let page = list(cursor).await;
        rest.extend(page.jobs.iter().map(|job| job.id));
        cursor = page.next;
    }
    assert_eq!(rest, [other.job]);
}

/// `versions` answers for each id, in order, also if one comes twice.
pub async fn versions_answer_in_order(rig: &Rig) {
    let (one, two) = (rig.queue("alpha").await, rig.start("beta").await.lease.job);
    let ids = [two, JobId::random(), one, two];
    let versions = rig.store.versions(&ids).await.expect("the store answers");
    let (first, second) = (rig.view(one).await.version, rig.view(two).await.version);
    assert_eq!(versions, [Some(second), None, Some(first), Some(second)]);
    assert_eq!(rig.store.versions(&[]).await.expect("the store answers"), []);
}
