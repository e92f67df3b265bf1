//! Reads the members of an operation from the store's list.

use std::time::Duration;

use async_endpoints_core::{
    JobId, StoreError, Timestamp,
    limits::{BATCH_JOBS, PAGE_JOBS},
    store::{Cursor, ListFilter, Page, Store},
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

/// Counts the members from a position on. Returns whether it reached the last one.
pub(super) async fn count(
    store: &dyn Store,
    filter: &ListFilter,
    mut from: Option<Position>,
) -> Result<(u64, bool), StoreError> {
    let (mut count, until) = (0, Instant::now() + COUNTING);
    while from.is_some() && Instant::now() < until {
        let (members, rest) = read(store, filter, from, PAGE_JOBS).await?;
        count += members.len() as u64;
        from = rest;
    }
    Ok((count, from.is_none()))
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
