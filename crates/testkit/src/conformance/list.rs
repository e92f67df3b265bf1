//! Lists: the order of each list, and pages that return each job once.

use std::{cmp::Reverse, collections::BTreeSet};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, Priority,
    limits::PAGE_JOBS,
    store::{ListFilter, NewJob, Outcome, Page},
};

use crate::{
    Rig,
    jobs::{digest, error, name},
};

/// A list of all states returns the newest job first.
pub async fn all_jobs_are_listed_newest_first(rig: &Rig) {
    let mut ids = Vec::new();
    for number in 0..9 {
        let job = rig.job(["alpha", "beta", "gamma"][number % 3]);
        ids.push(rig.put(&NewJob { delay: rig.units(if number % 2 == 0 { 900 } else { 0 }), ..job }).await);
    }
    rig.take("beta").await;
    rig.cancel(ids[3]).await;
    ids.reverse();
    for limit in [1, 2, 4, 9, 100] {
        let listed: Vec<JobId> = rig.list(None, None, limit).await.iter().map(|job| job.id).collect();
        assert_eq!(listed, ids, "{limit} jobs per page");
    }
}

/// Queued: in the order of claims. Scheduled: earliest due time first. InProgress: earliest start first.
pub async fn waiting_and_running_jobs_are_ordered(rig: &Rig) {
    let (mut queued, mut scheduled, mut running) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..3 {
        running.push(rig.start("delta").await.lease);
        rig.advance(1).await;
        for (name, lead) in [("alpha", 0), ("beta", 7)] {
            let mut job = rig.job(name);
            job.terms.priority = Priority::new(round);
            queued.push((job.terms.priority, rig.put(&job).await));
            let delay = rig.units(2_000 - 400 * u32::from(round) - lead);
            scheduled.push((delay, rig.put(&NewJob { delay, ..rig.job(name) }).await));
        }
    }
    queued.sort_by_key(|job| Reverse(job.0));
    scheduled.sort_unstable();
    assert_eq!(rig.ids(Some(JobStatus::Queued)).await, queued.iter().map(|job| job.1).collect::<Vec<_>>());
    assert_eq!(rig.ids(Some(JobStatus::Scheduled)).await, scheduled.iter().map(|job| job.1).collect::<Vec<_>>());
    let running: Vec<JobId> = running.iter().map(|lease| lease.job).collect();
    assert_eq!(rig.ids(Some(JobStatus::InProgress)).await, running);
}

/// Ended jobs are ordered by the time they ended, not by the time they were accepted.
pub async fn ended_jobs_are_listed_latest_first(rig: &Rig) {
    let leases = [rig.start("alpha").await.lease, rig.start("beta").await.lease, rig.start("alpha").await.lease];
    let order = [2, 0, 1];
    for index in order {
        rig.complete(leases[index]).await;
    }
    let expected: Vec<JobId> = order.iter().rev().map(|index| leases[*index].job).collect();
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
    assert_eq!(rig.ids(Some(JobStatus::Canceled)).await[..2], [first, second], "jobs that never ran");
}

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

/// The jobs of an owner: newest first without a state, else in the state's order.
pub async fn list_filters_by_owner(rig: &Rig) {
    let mut own = Vec::new();
    for number in 0..9_u8 {
        let owner = [Some(digest(1)), Some(digest(2)), None][usize::from(number % 3)];
        let job = NewJob { owner, ..rig.job(["alpha", "beta"][usize::from(number % 2)]) };
        own.extend((owner == Some(digest(1))).then_some(job.id));
        rig.put(&job).await;
    }
    rig.cancel(own[0]).await;
    let retried = JobId::random();
    rig.retry_as(own[0], retried).await;
    let ids = async |status, of: Option<&str>, number| -> Vec<Vec<JobId>> {
        let filter = ListFilter { status, name: of.map(name), owner: Some(digest(number)), ..ListFilter::default() };
        let mut listed = Vec::new();
        for limit in [1, 2, 100] {
            listed.push(rig.pages(&filter, limit).await.iter().map(|job| job.id).collect());
        }
        listed
    };
    let same = |ids: &[JobId]| vec![ids.to_vec(); 3];
    assert_eq!(ids(None, None, 1).await, same(&[retried, own[2], own[1], own[0]]));
    assert_eq!(ids(None, Some("alpha"), 1).await, same(&[retried, own[2], own[0]]));
    assert_eq!(ids(Some(JobStatus::Queued), None, 1).await, same(&[own[1], own[2], retried]));
    assert_eq!(ids(Some(JobStatus::Canceled), Some("alpha"), 1).await, same(&[own[0]]));
    assert_eq!(ids(None, Some("gamma"), 1).await, same(&[]));
    assert_eq!(ids(None, None, 3).await, same(&[]));
}

/// The only job of an owner is on the first page, behind many jobs of others. It leaves the list when it is pruned.
pub async fn jobs_of_an_owner_are_found_by_index(rig: &Rig) {
    let mut own = NewJob { owner: Some(digest(1)), ..rig.job("alpha") };
    own.terms.retention = rig.units(5);
    rig.put(&own).await;
    for _ in 0..PAGE_JOBS + 30 {
        rig.queue("alpha").await;
    }
    let filter = ListFilter { owner: Some(digest(1)), ..ListFilter::default() };
    let first = async || {
        let page = rig.store.list(&filter, &Page { cursor: None, limit: 2 }).await.expect("the store answers");
        page.jobs.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(first().await, [own.id]);
    rig.cancel(own.id).await;
    assert_eq!(first().await, [own.id]);
    rig.advance(6).await;
    assert_eq!(first().await, []);
    rig.prune().await;
    assert_eq!(first().await, []);
}

/// A page of one state checks at most `PAGE_JOBS` jobs, and its cursor continues behind them.
pub async fn page_of_a_state_checks_few_jobs_of_others(rig: &Rig) {
    for _ in 0..PAGE_JOBS + 30 {
        rig.queue("alpha").await;
    }
    let own = rig.put(&NewJob { owner: Some(digest(1)), ..rig.job("alpha") }).await;
    let filter = ListFilter { status: Some(JobStatus::Queued), owner: Some(digest(1)), ..ListFilter::default() };
    let first = rig.store.list(&filter, &Page { cursor: None, limit: 2 }).await.expect("the store answers");
    assert_eq!((first.jobs, first.next.is_some()), (Vec::new(), true));
    let all: Vec<JobId> = rig.pages(&filter, 2).await.iter().map(|job| job.id).collect();
    assert_eq!(all, [own]);
}

pub async fn items_omit_results(rig: &Rig) {
    let ended = rig.start("alpha").await.lease;
    rig.complete(ended).await;
    rig.start("alpha").await;
    rig.queue("alpha").await;
    rig.put(&NewJob { delay: rig.units(9), ..rig.job("alpha") }).await;
    for item in rig.list(None, None, 10).await {
        let mut view = rig.view(item.id).await;
        // A list may omit `ahead`.
        (view.result, view.ahead) = (None, item.ahead.and(view.ahead));
        assert_eq!(item, view);
    }
}

/// A page has at most `PAGE_JOBS` jobs, even for a larger limit. All pages together have every job.
pub async fn page_size_is_capped(rig: &Rig) {
    let all = PAGE_JOBS as usize + 30;
    for _ in 0..all {
        rig.queue("alpha").await;
    }
    for status in [None, Some(JobStatus::Queued)] {
        let filter = ListFilter { status, ..ListFilter::default() };
        let page = rig.store.list(&filter, &Page { cursor: None, limit: 10_000 }).await.expect("the store answers");
        assert!(page.jobs.len() <= PAGE_JOBS as usize, "{} jobs in one page", page.jobs.len());
        assert!(page.next.is_some(), "more jobs follow");
        assert_eq!(rig.list(status, None, PAGE_JOBS).await.len(), all);
    }
    assert_eq!(rig.ids(Some(JobStatus::Failed)).await, []);
}

pub async fn empty_store_lists_nothing(rig: &Rig) {
    for status in [None].into_iter().chain(JobStatus::ALL.map(Some)) {
        assert_eq!(rig.list(status, None, 5).await, []);
    }
}

/// Jobs are inserted, started and completed between pages. No job is returned twice, and no earlier job is missing.
pub async fn changing_jobs_are_listed_once(rig: &Rig) {
    let mut earlier = BTreeSet::new();
    for _ in 0..12 {
        earlier.insert(rig.queue("alpha").await);
        earlier.insert(rig.queue("beta").await);
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
    let distinct: BTreeSet<JobId> = listed.iter().copied().collect();
    assert_eq!(distinct.len(), listed.len(), "no job is returned twice");
    assert!(earlier.is_subset(&distinct), "no earlier job is missing");
}

/// Jobs enter and leave the listed state between pages.
pub async fn changing_jobs_of_a_state_are_not_repeated(rig: &Rig) {
    for _ in 0..10 {
        rig.queue("alpha").await;
        let lease = rig.start("beta").await.lease;
        rig.complete(lease).await;
    }
    for status in [JobStatus::Queued, JobStatus::Completed, JobStatus::InProgress] {
        let filter = ListFilter { status: Some(status), ..ListFilter::default() };
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
        let distinct: BTreeSet<JobId> = listed.iter().copied().collect();
        assert_eq!(distinct.len(), listed.len(), "no {status} job is returned twice");
    }
}

/// A job of the first page leaves Queued and returns behind the cursor. Later pages omit the job.
pub async fn requeued_job_is_not_listed_twice(rig: &Rig) {
    let requeued = rig.queue("alpha").await;
    let others = [rig.queue("alpha").await, rig.queue("alpha").await];
    rig.advance(1).await;
    let next = async |status, cursor| {
        let filter = ListFilter { status: Some(status), ..ListFilter::default() };
        let page = rig.store.list(&filter, &Page { cursor, limit: 1 }).await.expect("the store answers");
        (page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), page.next)
    };
    let (first, mut queued) = next(JobStatus::Queued, None).await;
    assert_eq!(first, [requeued]);
    rig.advance(1).await;
    let lease = rig.take("alpha").await.lease;
    rig.again(lease, 1).await;
    rig.advance(2).await;
    // The claim promotes the retried job behind the other jobs and takes the first of them.
    let first = rig.take("alpha").await.lease;
    assert_eq!((first.job, rig.status(requeued).await), (others[0], JobStatus::Queued));
    let mut rest = Vec::new();
    while let Some(cursor) = queued {
        let (page, after) = next(JobStatus::Queued, Some(cursor)).await;
        rest.extend(page);
        queued = after;
    }
    assert_eq!(rest, [others[1]]);
}

/// A job of the first page is released and claimed again, so that its start moves behind the cursor.
pub async fn restarted_job_is_not_listed_twice(rig: &Rig) {
    let restarted = rig.start("alpha").await.lease;
    rig.advance(1).await;
    let other = rig.start("beta").await.lease;
    rig.advance(1).await;
    let filter = ListFilter { status: Some(JobStatus::InProgress), ..ListFilter::default() };
    let list = async |cursor| rig.store.list(&filter, &Page { cursor, limit: 1 }).await.expect("the store answers");
    let first = list(None).await;
    assert_eq!(first.jobs[0].id, restarted.job);
    rig.advance(1).await;
    rig.release(restarted).await;
    rig.take("alpha").await;
    let (mut cursor, mut rest) = (first.next, Vec::new());
    while cursor.is_some() {
        let page = list(cursor).await;
        rest.extend(page.jobs.iter().map(|job| job.id));
        cursor = page.next;
    }
    assert_eq!(rest, [other.job]);
}

/// `versions` returns one version per id, in order, also for repeated ids.
pub async fn versions_answer_in_order(rig: &Rig) {
    let (queued, running) = (rig.queue("alpha").await, rig.start("beta").await.lease.job);
    let ids = [running, JobId::random(), queued, running];
    let versions = rig.store.versions(&ids).await.expect("the store answers");
    let (queued, running) = (rig.view(queued).await.version, rig.view(running).await.version);
    assert_eq!(versions, [Some(running), None, Some(queued), Some(running)]);
    assert_eq!(rig.store.versions(&[]).await.expect("the store answers"), []);
}
