//! Two stores on the same jobs, as two processes have them: calls take turns between them. Must not know any store.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStore, SharedState, Store,
    job::{ErrorRecord, LogLine},
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup, Lease,
        ListFilter, ListPage, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result, RetryAs,
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use uuid::Uuid;

/// A store that makes each call on the one or the other of two: what the one process did, the other knows.
#[derive(Debug)]
pub struct Turns<S> {
    stores: [S; 2],
    turn: AtomicUsize,
}

impl<S: Store> Turns<S> {
    /// Takes turns between these.
    #[must_use]
    pub const fn new(stores: [S; 2]) -> Self {
        Self { stores, turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &S {
        // Two calls here, one there: else whoever calls by twos would always meet the same one.
        &self.stores[usize::from(self.turn.fetch_add(1, Ordering::Relaxed) % 3 == 2)]
    }
}

#[async_trait]
impl<S: Store> JobStore for Turns<S> {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        self.next().insert(job).await
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        self.next().get(id).await
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        self.next().versions(ids).await
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        self.next().list(filter, page).await
    }

    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        self.next().logs(id, after, limit).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        self.next().stats(query).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.next().claim(claim).await
    }

    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        self.next().renew(beat, leases, lease).await
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        self.next().report(reports).await
    }

    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        self.next().settle(settles).await
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        self.next().cancel(id, error).await
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        self.next().retry(id, new).await
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        self.next().reclaim(reclaim).await
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        self.next().prune(limit).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        self.next().hints()
    }

    async fn probe(&self) -> Result<()> {
        self.next().probe().await
    }
    fn kind(&self) -> &'static str {
        self.next().kind()
    }
}

#[async_trait]
impl<S: Store> SharedState for Turns<S> {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        self.next().role(name, holder, ttl).await
    }

    async fn document(&self, name: &str) -> Result<Option<Document>> {
        self.next().document(name).await
    }

    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        self.next().put_document(name, expected, bytes, role).await
    }
}
