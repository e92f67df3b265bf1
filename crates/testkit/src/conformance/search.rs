//! Filters of lists by error code, time of acceptance and text: which jobs match, and how many a page checks.

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, JobView,
    limits::PAGE_JOBS,
    store::{Cursor, ListFilter, ListPage, NewJob, Outcome, Page, Report, ReportedProgress},
};

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{digest, error, name},
};

/// The ids of all jobs that match, from pages of different sizes.
async fn found(rig: &Rig, filter: &ListFilter) -> Vec<JobId> {
    let ids = async |limit| -> Vec<JobId> { rig.pages(filter, limit).await.iter().map(|job| job.id).collect() };
    let all = ids(100).await;
    for limit in [1, 2] {
        assert_eq!(ids(limit).await, all, "{limit} jobs per page");
    }
    all
}

fn all() -> ListFilter {
    ListFilter::default()
}

fn coded(code: &str) -> ListFilter {
    ListFilter { code: Some(code.to_owned()), ..all() }
}

fn with_text(text: &str) -> ListFilter {
    ListFilter { text: Some(text.to_owned()), ..all() }
}

/// Starts a job and ends it as failed with this code.
async fn fail(rig: &Rig, of: &str, code: &'static str) -> JobId {
    let lease = rig.start(of).await.lease;
    rig.settle(lease, Outcome::Failed { error: error(code) }).await;
    lease.job
}

async fn first(rig: &Rig, filter: &ListFilter) -> ListPage {
    rig.store.list(filter, &Page { cursor: None, limit: 5 }).await.expect("the store answers")
}

/// The error that ended a job counts, else the last attempt's error.
pub async fn list_filters_by_error_code(rig: &Rig) {
    let failed = [fail(rig, "alpha", "DISK").await, fail(rig, "beta", "DISK").await];
    fail(rig, "alpha", "DISK_FULL").await;
    let retried = rig.start("alpha").await.lease;
    rig.settle(retried, Outcome::Retry { delay: rig.units(900), error: error("DISK") }).await;
    let canceled = rig.queue("gamma").await;
    rig.cancel(canceled).await;
    let completed = rig.start("alpha").await.lease;
    rig.complete(completed).await;
    rig.queue("alpha").await;
    assert_eq!(found(rig, &coded("DISK")).await, [retried.job, failed[1], failed[0]]);
    for (status, ids) in [
        (JobStatus::Failed, vec![failed[1], failed[0]]),
        (JobStatus::Scheduled, vec![retried.job]),
        (JobStatus::Queued, vec![]),
        (JobStatus::Completed, vec![]),
    ] {
        assert_eq!(found(rig, &ListFilter { status: Some(status), ..coded("DISK") }).await, ids, "{status}");
    }
    assert_eq!(found(rig, &coded("JOB_CANCELED")).await, [canceled]);
    for none in ["DIS", "disk", "", "code"] {
        assert_eq!(found(rig, &coded(none)).await, [], "{none:?}");
    }
}

/// The range includes its start and excludes its end, in lists by acceptance, of an owner and of a state.
pub async fn list_filters_by_time_of_acceptance(rig: &Rig) {
    let mut jobs: Vec<JobView> = Vec::new();
    for number in 0..5_u8 {
        let owner = Some(digest(number % 2));
        let id = rig.put(&NewJob { owner, ..rig.job(["alpha", "beta"][usize::from(number % 2)]) }).await;
        jobs.push(rig.view(id).await);
        rig.advance(1).await;
    }
    let ids = |jobs: &[&JobView]| jobs.iter().map(|job| job.id).collect::<Vec<_>>();
    for from in 0..5 {
        for to in 0..5 {
            let range = ListFilter { since: Some(jobs[from].created_at), until: Some(jobs[to].created_at), ..all() };
            let mut within: Vec<&JobView> = jobs.iter().take(to).skip(from).collect();
            let queued = ListFilter { status: Some(JobStatus::Queued), ..range.clone() };
            assert_eq!(found(rig, &queued).await, ids(&within), "queued, {from} to {to}");
            within.reverse();
            assert_eq!(found(rig, &range).await, ids(&within), "{from} to {to}");
            within.retain(|job| job.owner == Some(digest(1)));
            let owned = ListFilter { owner: Some(digest(1)), ..range.clone() };
            assert_eq!(found(rig, &owned).await, ids(&within), "of an owner, {from} to {to}");
            let named = ListFilter { name: Some(name("beta")), ..range };
            assert_eq!(found(rig, &named).await, ids(&within), "of a type, {from} to {to}");
        }
    }
    let since = ListFilter { since: Some(jobs[3].created_at), ..all() };
    assert_eq!(found(rig, &since).await, [jobs[4].id, jobs[3].id]);
    let until = ListFilter { until: Some(jobs[1].created_at), ..all() };
    assert_eq!(found(rig, &until).await, [jobs[0].id]);
}

/// A job's time of acceptance stays the same when the job is promoted, retried and ended.
pub async fn time_of_acceptance_never_changes(rig: &Rig) {
    let job = rig.put(&NewJob { delay: rig.units(2), ..rig.job("alpha") }).await;
    let created = rig.view(job).await.created_at;
    let range = ListFilter { since: Some(created), until: Some(created + rig.units(1)), ..all() };
    rig.advance(3).await;
    let lease = rig.take("alpha").await.lease;
    rig.again(lease, 1).await;
    rig.advance(2).await;
    let lease = rig.take("alpha").await.lease;
    assert_eq!(found(rig, &range).await, [job]);
    rig.complete(lease).await;
    rig.queue("alpha").await;
    assert_eq!(found(rig, &range).await, [job]);
    assert_eq!(found(rig, &ListFilter { status: Some(JobStatus::Completed), ..range }).await, [job]);
}

/// Jobs that were accepted within one millisecond are found, although their order numbers run ahead of the clock.
pub async fn jobs_of_a_burst_are_in_their_range(rig: &Rig) {
    let mut burst = Vec::new();
    for _ in 0..400 {
        burst.push(rig.queue("alpha").await);
    }
    let last = rig.view(burst[399]).await.created_at;
    burst.reverse();
    let range = ListFilter { until: Some(last + std::time::Duration::from_millis(1)), ..all() };
    assert_eq!(rig.pages(&range, 100).await.iter().map(|job| job.id).collect::<Vec<_>>(), burst);
}

/// Text matches in the id, in the detail of the error and in the message of the progress.
pub async fn list_filters_by_text(rig: &Rig) {
    let failed = fail(rig, "alpha", "DISK_FULL").await;
    let running = rig.start("beta").await.lease;
    let message = Some("Größe of Row 12%d [x]".to_owned());
    let progress = Some(ReportedProgress { completed: 1, total: None, percent: None, message });
    rig.report(Report { lease: running, progress, logs: Vec::new() }).await;
    let queued = rig.queue("gamma").await;
    for (text, ids) in [
        ("disk_full: ü", vec![failed]),
        ("DISK_FULL: Ü", vec![]),
        ("QUOTES\" and a\nNEW", vec![failed]),
        ("caused by", vec![]),
        ("A test", vec![]),
        ("größe OF row", vec![running.job]),
        ("12%D [", vec![running.job]),
        ("%d.*", vec![]),
        ("=gr", vec![]),
        (&queued.to_string().to_uppercase(), vec![queued]),
        ("-", vec![queued, running.job, failed]),
        ("gamma", vec![]),
    ] {
        assert_eq!(found(rig, &with_text(text)).await, ids, "{text:?}");
    }
    let status = Some(JobStatus::InProgress);
    assert_eq!(found(rig, &ListFilter { status, ..with_text("row") }).await, [running.job]);
    // The next attempt has no progress yet.
    rig.release(running).await;
    rig.take("beta").await;
    assert_eq!(found(rig, &with_text("row")).await, []);
}

/// The result of a job is not searched, whatever it looks like.
pub async fn results_are_not_searched(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    rig.settle(lease, crate::jobs::completed(r#"{"code":"DISK","detail":"needle"}"#)).await;
    assert_eq!(found(rig, &coded("DISK")).await, []);
    assert_eq!(found(rig, &with_text("needle")).await, []);
}

/// A job must match all filters.
pub async fn filters_combine(rig: &Rig) {
    let before = fail(rig, "alpha", "DISK").await;
    rig.advance(1).await;
    let mut own = Vec::new();
    for (owner, of, code) in [(1, "alpha", "DISK"), (1, "alpha", "NET"), (1, "beta", "DISK"), (2, "alpha", "DISK")] {
        let id = rig.put(&NewJob { owner: Some(digest(owner)), ..rig.job(of) }).await;
        let lease = rig.take(of).await.lease;
        rig.settle(lease, Outcome::Failed { error: error(code) }).await;
        own.push(id);
        rig.advance(1).await;
    }
    let since = Some(rig.view(own[0]).await.created_at);
    let every = |status| ListFilter {
        status,
        name: Some(name("alpha")),
        owner: Some(digest(1)),
        code: Some("DISK".to_owned()),
        since,
        until: since.map(|since| since + rig.units(100)),
        text: Some("disk: ".to_owned()),
    };
    for status in [None, Some(JobStatus::Failed)] {
        assert_eq!(found(rig, &every(status)).await, [own[0]], "{status:?}");
        let of_all = ListFilter { owner: None, ..every(status) };
        assert_eq!(found(rig, &of_all).await, [own[3], own[0]], "{status:?}");
        let all_types = ListFilter { name: None, ..of_all };
        assert_eq!(found(rig, &all_types).await, [own[3], own[2], own[0]], "{status:?}");
        let at_any_time = ListFilter { since: None, ..all_types };
        assert_eq!(found(rig, &at_any_time).await, [own[3], own[2], own[0], before], "{status:?}");
        let with_any_code = ListFilter { code: None, text: Some("net".to_owned()), ..at_any_time };
        assert_eq!(found(rig, &with_any_code).await, [own[1]], "{status:?}");
    }
    assert_eq!(found(rig, &every(Some(JobStatus::Canceled))).await, []);
}

/// Without a state, a page does not check the jobs outside the range.
pub async fn time_range_is_found_by_index(rig: &Rig) {
    let many = async || {
        for _ in 0..PAGE_JOBS + 30 {
            rig.queue("alpha").await;
        }
    };
    many().await;
    rig.advance(6).await;
    let own = rig.put(&NewJob { owner: Some(digest(1)), ..rig.job("beta") }).await;
    rig.advance(6).await;
    many().await;
    let created = rig.view(own).await.created_at;
    let range = ListFilter { since: Some(created), until: Some(created + rig.units(1)), ..all() };
    for filter in [
        range.clone(),
        ListFilter { owner: Some(digest(1)), ..range.clone() },
        ListFilter { name: Some(name("beta")), ..range.clone() },
    ] {
        let page = first(rig, &filter).await;
        let ids: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        assert_eq!((ids, page.scanned, page.next), (vec![own], 1, None), "{filter:?}");
    }
}

/// A page checks at most `PAGE_JOBS` jobs, and its cursor continues behind them.
pub async fn distant_job_is_found_by_continuing(rig: &Rig) {
    let far = fail(rig, "alpha", "NEEDLE").await;
    let others = 5 * PAGE_JOBS;
    for _ in 0..others / 50 {
        run_concurrently((0..50).map(|_| {
            let (store, job) = (rig.store.clone(), rig.job("alpha"));
            async move { store.insert(job).await.expect("the store answers") }
        }))
        .await;
    }
    for filter in [coded("NEEDLE"), with_text("needle: "), with_text(&far.to_string())] {
        let (mut cursor, mut ids, mut scanned, mut pages) = (None, Vec::new(), 0, 0);
        loop {
            let page = rig.store.list(&filter, &Page { cursor, limit: 3 }).await.expect("the store answers");
            assert!(page.scanned <= PAGE_JOBS, "{} jobs checked in one page", page.scanned);
            ids.extend(page.jobs.iter().map(|job| job.id));
            (cursor, scanned, pages) = (page.next, scanned + page.scanned, pages + 1);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((ids, scanned), (vec![far], others + 1), "{filter:?}");
        assert_eq!(pages, 6, "{filter:?}");
    }
    let unfiltered = first(rig, &all()).await;
    assert_eq!((unfiltered.jobs.len(), unfiltered.scanned), (5, 5), "a page without such filters checks its own jobs");
}

/// A cursor from outside may hold any score.
pub async fn cursor_outside_the_range_is_answered(rig: &Rig) {
    let job = rig.queue("alpha").await;
    let since = rig.view(job).await.created_at;
    let range = ListFilter { since: Some(since), until: Some(since + rig.units(1)), ..all() };
    for (score, ids) in [(0, vec![]), (u64::MAX, vec![job])] {
        let cursor = Some(Cursor { since, score, id: JobId(uuid::Uuid::nil()) });
        let page = rig.store.list(&range, &Page { cursor, limit: 5 }).await.expect("the store answers");
        assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), ids, "{score}");
    }
    for empty in [(since + rig.units(1), since), (since, since)] {
        let range = ListFilter { since: Some(empty.0), until: Some(empty.1), ..all() };
        assert_eq!(found(rig, &range).await, [], "{empty:?}");
    }
}
