//! Reads the members of an operation from the store's list.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobView, StoreError, Timestamp,
    limits::{BATCH_JOBS, PAGE_JOBS},
    store::{Cursor, ListFilter, Page, StatsQuery, Store},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::BulkAction;
use crate::store_call::within;

/// How long the first members are looked for.
const SEARCHING: Duration = Duration::from_secs(1);
/// How long members are counted.
const COUNTING: Duration = Duration::from_secs(3);

/// The cursor of a list, as it is stored.
///
/// It has the time of the list's first page. A list without a state leaves out jobs accepted after it, a list of a state those
/// that entered the state after it. This freezes the members.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) since: Timestamp,
    pub(super) score: u64,
    pub(super) id: JobId,
}

/// Which jobs are members: those that match, and that the action changes.
#[derive(Clone, Debug)]
pub(super) struct MemberFilter {
    pub(super) action: BulkAction,
    pub(super) list: ListFilter,
    pub(super) ended_since: Option<Timestamp>,
}

impl MemberFilter {
    /// Whether a job that matches the list's filter is a member.
    fn has(&self, job: &JobView) -> bool {
        let is_changed = match self.action {
            BulkAction::Cancel => !job.status.is_terminal(),
            BulkAction::Retry => {
                matches!(job.status, JobStatus::Failed | JobStatus::Canceled) && job.retried_by.is_none()
            }
        };
        is_changed && !self.is_too_old(job)
    }

    fn is_too_old(&self, job: &JobView) -> bool {
        self.ended_since.is_some_and(|since| job.completed_at.is_none_or(|at| at < since))
    }

    /// Whether no job that the list has behind this one can be a member.
    fn ends_with(&self, job: &JobView) -> bool {
        // A list of ended jobs begins with the last one that ended.
        self.list.status.is_some_and(JobStatus::is_terminal) && self.is_too_old(job)
    }
}

/// Reads the next members, at most a chunk, and where those behind them begin. There may be more although none is returned.
pub(super) async fn page(
    store: &dyn Store,
    filter: &MemberFilter,
    from: Option<Position>,
) -> Result<(Vec<JobId>, Option<Position>), StoreError> {
    read(store, filter, from, BATCH_JOBS as u32).await
}

/// Reads the first members, and where those behind them begin.
pub(super) async fn first(
    store: &dyn Store,
    filter: &MemberFilter,
) -> Result<(Vec<JobId>, Option<Position>), StoreError> {
    let until = Instant::now() + SEARCHING;
    let (mut members, mut rest) = page(store, filter, None).await?;
    while members.is_empty() && rest.is_some() && Instant::now() < until {
        (members, rest) = page(store, filter, rest).await?;
    }
    Ok((members, rest))
}

/// Counts the members: those before a position, whose number is known, and those from it on. Returns whether all are counted.
pub(super) async fn count(
    store: &dyn Store,
    filter: &MemberFilter,
    before: usize,
    mut from: Option<Position>,
) -> Result<(u64, bool), StoreError> {
    let (mut count, until) = (before as u64, Instant::now() + COUNTING);
    while from.is_some() && Instant::now() < until {
        let (members, rest) = read(store, filter, from, PAGE_JOBS).await?;
        count += members.len() as u64;
        from = rest;
    }
    if from.is_none() {
        return Ok((count, true));
    }
    Ok(match counted_by_store(store, filter).await? {
        Some(all) => (all.max(count), true),
        None => (count, false),
    })
}

/// The store's own count of the jobs in a state, or in a state and of a type. None for other filters, and to retry, since some of the
/// jobs may have been retried before.
async fn counted_by_store(store: &dyn Store, filter: &MemberFilter) -> Result<Option<u64>, StoreError> {
    let MemberFilter { action, list, .. } = filter;
    let without_search = ListFilter { status: list.status, name: list.name.clone(), ..ListFilter::default() };
    let is_counted = *action == BulkAction::Cancel && without_search == *list;
    let Some(status) = list.status.filter(|_| is_counted) else { return Ok(None) };
    let stats = within(store.stats(&StatsQuery::default())).await?;
    let types = stats.types.iter().filter(|of_type| list.name.as_ref().is_none_or(|name| *name == of_type.name));
    Ok(Some(types.map(|of_type| of_type.count(status)).sum()))
}

async fn read(
    store: &dyn Store,
    filter: &MemberFilter,
    from: Option<Position>,
    limit: u32,
) -> Result<(Vec<JobId>, Option<Position>), StoreError> {
    let cursor = from.map(|Position { since, score, id }| Cursor { since, score, id });
    let page = within(store.list(&filter.list, &Page { cursor, limit })).await?;
    let next = page.next.filter(|_| !page.jobs.last().is_some_and(|last| filter.ends_with(last)));
    let rest = next.map(|Cursor { since, score, id }| Position { since, score, id });
    // A job that ended after the first page was read had nothing to retry then.
    let is_late = |job: &JobView| from.is_some_and(|from| job.completed_at.is_some_and(|at| at > from.since));
    let members = page.jobs.iter().filter(|job| filter.has(job) && !is_late(job));
    Ok((members.map(|job| job.id).collect(), rest))
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{
        JobName, JobStore, MemoryStore,
        store::{JobLookup, RetryAs},
    };
    use async_endpoints_testkit::jobs::job;
    use uuid::Uuid;

    use super::*;
    use crate::error::Builtin;

    fn filter(action: BulkAction, status: Option<JobStatus>, name: &str) -> MemberFilter {
        let list = ListFilter { status, name: JobName::new(name).ok(), ..ListFilter::default() };
        MemberFilter { action, list, ended_since: None }
    }

    #[tokio::test]
    async fn store_counts_a_state_and_type() {
        let store = MemoryStore::new();
        for name in ["A", "A", "B"] {
            store.insert(job(name, Duration::from_secs(60))).await.expect("memory answers");
        }
        let of = |status, name: &str| filter(BulkAction::Cancel, status, name);
        let mut searching = of(Some(JobStatus::Queued), "A");
        searching.list.code = Some("NO".to_owned());
        for (filter, expected) in [
            (of(Some(JobStatus::Queued), ""), Some(3)),
            (of(Some(JobStatus::Queued), "A"), Some(2)),
            (of(Some(JobStatus::InProgress), "A"), Some(0)),
            (of(None, "A"), None),
            (searching, None),
            (filter(BulkAction::Retry, Some(JobStatus::Failed), "A"), None),
        ] {
            assert_eq!(counted_by_store(&store, &filter).await.expect("memory answers"), expected, "{filter:?}");
        }
    }

    #[tokio::test]
    async fn members_are_jobs_that_the_action_changes() {
        let store = MemoryStore::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let new = job("A", Duration::from_secs(60));
            ids.push(new.id);
            store.insert(new).await.expect("memory answers");
        }
        for id in &ids[1..] {
            store.cancel(*id, &Builtin::Canceled.record(None)).await.expect("memory answers");
        }
        let retry = RetryAs { id: JobId(Uuid::now_v7()), trace: None };
        store.retry(ids[1], &retry).await.expect("memory answers");
        let JobLookup::Found(last) = store.get(ids[3]).await.expect("memory answers") else { panic!("found") };
        let members = async |filter: &MemberFilter| page(&store, filter, None).await.expect("memory answers").0;
        let (retried, canceled) = (retry.id, Some(JobStatus::Canceled));
        assert_eq!(members(&filter(BulkAction::Cancel, None, "")).await, [retried, ids[0]]);
        assert_eq!(members(&filter(BulkAction::Retry, None, "")).await, [ids[3], ids[2]]);
        assert_eq!(members(&filter(BulkAction::Retry, canceled, "")).await, [ids[3], ids[2]]);
        let ended = last.completed_at.expect("it has ended");
        let later = Timestamp::from_micros(ended.as_micros() + 1);
        for (ended_since, expected) in [(Some(ended), vec![ids[3]]), (Some(later), Vec::new())] {
            for status in [None, canceled] {
                let filter = MemberFilter { ended_since, ..filter(BulkAction::Retry, status, "") };
                assert_eq!(members(&filter).await, expected, "{filter:?}");
            }
        }
    }
}
