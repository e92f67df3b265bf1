//! Failed jobs of a window, grouped by type and error code.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, StoreError, Timestamp,
    limits::PAGE_JOBS,
    store::{ListFilter, Page, Store},
};
use serde::Serialize;

use crate::store_call::within;

/// Maximum number of pages that a search reads.
const PAGES: usize = 25;
/// The usual limit of a search.
pub(crate) const TIME: Duration = Duration::from_secs(2);

/// The failed jobs of a window, returned by [`AsyncEndpoints::failures`](crate::AsyncEndpoints::failures).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failures {
    /// One entry for each type and error code, the most frequent first.
    pub failures: Vec<FailureGroup>,
    /// Number of jobs that were read.
    pub scanned: u64,
    /// Whether all failed jobs of the window were read. If not, the earliest ones are missing.
    pub complete: bool,
}

/// Jobs of one type that failed with the same error code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FailureGroup {
    /// The type.
    pub name: JobName,
    /// The error code of the last attempt.
    pub code: String,
    /// Number of jobs.
    pub count: u64,
    /// When the first of them failed.
    pub first_at: Timestamp,
    /// When the last of them failed.
    pub last_at: Timestamp,
    /// The last of them.
    pub sample_id: JobId,
}

/// Reads the failed jobs from `since` on, last ended first: at most 5 000 jobs, and no further page after `time`.
pub(crate) async fn find(store: &dyn Store, since: Timestamp, time: Duration) -> Result<Failures, StoreError> {
    let filter = ListFilter { status: Some(JobStatus::Failed), ..ListFilter::default() };
    let (began, mut groups, mut cursor) = (Instant::now(), Groups::default(), None);
    for _ in 0..PAGES {
        let page = within(store.list(&filter, &Page { cursor, limit: PAGE_JOBS })).await?;
        let is_over = !page.jobs.iter().all(|job| groups.add(job, since));
        cursor = page.next;
        if is_over || cursor.is_none() {
            return Ok(groups.failures(true));
        }
        if began.elapsed() > time {
            break;
        }
    }
    Ok(groups.failures(false))
}

#[derive(Default)]
struct Groups {
    by_code: HashMap<(JobName, String), FailureGroup>,
    scanned: u64,
}

impl Groups {
    /// Counts a failed job, of which the ones that ended later were counted before. False if it failed before `since`.
    fn add(&mut self, job: &JobView, since: Timestamp) -> bool {
        self.scanned += 1;
        let at = job.completed_at.unwrap_or(job.last_updated_at);
        if at < since {
            return false;
        }
        let code = job.error.as_ref().map(|error| error.code.to_string()).unwrap_or_default();
        let new = || FailureGroup {
            name: job.name.clone(),
            code: code.clone(),
            count: 0,
            first_at: at,
            last_at: at,
            sample_id: job.id,
        };
        let group = self.by_code.entry((job.name.clone(), code.clone())).or_insert_with(new);
        group.count += 1;
        group.first_at = group.first_at.min(at);
        true
    }

    fn failures(self, complete: bool) -> Failures {
        let mut failures: Vec<_> = self.by_code.into_values().collect();
        failures.sort_by(|a, b| (b.count, b.last_at, &a.name, &a.code).cmp(&(a.count, a.last_at, &b.name, &b.code)));
        Failures { failures, scanned: self.scanned, complete }
    }
}
