//! Reads of lists of jobs, shared by the pages that show the same list.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{AsyncEndpoints, JobPage, ListError, StoreError, sync::Mutex};

/// How long a list is kept after the last page asked for it.
const KEPT: Duration = Duration::from_secs(1);
/// The longest wait for the read of another page.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct RecentLists {
    endpoints: AsyncEndpoints,
    by_address: Mutex<HashMap<String, List>>,
}

struct List {
    asked: Instant,
    /// The last read. Locked during a read, so that at most one runs.
    last: Arc<tokio::sync::Mutex<Option<Read>>>,
}

#[derive(Clone)]
pub(super) struct Read {
    began: Instant,
    /// Number of changes of jobs before the read.
    pub(super) changes: u64,
    pub(super) page: Arc<JobPage>,
}

impl RecentLists {
    pub(super) fn new(endpoints: &AsyncEndpoints) -> Self {
        Self { endpoints: endpoints.clone(), by_address: Mutex::default() }
    }

    /// Returns the last read of the list if it began at this time or later. Otherwise runs the query. The address determines
    /// the query.
    pub(super) async fn read(
        &self,
        address: String,
        as_of: Instant,
        query: impl Future<Output = Result<JobPage, ListError>>,
    ) -> Result<Read, ListError> {
        let list = self.list(address);
        // While the store hangs, pages must not time out one after another.
        let waited = tokio::time::timeout(PATIENCE, list.lock()).await;
        let mut last = waited.map_err(|_| StoreError::Unavailable(format!("no answer within {PATIENCE:?}")))?;
        if let Some(read) = last.as_ref().filter(|read| read.began >= as_of) {
            return Ok(read.clone());
        }
        let (began, changes) = (Instant::now(), self.endpoints.job_changes_so_far());
        let read = Read { began, changes, page: Arc::new(query.await?) };
        *last = Some(read.clone());
        Ok(read)
    }

    fn list(&self, address: String) -> Arc<tokio::sync::Mutex<Option<Read>>> {
        let mut by_address = self.by_address.lock();
        by_address.retain(|_, list| list.asked.elapsed() < KEPT);
        let list = by_address.entry(address).or_insert_with(|| List { asked: Instant::now(), last: Arc::default() });
        list.asked = Instant::now();
        list.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::MemoryStore;

    const PAUSE: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn read_is_shared_with_earlier_requests() {
        let lists = RecentLists::new(&AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints"));
        let reads = Cell::new(0);
        let read = async |address: &str, as_of| {
            let query = async {
                tokio::time::sleep(PAUSE).await;
                reads.set(reads.get() + 1);
                Ok(JobPage { jobs: Vec::new(), scanned: reads.get(), next_cursor: None })
            };
            lists.read(address.to_owned(), as_of, query).await.expect("a page").page.scanned
        };
        let began = Instant::now();
        assert_eq!(tokio::join!(read("a", began), read("a", began)), (1, 1));
        assert_eq!((read("b", began).await, read("a", began).await), (2, 1));
        assert_eq!(read("a", Instant::now()).await, 3, "a read from before the request");
        // A request during a read waits for it, and all that wait share the next one.
        let later = async || {
            tokio::time::sleep(PAUSE / 2).await;
            read("a", Instant::now()).await
        };
        assert_eq!(tokio::join!(read("a", Instant::now()), later(), later()), (4, 5, 5));
        tokio::time::sleep(KEPT).await;
        read("b", Instant::now()).await;
        assert_eq!(lists.by_address.lock().len(), 1);
    }
}
