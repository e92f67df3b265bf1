//! The store: its threads, and its calls.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStore, SharedState, StoreError,
    job::{ErrorRecord, LogLine},
    limits::{BATCH_JOBS, PAGE_JOBS, SWEEP_JOBS},
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup, Lease,
        ListFilter, ListPage, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result, RetryAs,
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery, StoreHealth, hint_stream,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use redis::{ConnectionInfo, IntoConnectionInfo as _, Value};
use tokio::{
    runtime::{self, Handle},
    sync::{broadcast, oneshot},
};
use uuid::Uuid;

use crate::{
    args::Args,
    calls::Calls,
    fail::{Fail, OpenError},
    hints,
    inserts::{self, Inserts},
    link,
    options::Options,
    record,
    repair::{self, Repaired},
    reply::{each, int, list, ranged},
    rights,
    scripts::{Script, Scripts},
    server::Server,
    stats,
    wire::{
        self, Done, claim_args, inserted, json, list_args, list_page, new_job, report_args, role_args, settle_args,
        trace_args, uuid,
    },
};

/// Hints that a stream buffers before it skips some and returns [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;
/// Index entries that one call of `list` checks. A page takes several.
const LIST_JOBS: usize = 50;
/// Ids of one call of `versions`.
const VERSIONS: usize = 500;

/// A store in Redis. With an append-only file, jobs survive the end of all processes and of the server.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_endpoints_core::store::{JobStore, StatsQuery};
/// use async_endpoints_redis::RedisStore;
/// let store = RedisStore::open("redis://127.0.0.1:6379/0").await?;
/// println!("{:?}", store.stats(&StatsQuery::default()).await?.types);
/// # Ok(()) }
/// ```
pub struct RedisStore {
    server: Arc<Server>,
    /// The runtime that opened the store, and calls over a connection driven by that runtime. They save a switch of threads.
    home: runtime::Id,
    near: Arc<Calls>,
    inserts: Inserts,
    /// Calls over a connection driven by the store's own thread: renewals, and calls from other runtimes. They go on while
    /// handlers block every thread of the home runtime.
    own: Arc<Calls>,
    listener: Mutex<Option<Listener>>,
    /// Dropped with the store, which ends its tasks.
    _life: [oneshot::Sender<()>; 2],
}

/// The task that receives hints for all streams of a store.
struct Listener {
    hints: broadcast::WeakSender<Hint>,
    _life: oneshot::Sender<()>,
}

/// Returns a future that ends when `run` does or when the sender is dropped.
fn until_dropped(run: impl Future<Output = ()> + Send) -> (oneshot::Sender<()>, impl Future<Output = ()> + Send) {
    let (life, ended) = oneshot::channel::<()>();
    let until = async {
        tokio::select! {
            _ = ended => {}
            () = run => {}
        }
    };
    (life, until)
}

/// Runs a future on a new thread.
fn spawn_thread(run: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("redis-store".to_owned()).spawn(move || runtime.block_on(run)).map(drop)
}

impl Options {
    /// Opens a store at `redis://[user:password@]host[:port][/database]`, `rediss://…` over TLS, or
    /// `redis+unix:///path/to/socket`. Connects once. Later the store reconnects by itself.
    ///
    /// # Errors
    /// See [`OpenError`]. No error shows a password.
    pub async fn open(self, url: impl AsRef<str>) -> std::result::Result<RedisStore, OpenError> {
        let info = url.as_ref().into_connection_info();
        // The driver's error may repeat the address, which may hold a password.
        let info = info.map_err(|_| {
            OpenError::Refused(
                "invalid address of a Redis server: expected redis://HOST:PORT/DATABASE or rediss://…".to_owned(),
            )
        })?;
        self.open_with(info).await
    }

    /// Opens a store with the driver's own connection settings, which cover more than an address. The type belongs to the
    /// version of the crate `redis` that this crate depends on.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(self, info: ConnectionInfo) -> std::result::Result<RedisStore, OpenError> {
        let (namespace, client) = (self.namespace()?, self.client(info)?);
        let server = Server::new(client, namespace, self.allow_volatile, self.rest);
        RedisStore::start(server, &self).await
    }

    /// Opens a store at the server of the application's own client, with its user, password, database and TLS settings. The
    /// store makes connections of its own: one waits for messages, another runs on a thread of the store.
    ///
    /// ```no_run
    /// # async fn open(client: redis::Client) -> Result<(), async_endpoints_redis::OpenError> {
    /// use async_endpoints_redis::Options;
    /// let store = Options::new().open_client(&client).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_client(self, client: &redis::Client) -> std::result::Result<RedisStore, OpenError> {
        self.open_with(client.get_connection_info().clone()).await
    }
}

impl RedisStore {
    /// Opens a store with default [`Options`].
    pub async fn open(url: impl AsRef<str>) -> std::result::Result<Self, OpenError> {
        Options::new().open(url).await
    }

    /// Why this server can lose jobs, as of the last check; `None` if it keeps them. Without
    /// [`Options::allow_volatile`] such a server is refused, and this is `None` until its settings change.
    #[must_use]
    pub fn volatile(&self) -> Option<String> {
        self.server.volatile()
    }

    /// Compares all jobs with all indexes and repairs the indexes. Works in short steps, so that other calls go on. The store
    /// also does this in the background, slowly; call this after keys were lost or changed.
    ///
    /// # Errors
    /// Returns the error of the first step that fails. The steps before it stay done.
    pub async fn repair(&self) -> Result<Repaired> {
        repair::all(self.calls()).await.map_err(|fail| self.error(fail))
    }

    async fn start(server: Server, options: &Options) -> std::result::Result<Self, OpenError> {
        let server = Arc::new(server);
        let scripts = Arc::new(Scripts::new());
        let namespace: Arc<str> = server.namespace.as_str().into();
        let calls = |link| {
            Arc::new(Calls {
                link,
                scripts: Arc::clone(&scripts),
                namespace: Arc::clone(&namespace),
                clock: options.clock.clone(),
            })
        };
        let (link, keeper) = link::new(Arc::clone(&server));
        let near = calls(link);
        let (inserts, batcher) = inserts::new();
        let (first, connected) = oneshot::channel();
        let batcher = batcher.run(Arc::clone(&near));
        let (near_life, run) = until_dropped(async { _ = tokio::join!(keeper.run(Some(first)), batcher) });
        tokio::spawn(run);
        connected.await.unwrap_or_else(|_| Err(OpenError::Unavailable("the store's task has ended".to_owned())))?;
        rights::check(&server, &near).await?;

        let (link, keeper) = link::new(Arc::clone(&server));
        let own = calls(link);
        let repairs = repair::run(Arc::clone(&own), options.rest);
        let (own_life, run) = until_dropped(async { _ = tokio::join!(keeper.run(None), repairs) });
        spawn_thread(run).map_err(|error| OpenError::Unavailable(format!("cannot start a thread: {error}")))?;
        let (home, life) = (Handle::current().id(), [near_life, own_life]);
        let store = Self { server, home, near, inserts, own, listener: Mutex::default(), _life: life };
        store.listen();
        Ok(store)
    }

    /// The sender of hints. Starts the task that receives them on the calling runtime, unless one runs: a stream on the same
    /// runtime gets hints without a switch of threads. `None` outside of a runtime.
    fn listen(&self) -> Option<broadcast::Sender<Hint>> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hints) = listener.as_ref().and_then(|listener| listener.hints.upgrade()) {
            return Some(hints);
        }
        let here = Handle::try_current().ok()?;
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let (life, run) = until_dropped(hints::run(Arc::clone(&self.server), hints.clone()));
        here.spawn(run);
        *listener = Some(Listener { hints: hints.downgrade(), _life: life });
        Some(hints)
    }

    fn is_home(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.home)
    }

    pub(crate) fn calls(&self) -> &Calls {
        if self.is_home() { &self.near } else { &self.own }
    }

    async fn call<T>(
        &self,
        script: impl FnOnce(&Scripts) -> &Script + Send,
        args: Args,
        decode: impl FnOnce(Value) -> Done<T> + Send,
    ) -> Result<T> {
        let calls = self.calls();
        calls.call(script(&calls.scripts), &args, decode).await.map_err(|fail| self.error(fail))
    }

    pub(crate) fn error(&self, fail: Fail) -> StoreError {
        fail.into_error(&self.server.address)
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("server", &self.server.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl JobStore for RedisStore {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        let outcome = if self.is_home() {
            self.inserts.insert(new_job(Args::new(), &job)).await
        } else {
            let decode = |answers| each(answers, 1, inserted).map(|mut outcomes| outcomes.remove(0));
            self.own.call(&self.own.scripts.insert, &Args::new().items([&job], new_job), decode).await
        };
        outcome.map_err(|fail| self.error(fail))
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        self.call(|scripts| &scripts.get, Args::new().text(id), record::lookup).await
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        let mut versions = Vec::with_capacity(ids.len());
        for some in ids.chunks(VERSIONS) {
            let args = some.iter().fold(Args::new(), Args::text);
            let decode = |answers| wire::versions(answers, some.len());
            versions.extend(self.call(|scripts| &scripts.versions, args, decode).await?);
        }
        Ok(versions)
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let limit = page.limit.min(PAGE_JOBS) as usize;
        let mut left = filter.entries(limit);
        let mut whole = ListPage { jobs: Vec::new(), scanned: 0, next: page.cursor };
        while left > 0 && whole.jobs.len() < limit {
            let checked = left.min(LIST_JOBS);
            let cursor = whole.next;
            let args = list_args(filter, cursor, checked, limit - whole.jobs.len());
            let part = self.call(|scripts| &scripts.list, args, |answer| list_page(answer, cursor)).await?;
            whole.jobs.extend(part.jobs);
            whole.scanned += part.scanned;
            whole.next = part.next;
            left -= checked;
            if whole.next.is_none() {
                break;
            }
        }
        Ok(whole)
    }

    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let args = Args::new().text(id).text(after.min(1 << 52)).text(limit);
        self.call(|scripts| &scripts.logs, args, |answer| list(answer)?.map(record::line).collect()).await
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>> {
        self.call(|scripts| &scripts.payload, Args::new().text(id), record::payload).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        stats::stats(self.calls(), query).await.map_err(|fail| self.error(fail))
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let args = claim_args(claim, (claim.max as usize).min(BATCH_JOBS));
        self.call(|scripts| &scripts.claim, args, |answer| wire::claimed(answer, claim)).await
    }

    async fn renew(&self, heartbeat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        let worker = &heartbeat.worker;
        let args = Args::new().text(worker.id).bytes(json(worker)).duration(heartbeat.ttl).duration(lease);
        let args = args.items(leases, |args, lease| args.text(lease.job).text(lease.token.0));
        let decode = |answers| each(answers, leases.len(), wire::renewed);
        self.own.call(&self.own.scripts.renew, &args, decode).await.map_err(|fail| self.error(fail))
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        let decode = |answers| each(answers, reports.len(), wire::fenced);
        self.call(|scripts| &scripts.report, report_args(reports), decode).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let decode = |answers| each(answers, settlements.len(), wire::settled);
        self.call(|scripts| &scripts.settle, settle_args(settlements), decode).await
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        self.call(|scripts| &scripts.cancel, Args::new().text(id).bytes(json(error)), wire::canceled).await
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let args = trace_args(Args::new().text(id).text(new.id), new.trace.as_ref());
        self.call(|scripts| &scripts.retry, args, wire::retried).await
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let args = Args::new().duration(reclaim.lease).text(reclaim.limit.min(SWEEP_JOBS));
        let args = args.bytes(json(&reclaim.lost)).bytes(json(&reclaim.canceled));
        self.call(|scripts| &scripts.reclaim, args, wire::reclaimed).await
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        // Every process prunes regularly, so this call also checks the server.
        let conn = self.calls().link.conn().await.map_err(|fail| self.error(fail))?;
        self.server.recheck(conn).await?;
        let args = Args::new().text(limit.min(SWEEP_JOBS));
        self.call(|scripts| &scripts.prune, args, |pruned| ranged(int(pruned)?)).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        let Some(hints) = self.listen() else { return stream::empty().boxed() };
        hint_stream(hints.subscribe())
    }

    async fn probe(&self) -> Result<()> {
        let decode = |answer| match int(answer)? {
            1 => Ok(()),
            other => Err(Fail::unknown(other)),
        };
        self.call(|scripts| &scripts.probe, Args::new(), decode).await
    }

    async fn health(&self) -> Result<StoreHealth> {
        let conn = self.calls().link.conn().await.map_err(|fail| self.error(fail))?;
        self.server.health(conn).await
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

#[async_trait]
impl SharedState for RedisStore {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        self.call(|scripts| &scripts.role, role_args(name, holder, ttl), wire::role).await
    }

    async fn document(&self, name: &str) -> Result<Option<Document>> {
        let mut command = redis::cmd("HMGET");
        let calls = self.calls();
        command.arg(calls.key(format_args!("document:{name}"))).arg("version").arg("content");
        let decode = |found| {
            let mut found = list(found)?;
            let (version, content) = (found.maybe()?, found.bytes()?);
            let version = version.map(|version| uuid(&version)).transpose()?;
            Ok(version.map(|version| Document { version: DocVersion(version), bytes: content.into() }))
        };
        calls.link.send(&command).await.and_then(decode).map_err(|fail| self.error(fail))
    }

    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        let version = Uuid::new_v4();
        let args =
            Args::new().bytes(name).maybe(expected.map(|version| version.0.to_string())).text(version).bytes(&bytes);
        let args = args.maybe(role.map(|(role, _)| role)).maybe(role.map(|(_, token)| token.0.to_string()));
        self.call(|scripts| &scripts.put, args, |answer| wire::put(answer, version)).await
    }
}
