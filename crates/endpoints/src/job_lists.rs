//! Bounded searches in the store's lists of jobs.

use async_endpoints_core::{
    JobView,
    store::{ListFilter, Page, Store, StoreError},
};

use crate::store_call::within;

/// Jobs of one call of `list`.
const PAGE: u32 = 100;
/// Maximum number of pages that are read of one list.
const PAGES: usize = 10;

/// What a search does with a job of a list.
pub(crate) enum Judged<T> {
    Found(T),
    Skip,
    /// The search needs none of the rest of the list.
    Stop,
}

/// What a search found.
pub(crate) struct Collected<T> {
    /// In the order of the list.
    pub(crate) found: Vec<T>,
    /// Whether the search reached [`Judged::Stop`] or the end of the list, so that there is no more to find.
    pub(crate) complete: bool,
}

/// Reads a list until `judge` stops it, `limit` jobs are found, or 1 000 jobs are read.
pub(crate) async fn collect<T>(
    store: &dyn Store,
    filter: &ListFilter,
    limit: usize,
    mut judge: impl FnMut(JobView) -> Judged<T>,
) -> Result<Collected<T>, StoreError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..PAGES {
        let page = within(store.list(filter, &Page { cursor, limit: PAGE })).await?;
        for job in page.jobs {
            if found.len() >= limit {
                return Ok(Collected { found, complete: false });
            }
            match judge(job) {
                Judged::Found(job) => found.push(job),
                Judged::Skip => {}
                Judged::Stop => return Ok(Collected { found, complete: true }),
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(Collected { found, complete: true });
        }
    }
    Ok(Collected { found, complete: false })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_endpoints_core::{JobStatus, JobStore as _, MemoryStore};
    use async_endpoints_testkit::jobs::job;

    use super::*;

    /// Searches 1 100 queued jobs, of which every `nth` is wanted. Returns how many were found and judged, and whether there are
    /// no more.
    async fn search(nth: usize, limit: usize, stop_at: usize) -> (usize, usize, bool) {
        let store = MemoryStore::new();
        for _ in 0..1_100 {
            store.insert(job("A", Duration::from_secs(60))).await.expect("memory answers");
        }
        let mut judged = 0;
        let filter = ListFilter { status: Some(JobStatus::Queued), ..ListFilter::default() };
        let collected = collect(&store, &filter, limit, |job| {
            judged += 1;
            match judged {
                number if number == stop_at => Judged::Stop,
                number if number % nth == 0 => Judged::Found(job.id),
                _ => Judged::Skip,
            }
        });
        let Collected { found, complete } = collected.await.expect("memory answers");
        (found.len(), judged, complete)
    }

    #[tokio::test]
    async fn search_ends_at_stop_limit_or_bound() {
        assert_eq!(search(10, 50, 101).await, (10, 101, true), "stopped");
        assert_eq!(search(10, 5, 101).await, (5, 50, false), "at the limit");
        assert_eq!(search(10, 5_000, 5_000).await, (100, 1_000, false), "at the bound");
    }

    #[tokio::test]
    async fn search_of_a_whole_list_is_complete() {
        let store = MemoryStore::new();
        for _ in 0..3 {
            store.insert(job("A", Duration::from_secs(60))).await.expect("memory answers");
        }
        let filter = ListFilter::default();
        let collected = collect(&store, &filter, 3, |job| Judged::Found(job.id)).await;
        let Collected { found, complete } = collected.expect("memory answers");
        assert_eq!((found.len(), complete), (3, true));
    }
}
