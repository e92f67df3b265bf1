//! The store: its tasks, and its calls.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStore, SharedState,
    job::{ErrorRecord, LogLine},
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup, Lease,
        ListFilter, ListPage, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result, RetryAs,
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery, StoreHealth, hint_stream,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    calls::Calls,
    fail::OpenError,
    inserts::{self, Inserts},
    link::{Lane, Link},
    options::Options,
    schema::Schema,
    server::Server,
    value::{Columns, answer},
};

/// How often the changes of counts are folded.
const FOLD_EVERY: Duration = Duration::from_secs(1);

/// A store in PostgreSQL. Jobs survive the end of all processes and of the server.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_endpoints_core::store::{JobStore, StatsQuery};
/// use async_endpoints_postgres::PostgresStore;
/// let store = PostgresStore::open("postgres://app@localhost/shop").await?;
/// println!("{:?}", store.stats(&StatsQuery::default()).await?.types);
/// # Ok(()) }
/// ```
pub struct PostgresStore {
    calls: Arc<Calls>,
    inserts: Inserts,
}

impl Options {
    /// Opens a store at `postgres://USER@HOST:PORT/DATABASE`. Creates or upgrades its schema. Connects at once; later the store
    /// reconnects by itself.
    ///
    /// # Errors
    /// See [`OpenError`]. No error shows a password.
    pub async fn open(self, url: impl AsRef<str>) -> std::result::Result<PostgresStore, OpenError> {
        let server = self.server(url.as_ref())?;
        PostgresStore::start(server, &self).await
    }

    /// Opens a store with the driver's own connection settings, which cover more than an address.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(self, config: tokio_postgres::Config) -> std::result::Result<PostgresStore, OpenError> {
        let server = self.server_of(config)?;
        PostgresStore::start(server, &self).await
    }
}

impl PostgresStore {
    /// Opens a store with default [`Options`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: impl AsRef<str>) -> std::result::Result<Self, OpenError> {
        Options::new().open(url).await
    }

    /// Why this server can lose jobs, as of the last connection; `None` if it keeps them. Without
    /// [`Options::allow_volatile`] such a server is refused.
    #[must_use]
    pub fn volatile(&self) -> Option<String> {
        self.calls.link.server().volatile()
    }

    async fn start(server: Server, options: &Options) -> std::result::Result<Self, OpenError> {
        let link = Link::open(server, options.sizes()?).await?;
        let schema = Schema::new(&options.schema);
        schema.migrate(&link).await?;
        let calls = Arc::new(Calls::new(link, schema));
        let (inserts, batcher) = inserts::new();
        calls.link.spawn(batcher.run(Arc::downgrade(&calls)));
        calls.link.spawn(fold(Arc::downgrade(&calls)));
        Ok(Self { calls, inserts })
    }
}

/// Adds the changes of counts up, regularly, until the store is dropped. An idle process does so once a minute, for others that
/// ended.
async fn fold(calls: Weak<Calls>) {
    for second in 0_u64.. {
        let Some(calls) = calls.upgrade() else { return };
        calls.fold(second.is_multiple_of(60)).await;
        drop(calls);
        tokio::time::sleep(FOLD_EVERY).await;
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("schema", &self.calls.schema.as_str()).finish_non_exhaustive()
    }
}

#[async_trait]
impl JobStore for PostgresStore {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        self.inserts.insert(&self.calls, job).await
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        self.calls.lookup(id).await
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        let uuids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let sql = "SELECT * FROM ae.versions_v1($1)";
        let rows = self.calls.query(Lane::Work, sql, &[(&uuids, Type::UUID_ARRAY)]).await?;
        let mut versions = vec![None; ids.len()];
        for row in &rows {
            let mut columns = Columns::new(row);
            let place = answer(columns.number())? as usize - 1;
            versions[place] = Some(answer(columns.number())?.into());
        }
        Ok(versions)
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        self.calls.list(filter, page).await
    }

    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        self.calls.logs(id, after, limit).await
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>> {
        let rows = self.calls.query(Lane::Work, "SELECT * FROM ae.payload_v1($1)", &[(&id.0, Type::UUID)]).await?;
        rows.first().map(|row| answer(Columns::new(row).read()).map(Bytes::copy_from_slice)).transpose()
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        self.calls.stats(query).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.calls.claim(claim).await
    }

    async fn renew(&self, heartbeat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        self.calls.renew(heartbeat, leases, lease).await
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        self.calls.report(reports).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.calls.settle(settlements).await
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        self.calls.cancel(id, error).await
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        self.calls.retry(id, new).await
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        self.calls.reclaim(reclaim).await
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        self.calls.prune(limit).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        self.calls.hints.subscribe().map_or_else(|| stream::empty().boxed(), hint_stream)
    }

    async fn probe(&self) -> Result<()> {
        self.calls.query(Lane::Urgent, "SELECT ae.probe_v1()", &[]).await.map(drop)
    }

    async fn health(&self) -> Result<StoreHealth> {
        self.calls.health().await
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }
}

#[async_trait]
impl SharedState for PostgresStore {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        self.calls.role(name, holder, ttl).await
    }

    async fn document(&self, name: &str) -> Result<Option<Document>> {
        self.calls.document(name).await
    }

    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        self.calls.put_document(name, expected, &bytes, role).await
    }
}
