//! Reads the members of an operation from the store's list.

use std::time::Duration;

use async_endpoints_core::{
    JobId, StoreError, Timestamp,
    limits::{BATCH_JOBS, PAGE_JOBS},
    store::{Cursor, ListFilter, Page, StatsQuery, Store},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::store_call::within;

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

/// Reads the next members, at most a chunk, and where those behind them begin. There may be more although none is returned.
pub(super) async fn page(
    store: &dyn Store,
    filter: &ListFilter,
    from: Option<Position>,
) -> Result<(Vec<JobId>, Option<Position>), StoreError> {
    read(store, filter, from, BATCH_JOBS as u32).await
}

/// Counts the members: those before a position, whose number is known, and those from it on. Returns whether all are counted.
pub(super) async fn count(
    store: &dyn Store,
    filter: &ListFilter,
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

/// The store's own count of the jobs in a state, or in a state and of a type. None for other filters.
async fn counted_by_store(store: &dyn Store, filter: &ListFilter) -> Result<Option<u64>, StoreError> {
    let without_search = ListFilter { status: filter.status, name: filter.name.clone(), ..ListFilter::default() };
    let Some(status) = filter.status.filter(|_| without_search == *filter) else { return Ok(None) };
    let stats = within(store.stats(&StatsQuery::default())).await?;
    let types = stats.types.iter().filter(|of_type| filter.name.as_ref().is_none_or(|name| *name == of_type.name));
    Ok(Some(types.map(|of_type| of_type.count(status)).sum()))
}

async fn read(
    store: &dyn Store,
    filter: &ListFilter,
    from: Option<Position>,
    limit: u32,
) -> Result<(Vec<JobId>, Option<Position>), StoreError> {
    let cursor = from.map(|Position { since, score, id }| Cursor { since, score, id });
    let page = within(store.list(filter, &Page { cursor, limit })).await?;
    let rest = page.next.map(|Cursor { since, score, id }| Position { since, score, id });
    Ok((page.jobs.into_iter().map(|job| job.id).collect(), rest))
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{JobName, JobStatus, JobStore, MemoryStore};
    use async_endpoints_testkit::jobs::job;

    use super::*;

    #[tokio::test]
    async fn store_counts_a_state_and_type() {
        let store = MemoryStore::new();
        for name in ["A", "A", "B"] {
            store.insert(job(name, Duration::from_secs(60))).await.expect("memory answers");
        }
        let of = |status, name: &str| ListFilter { status, name: JobName::new(name).ok(), ..ListFilter::default() };
        let searching = ListFilter { code: Some("NO".to_owned()), ..of(Some(JobStatus::Queued), "A") };
        for (filter, expected) in [
            (of(Some(JobStatus::Queued), ""), Some(3)),
            (of(Some(JobStatus::Queued), "A"), Some(2)),
            (of(Some(JobStatus::Failed), "A"), Some(0)),
            (of(None, "A"), None),
            (searching, None),
        ] {
            assert_eq!(counted_by_store(&store, &filter).await.expect("memory answers"), expected, "{filter:?}");
        }
    }
}
