//! The store: its threads, and the calls passed to them.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use async_endpoints_core::{
    Clock, JobId, JobStore, SharedState, StoreError, Timestamp,
    job::{ErrorRecord, LogLine},
    limits::SWEEP_JOBS,
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup, Lease,
        ListFilter, ListPage, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result, RetryAs,
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery, StoreHealth, hint_stream,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::{broadcast, oneshot};
use uuid::Uuid;

use crate::{
    failure::Failure,
    files::DatabaseFiles,
    open::{self, OpenError, Synchronous},
    queue::{CALL_TIMEOUT, Queue},
    reader::{self, Reader},
    shared, space,
    state::State,
    writer::{self, Writer},
};

/// Hints that a slow listener may fall behind by before it gets [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;

/// How often calls that wait for too long are answered.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);

/// Threads that read.
const READERS: usize = 2;

/// How long dropping a store waits for its file to be closed: far longer than that takes, if the disk answers.
const CLOSING: Duration = Duration::from_secs(2);

/// A store in a SQLite file. Its jobs survive the process and, if the disk keeps synced data, a power cut.
///
/// Dropping it lets running calls finish, ends its threads and closes the file. The last process to close the file
/// leaves no log behind. Dropping waits some milliseconds for that, and at most two seconds if the disk does not answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("async-endpoints-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("jobs.db");
/// use async_endpoints_core::store::{JobStore, StatsQuery};
/// use async_endpoints_sqlite::SqliteStore;
/// let store = SqliteStore::open(path).await?;
/// assert!(store.stats(&StatsQuery::default()).await?.types.is_empty());
/// # drop(store);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(()) }
/// ```
pub struct SqliteStore {
    files: DatabaseFiles,
    writes: Arc<Queue<State>>,
    reads: Arc<Queue<Reader>>,
    hints: broadcast::WeakSender<Hint>,
    /// The thread that closes the file, and a channel that disconnects when it has. None if it could not be started.
    writer: Option<(thread::ThreadId, Mutex<mpsc::Receiver<()>>)>,
    /// Disconnects with the store, which ends the thread that expires calls.
    _open: mpsc::Sender<()>,
}

/// Settings of a store.
#[derive(Copy, Clone, Debug, Default)]
pub struct Options {
    synchronous: Synchronous,
}

impl Options {
    /// The defaults: an answered call is never lost.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what an answered call survives. Every setting but the default can lose jobs at a power cut.
    #[must_use]
    pub const fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Opens or creates a file. The store's time is the machine's wall clock.
    pub async fn open(self, path: impl AsRef<Path>) -> std::result::Result<SqliteStore, OpenError> {
        self.open_with_clock(path, WallClock).await
    }

    /// Opens or creates a file with another clock, such as a test's. The clock may step in either direction.
    pub async fn open_with_clock(
        self,
        path: impl AsRef<Path>,
        clock: impl Clock,
    ) -> std::result::Result<SqliteStore, OpenError> {
        let path = path.as_ref();
        // The current folder may change, and SQLite treats some relative names as temporary databases.
        let path = std::path::absolute(path).map_err(|error| io(path, &error))?;
        let (reply, opened) = oneshot::channel();
        let at = path.clone();
        let clock: Arc<dyn Clock> = Arc::new(clock);
        // Opening waits for the disk and for other processes: it must not block the caller's thread.
        let open = move || drop(reply.send(SqliteStore::start(&at, self.synchronous, &clock)));
        spawn("sqlite-open", open).map_err(|error| io(&path, &error))?;
        opened.await.unwrap_or_else(|_| Err(OpenError::of(Failure::Panicked, &path)))
    }
}

/// The machine's clock as the processes of one machine share it. It steps when the machine's time is set.
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::of(Failure::Unavailable(error.to_string()), path)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl SqliteStore {
    /// Opens or creates a file. An older schema is upgraded. A newer schema is refused if it needs a newer program.
    pub async fn open(path: impl AsRef<Path>) -> std::result::Result<Self, OpenError> {
        Options::new().open(path).await
    }

    /// Opens or creates a file with another clock, such as a test's.
    pub async fn open_with_clock(path: impl AsRef<Path>, clock: impl Clock) -> std::result::Result<Self, OpenError> {
        Options::new().open_with_clock(path, clock).await
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    fn start(path: &Path, synchronous: Synchronous, clock: &Arc<dyn Clock>) -> std::result::Result<Self, OpenError> {
        let error = |failure| OpenError::of(failure, path);
        let conn = open::writer(path, synchronous)?;
        let readers: Vec<_> =
            (0..READERS).map(|_| open::reader(path)).collect::<std::result::Result<_, _>>().map_err(error)?;
        // Before the schema is checked, so that a later change of it is noticed.
        let data_version = writer::data_version(&conn).map_err(error)?;
        open::check_schema(&conn).map_err(error)?;
        let files = DatabaseFiles::opened(path).map_err(|error| io(path, &error))?;
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let (open, dropped) = mpsc::channel();
        // If a later step fails, dropping the store ends the threads that already run.
        let mut store = Self {
            files: files.clone(),
            writes: Arc::new(Queue::new()),
            reads: Arc::new(Queue::new()),
            hints: hints.downgrade(),
            writer: None,
            _open: open,
        };
        store.spawn_expiry(dropped)?;
        let readers = readers.into_iter().map(|conn| store.spawn_reader(Reader::new(conn, Arc::clone(clock))));
        let readers = readers.collect::<std::result::Result<_, _>>()?;
        let writer = Writer {
            state: State::new(conn),
            queue: Arc::clone(&store.writes),
            files,
            clock: Arc::clone(clock),
            hints,
            group_time: writer::GROUP_TIME,
            data_version,
            others_seen: None,
            yielded: Instant::now(),
            cut: None,
            readers,
        };
        let (running, closed) = mpsc::channel::<()>();
        let run = move || {
            writer.run();
            drop(running);
        };
        let thread = spawn("sqlite-write", run).map_err(|error| io(path, &error))?;
        store.writer = Some((thread.thread().id(), Mutex::new(closed)));
        Ok(store)
    }

    fn spawn_expiry(&self, dropped: mpsc::Receiver<()>) -> std::result::Result<(), OpenError> {
        let (writes, reads) = (Arc::clone(&self.writes), Arc::clone(&self.reads));
        let run = move || {
            while dropped.recv_timeout(EXPIRE_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                writes.expire(CALL_TIMEOUT);
                reads.expire(CALL_TIMEOUT);
            }
        };
        spawn("sqlite-expire", run).map(drop).map_err(|error| io(self.path(), &error))
    }

    fn spawn_reader(&self, reader: Reader) -> std::result::Result<thread::JoinHandle<()>, OpenError> {
        let (queue, files) = (Arc::clone(&self.reads), self.files.clone());
        let run = move || reader::run(reader, &queue, &files);
        spawn("sqlite-read", run).map_err(|error| io(self.path(), &error))
    }

    async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        step: impl FnMut(&mut State) -> std::result::Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        self.writes.call(false, bytes, step).await.map_err(|failure| self.error(failure))
    }

    async fn read<T: Send + 'static>(
        &self,
        step: impl FnMut(&mut Reader) -> std::result::Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        self.reads.call(false, 0, step).await.map_err(|failure| self.error(failure))
    }

    fn error(&self, failure: Failure) -> StoreError {
        failure.into_error(self.path())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
        let Some((writer, closed)) = self.writer.take() else { return };
        let closed = closed.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The writer's own thread must not wait for itself.
        if writer != thread::current().id() {
            closed.recv_timeout(CLOSING).ok();
        }
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        self.write(job.payload.len(), move |state| state.insert(&job)).await
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        self.read(move |reader| reader.get(id)).await
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        let ids = ids.to_vec();
        self.read(move |reader| reader.versions(&ids)).await
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let (filter, page) = (filter.clone(), page.clone());
        self.read(move |reader| reader.list(&filter, &page)).await
    }

    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        self.read(move |reader| reader.logs(id, after, limit)).await
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>> {
        self.read(move |reader| reader.payload(id)).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        let query = query.clone();
        self.read(move |reader| reader.stats(&query)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let claim = claim.clone();
        self.write(0, move |state| state.claim(&claim)).await
    }

    /// Runs before all other calls: a long queue must not let the leases of live workers expire.
    async fn renew(&self, heartbeat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        let (heartbeat, leases) = (heartbeat.clone(), leases.to_vec());
        let step = move |state: &mut State| {
            state.heartbeat(&heartbeat)?;
            leases.iter().map(|held| state.renew(*held, state.now + lease)).collect()
        };
        self.writes.call(true, 0, step).await.map_err(|failure| self.error(failure))
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        let reports = reports.to_vec();
        let bytes = reports.iter().flat_map(|report| &report.logs).map(LogLine::bytes).sum();
        self.write(bytes, move |state| reports.iter().map(|report| state.report(report)).collect()).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        let settlements = settlements.to_vec();
        let bytes = settlements.iter().map(Settlement::bytes).sum();
        self.write(bytes, move |state| settlements.iter().map(|settlement| state.settle(settlement)).collect()).await
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        let error = error.clone();
        self.write(0, move |state| state.cancel(id, &error)).await
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let new = new.clone();
        self.write(0, move |state| state.retry(id, &new)).await
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let reclaim = reclaim.clone();
        self.write(0, move |state| state.reclaim(&reclaim)).await
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        let mut removed = 0;
        loop {
            let step = self.write(0, move |state| state.prune_jobs(limit - removed)).await?;
            removed += step.removed;
            if !step.reached_limit() {
                break;
            }
        }
        while removed < limit {
            let tombstones = self.write(0, move |state| state.prune_tombstones(limit - removed)).await?;
            removed += tombstones;
            if tombstones < SWEEP_JOBS {
                break;
            }
        }
        self.write(0, |state| space::return_pages(&state.conn)).await?;
        Ok(removed)
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        let Some(hints) = self.hints.upgrade() else { return stream::empty().boxed() };
        hint_stream(hints.subscribe())
    }

    /// Commits a page that does not change: a transaction without writes succeeds on a full disk.
    async fn probe(&self) -> Result<()> {
        self.write(0, |state| Ok(open::rewrite_header(&state.conn)?)).await
    }

    async fn health(&self) -> Result<StoreHealth> {
        let files = self.files.clone();
        // On a reading thread, because the file system may hang.
        self.read(move |_| space::health(&files)).await
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}

#[async_trait]
impl SharedState for SqliteStore {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        let name = name.to_owned();
        self.write(0, move |state| state.role(&name, holder, ttl)).await
    }

    async fn document(&self, name: &str) -> Result<Option<Document>> {
        let name = name.to_owned();
        self.read(move |reader| shared::document(&reader.conn, &name)).await
    }

    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        let size = bytes.len();
        let (name, role) = (name.to_owned(), role.map(|(role, token)| (role.to_owned(), token)));
        let step = move |state: &mut State| {
            let role = role.as_ref().map(|(role, token)| (role.as_str(), *token));
            state.put_document(&name, expected, &bytes, role)
        };
        self.write(size, step).await
    }
}
