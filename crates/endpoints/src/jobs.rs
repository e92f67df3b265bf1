//! Lists of jobs, and what callers do with the jobs of one owner. Must not know HTTP.

use std::future::IntoFuture;

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, StoreError, Timestamp,
    job::{Digest, InvalidName},
    limits::PAGE_JOBS,
    store::{CancelOutcome, Cursor, JobLookup, ListFilter, Page, RetryOutcome},
};
use futures_util::future::BoxFuture;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{AsyncEndpoints, job_type::JobType, owner::JobOwner, store_call::within};

/// Default number of jobs on a page.
const LIMIT: u32 = 50;
/// Maximum number of store calls for a page. A call may return few jobs if a filter skips most of those that it checks.
const CALLS: usize = 10;

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The cursor is not that of a page with the same filters.
    #[error("invalid cursor: expected the next_cursor of a page with the same filters")]
    InvalidCursor,
    /// The name of the job type is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The store failed or did not answer in time.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A page of jobs.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs, without their results.
    pub jobs: Vec<JobView>,
    /// Number of jobs that were checked for this page, at most 2 000.
    pub scanned: u32,
    /// The cursor of the next page. `None` at the end. A page can be short, or empty, although it is set.
    pub next_cursor: Option<String>,
}

impl JobPage {
    /// Whether the list ends with this page: all its jobs were checked.
    pub fn is_complete(&self) -> bool {
        self.next_cursor.is_none()
    }
}

/// A query for jobs. Made by [`AsyncEndpoints::jobs`].
#[must_use = "the jobs are read when this is awaited"]
#[derive(Debug)]
pub struct Jobs<'a> {
    endpoints: &'a AsyncEndpoints,
    filter: ListFilter,
    invalid_name: Option<InvalidName>,
    limit: u32,
    cursor: Option<String>,
}

impl AsyncEndpoints {
    /// Starts a query for jobs. Set its filters, then await it for a page, or act on one job.
    ///
    /// ```
    /// use async_endpoints::{AsyncEndpoints, CancelOutcome, JobId, JobStatus};
    ///
    /// # async fn run(endpoints: &AsyncEndpoints, id: JobId) -> Result<(), Box<dyn std::error::Error>> {
    /// let mine = endpoints.jobs().owner("ada");
    /// // The job of another owner is not found.
    /// assert!(!matches!(mine.cancel(id).await?, CancelOutcome::NotFound));
    ///
    /// let page = mine.limit(20).await?;
    /// for job in &page.jobs {
    ///     println!("{} {} {}", job.id, job.name, job.status);
    /// }
    /// if let Some(cursor) = page.next_cursor {
    ///     let next = endpoints.jobs().owner("ada").limit(20).cursor(cursor).await?;
    /// }
    /// let failed = endpoints.jobs().status(JobStatus::Failed).code("DISK_FULL").await?; // of all owners
    /// println!("{} of {} jobs, complete: {}", failed.jobs.len(), failed.scanned, failed.is_complete());
    /// # Ok(()) }
    /// ```
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs { endpoints: self, filter: ListFilter::default(), invalid_name: None, limit: LIMIT, cursor: None }
    }
}

impl<'a> Jobs<'a> {
    /// Only jobs of this owner, as [`Builder::owner`](crate::Builder::owner) names it.
    ///
    /// Without a status, an index finds them. With a status, a page checks at most 2 000 jobs in that state.
    pub fn owner(self, name: &str) -> Self {
        self.owner_digest(JobOwner::new(name, false).digest())
    }

    /// Only jobs of the owner whose name has this hash, as operators see it in a job.
    pub fn owner_digest(mut self, owner: Digest) -> Self {
        self.filter.owner = Some(owner);
        self
    }

    /// Only jobs in this state, in the order of the state: next to run, soonest due, longest running, last ended. Without a
    /// status: newest accepted first.
    pub fn status(mut self, status: JobStatus) -> Self {
        self.filter.status = Some(status);
        self
    }

    /// Only jobs of this type.
    pub fn job_type<Req, Res>(mut self, job: JobType<Req, Res>) -> Self {
        match self.endpoints.job_name(job.name()) {
            Ok(name) => self.filter.name = Some(name),
            Err(invalid) => self.invalid_name = Some(invalid),
        }
        self
    }

    /// Only jobs of the type with this name.
    pub fn name(mut self, name: JobName) -> Self {
        self.filter.name = Some(name);
        self
    }

    /// Only jobs whose error has this code: the error that ended the job, or else the last attempt's error.
    ///
    /// A page checks at most 2 000 jobs that the other filters find by an index. [`JobPage::scanned`] is their number.
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.filter.code = Some(code.into());
        self
    }

    /// Only jobs accepted at this time or later.
    ///
    /// Without a status, an index finds them. With a status, a page checks at most 2 000 jobs in that state.
    pub fn since(mut self, time: Timestamp) -> Self {
        self.filter.since = Some(time);
        self
    }

    /// Only jobs accepted before this time, found as by [`since`](Self::since).
    pub fn until(mut self, time: Timestamp) -> Self {
        self.filter.until = Some(time);
        self
    }

    /// Only jobs with this text in their id, in the detail of their error or in the message of their progress. The letters A to
    /// Z match in both cases. A page checks as many jobs as with [`code`](Self::code).
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.filter.text = Some(text.into());
        self
    }

    /// Sets the maximum number of jobs on the page: 1 to 200. Defaults to 50.
    pub fn limit(mut self, jobs: u32) -> Self {
        self.limit = jobs.clamp(1, PAGE_JOBS);
        self
    }

    /// Continues behind a page with the same filters, at its `next_cursor`. No job is on two pages.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// Returns a job of the [owner](Self::owner). The job of another owner is not found. The other filters do not matter.
    pub async fn job(&self, id: JobId) -> Result<JobLookup, StoreError> {
        let lookup = self.endpoints.job(id).await?;
        let is_found = match &lookup {
            JobLookup::Found(job) => self.includes(job.owner),
            JobLookup::Gone { owner } => self.includes(*owner),
            JobLookup::NotFound => false,
        };
        Ok(if is_found { lookup } else { JobLookup::NotFound })
    }

    /// Cancels a job of the [owner](Self::owner), as [`AsyncEndpoints::cancel`] does. The job of another owner is not found.
    pub async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        match self.job(id).await? {
            // A job's owner never changes.
            JobLookup::Found(_) => self.endpoints.cancel(id).await,
            JobLookup::Gone { owner } => Ok(CancelOutcome::Gone { owner }),
            JobLookup::NotFound => Ok(CancelOutcome::NotFound),
        }
    }

    /// Retries a job of the [owner](Self::owner), as [`AsyncEndpoints::retry`] does. The job of another owner is not found.
    pub async fn retry(&self, id: JobId) -> Result<RetryOutcome, StoreError> {
        match self.job(id).await? {
            JobLookup::Found(_) => self.endpoints.retry(id).await,
            JobLookup::Gone { owner } => Ok(RetryOutcome::Gone { owner }),
            JobLookup::NotFound => Ok(RetryOutcome::NotFound),
        }
    }

    fn includes(&self, owner: Option<Digest>) -> bool {
        self.filter.owner.is_none_or(|of| owner == Some(of))
    }

    async fn page(self) -> Result<JobPage, ListError> {
        if let Some(invalid) = self.invalid_name {
            return Err(invalid.into());
        }
        let filter = &self.filter;
        let read = |text: String| read_cursor(filter, &text).ok_or(ListError::InvalidCursor);
        let mut cursor = self.cursor.map(read).transpose()?;
        let (store, limit) = (self.endpoints.store(), self.limit as usize);
        let (mut jobs, mut scanned) = (Vec::new(), 0);
        within::<_, StoreError>(async {
            for _ in 0..CALLS {
                let part = store.list(filter, &Page { cursor, limit: (limit - jobs.len()) as u32 }).await?;
                jobs.extend(part.jobs);
                scanned += part.scanned;
                cursor = part.next;
                if cursor.is_none() || jobs.len() >= limit {
                    break;
                }
            }
            Ok(())
        })
        .await?;
        Ok(JobPage { next_cursor: cursor.map(|cursor| write_cursor(filter, cursor)), scanned, jobs })
    }
}

impl<'a> IntoFuture for Jobs<'a> {
    type Output = Result<JobPage, ListError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.page())
    }
}

/// Writes a cursor: time, score and id in hexadecimal, then the hash of the filter.
fn write_cursor(filter: &ListFilter, cursor: Cursor) -> String {
    format!(
        "{:016x}{:016x}{:032x}{}",
        cursor.since.as_micros(),
        cursor.score,
        cursor.id.0.as_u128(),
        filter_hash(filter)
    )
}

/// Reads a cursor. `None` if it is malformed, or of another filter.
fn read_cursor(filter: &ListFilter, text: &str) -> Option<Cursor> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let (place, list) = text.split_at_checked(64).filter(|_| digits)?;
    let since = i64::from_str_radix(&place[..16], 16).ok()?;
    let score = u64::from_str_radix(&place[16..32], 16).ok()?;
    let id = u128::from_str_radix(&place[32..], 16).ok()?;
    let cursor = Cursor { since: Timestamp::from_micros(since), score, id: JobId(uuid::Uuid::from_u128(id)) };
    (list == filter_hash(filter)).then_some(cursor)
}

/// A short hash of the filter. Lists of different filters have different orders, so a cursor is valid for one filter.
fn filter_hash(filter: &ListFilter) -> String {
    let ListFilter { status, name, owner, code, since, until, text } = filter;
    // As JSON, so that two filters never have the same text.
    let values = json!([status, name, owner.map(|owner| owner.to_string()), code, since, until, text]);
    Sha256::digest(values.to_string()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trips_for_one_filter() {
        let failed = ListFilter { status: Some(JobStatus::Failed), ..ListFilter::default() };
        let cursor = Cursor { since: Timestamp::from_micros(1 << 50), score: u64::MAX, id: JobId::random() };
        let text = write_cursor(&failed, cursor);
        assert_eq!(read_cursor(&failed, &text), Some(cursor));
        assert_eq!(read_cursor(&ListFilter::default(), &text), None);
        let all = || failed.clone();
        for other in [
            ListFilter { name: JobName::new("A").ok(), ..all() },
            ListFilter { owner: Some(Digest([1; 32])), ..all() },
            ListFilter { code: Some("A".to_owned()), ..all() },
            ListFilter { text: Some("A".to_owned()), ..all() },
            ListFilter { since: Some(Timestamp::default()), ..all() },
            ListFilter { until: Some(Timestamp::default()), ..all() },
        ] {
            assert_eq!(read_cursor(&other, &text), None, "{other:?}");
            assert_eq!(read_cursor(&other, &write_cursor(&other, cursor)), Some(cursor), "{other:?}");
        }
        for bad in ["", "x", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"é".repeat(40)] {
            assert_eq!(read_cursor(&failed, bad), None, "{bad}");
        }
    }
}
