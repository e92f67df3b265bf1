//! The store: its threads, and its calls handed to them.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    Clock, JobId, JobStatus, JobStore, SharedState, StoreError, SystemClock,
    job::{ErrorRecord, LogLine},
    limits::SWEEP_JOBS,
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup, Lease,
        ListFilter, ListPage, NewJob, Outcome, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result, RetryAs,
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use rusqlite::Connection;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    oneshot,
};
use uuid::Uuid;

use crate::{
    fail::Fail,
    file::File,
    lease::Clear,
    open::{self, OpenError, Synchronous},
    queue::{PATIENCE, Queue},
    reader::{self, Reader},
    shared, space,
    state::{ASIDE, State},
    time::Time,
    writer::{self, Writer},
};

/// Hints that a slow listener may fall behind by before it is told [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;

/// How often to look for callers who wait for too long.
const WATCH: Duration = Duration::from_secs(1);

/// Reads that run at once.
const READERS: usize = 2;

/// How long dropping a store waits for its file to be closed: far longer than that takes, if the disk answers.
const CLOSING: Duration = Duration::from_secs(2);

/// A store in a file. Its jobs outlive the process, and the machine's power if the disk keeps its word.
///
/// Dropping it lets what has begun finish, ends its threads and closes the file, which whoever closes it last leaves
/// without a log. That takes some milliseconds, and is waited for; for two seconds at most, if the disk does not answer.
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
    file: File,
    writes: Arc<Queue<State>>,
    reads: Arc<Queue<Reader>>,
    hints: broadcast::WeakSender<Hint>,
    /// The thread that closes the file, and what ends when it has; none if it could not be started.
    writer: Option<(thread::ThreadId, Mutex<mpsc::Receiver<()>>)>,
    /// Dropped with the store, which ends the thread that looks for callers who wait for too long.
    _watch: mpsc::Sender<()>,
}

/// How to open a store.
#[derive(Copy, Clone, Debug, Default)]
pub struct Options {
    synchronous: Synchronous,
}

impl Options {
    /// The defaults: nothing that was answered is lost.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What an answered call outlives: anything but the default loses jobs at a power cut.
    #[must_use]
    pub const fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Opens a file, on the machine's clock.
    pub async fn open(self, path: impl AsRef<Path>) -> std::result::Result<SqliteStore, OpenError> {
        self.open_with_clock(path, SystemClock::default()).await
    }

    /// Opens a file, on another clock, such as a test's.
    pub async fn open_with_clock(
        self,
        path: impl AsRef<Path>,
        clock: impl Clock,
    ) -> std::result::Result<SqliteStore, OpenError> {
        let path = path.as_ref();
        // The folder that the process is in may change; and SQLite takes some names for no file at all.
        let path = std::path::absolute(path).map_err(|error| io(path, &error))?;
        let (tell, told) = oneshot::channel();
        let at = path.clone();
        let clock: Arc<dyn Clock> = Arc::new(clock);
        // Opening waits for the disk, and for another process that migrates: not on the caller's thread.
        let opening = move || drop(tell.send(SqliteStore::start(&at, self.synchronous, clock)));
        spawn("sqlite-open", opening).map_err(|error| io(&path, &error))?;
        told.await.unwrap_or_else(|_| Err(OpenError::of(Fail::Panicked, &path)))
    }
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::of(Fail::Unavailable(error.to_string()), path)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl SqliteStore {
    /// Opens a file, or makes it. A schema of an earlier version is brought up to date, one of a later version is
    /// refused.
    pub async fn open(path: impl AsRef<Path>) -> std::result::Result<Self, OpenError> {
        Options::new().open(path).await
    }

    /// The same on another clock, such as a test's.
    pub async fn open_with_clock(path: impl AsRef<Path>, clock: impl Clock) -> std::result::Result<Self, OpenError> {
        Options::new().open_with_clock(path, clock).await
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn start(path: &Path, synchronous: Synchronous, clock: Arc<dyn Clock>) -> std::result::Result<Self, OpenError> {
        let fail = |fail| OpenError::of(fail, path);
        let conn = open::writer(path, synchronous)?;
        let readers: Vec<_> =
            (0..READERS).map(|_| open::reader(path)).collect::<std::result::Result<_, _>>().map_err(fail)?;
        let time = Arc::new(Time::new(clock));
        // First: what others do from here on is looked at.
        let seen = writer::data_version(&conn).map_err(fail)?;
        open::check_version(&conn).map_err(fail)?;
        time.join(&conn).map_err(fail)?;
        let file = File::opened(path).map_err(|error| io(path, &error))?;
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let (watch, until_dropped) = mpsc::channel();
        // From here on dropping it ends the threads that already run.
        let mut store = Self {
            file: file.clone(),
            writes: Arc::new(Queue::new()),
            reads: Arc::new(Queue::new()),
            hints: hints.downgrade(),
            writer: None,
            _watch: watch,
        };
        store.spawn_watch(until_dropped)?;
        let readers = readers.into_iter().map(|conn| store.spawn_reader(conn, Arc::clone(&time)));
        let readers = readers.collect::<std::result::Result<_, _>>()?;
        let writer = Writer {
            state: State::new(conn),
            queue: Arc::clone(&store.writes),
            file,
            time,
            hints,
            seen,
            shared: None,
            gap: Instant::now(),
            cut: None,
            uncounted: None,
            readers,
        };
        let (open, closed) = mpsc::channel::<()>();
        let run = move || {
            writer.run();
            drop(open);
        };
        let thread = spawn("sqlite-write", run).map_err(|error| io(path, &error))?;
        store.writer = Some((thread.thread().id(), Mutex::new(closed)));
        Ok(store)
    }

    fn spawn_watch(&self, until_dropped: mpsc::Receiver<()>) -> std::result::Result<(), OpenError> {
        let (writes, reads) = (Arc::clone(&self.writes), Arc::clone(&self.reads));
        let run = move || {
            while until_dropped.recv_timeout(WATCH) == Err(mpsc::RecvTimeoutError::Timeout) {
                writes.expire(PATIENCE);
                reads.expire(PATIENCE);
            }
        };
        spawn("sqlite-watch", run).map(drop).map_err(|error| io(self.path(), &error))
    }

    fn spawn_reader(
        &self,
        conn: Connection,
        time: Arc<Time>,
    ) -> std::result::Result<thread::JoinHandle<()>, OpenError> {
        let (queue, file) = (Arc::clone(&self.reads), self.file.clone());
        let run = move || reader::run(Reader::new(conn), &queue, &file, &time);
        spawn("sqlite-read", run).map_err(|error| io(self.path(), &error))
    }

    async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        step: impl FnMut(&mut State) -> std::result::Result<T, Fail> + Send + 'static,
    ) -> Result<T> {
        self.writes.ask(false, bytes, step).await.map_err(|fail| self.error(fail))
    }

    /// The same, for a step that does something to many jobs. One that something damaged is in the way of is put aside, and
    /// the others are not held up; unless too many are.
    async fn write_many<T: Send + 'static>(
        &self,
        step: impl FnMut(&mut State) -> std::result::Result<T, Fail> + Clone + Send + 'static,
    ) -> Result<T> {
        for _ in 0..ASIDE {
            match self.writes.ask(false, 0, step.clone()).await {
                Err(Fail::Job { seq, found, why }) => self.put_aside(seq, found, why).await?,
                done => return done.map_err(|fail| self.error(fail)),
            }
        }
        self.write(0, step).await
    }

    /// In a step of its own: SQLite writes nothing more in a transaction that met damage.
    async fn put_aside(&self, seq: i64, found: Option<JobStatus>, why: String) -> Result<()> {
        let reason = why.clone();
        match self.writes.ask(false, 0, move |state| state.put_damaged_aside(seq, found, &reason)).await {
            Err(fail) if fail.is_damage() => self.write(0, move |state| state.pass_by(seq, &why)).await,
            done => done.map_err(|fail| self.error(fail)),
        }
    }

    async fn renew_at_once(
        &self,
        beat: Option<&Heartbeat>,
        leases: &[Lease],
        lease: Duration,
    ) -> std::result::Result<Vec<Renewed>, Fail> {
        let (beat, leases) = (beat.cloned(), leases.to_vec());
        let step = move |state: &mut State| {
            beat.iter().try_for_each(|beat| state.beat(beat))?;
            leases.iter().map(|held| state.renew(*held, state.now + lease)).collect()
        };
        self.writes.ask(true, 0, step).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnMut(&mut Reader) -> std::result::Result<T, Fail> + Send + 'static,
    ) -> Result<T> {
        self.reads.ask(false, 0, read).await.map_err(|fail| self.error(fail))
    }

    fn error(&self, fail: Fail) -> StoreError {
        fail.into_error(self.file.path())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
        let Some((writer, closed)) = self.writer.take() else { return };
        let closed = closed.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for themselves.
        if writer != thread::current().id() {
            // It tells nothing but that it is over, in time or not.
            closed.recv_timeout(CLOSING).ok();
        }
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.file.path()).finish_non_exhaustive()
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

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        let query = query.clone();
        self.read(move |reader| reader.stats(&query)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let claim = claim.clone();
        self.write_many(move |state| state.claim(&claim)).await
    }

    /// Goes before all other calls: a long queue must not make living workers look dead.
    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        let all = self.renew_at_once(Some(beat), leases, lease).await;
        if !all.as_ref().is_err_and(Fail::is_damage) {
            return all.map_err(|fail| self.error(fail));
        }
        // Each by itself: what cannot be renewed is lost, the others are not. Without leases the beat is all that was asked.
        let mut renewed = match self.renew_at_once(Some(beat), &[], lease).await {
            Err(fail) if !leases.is_empty() && fail.is_damage() => Vec::new(),
            told => told.map_err(|fail| self.error(fail))?,
        };
        for held in leases {
            match self.renew_at_once(None, &[*held], lease).await {
                Err(fail) if fail.is_damage() => renewed.push(Renewed::Lost),
                one => renewed.extend(one.map_err(|fail| self.error(fail))?),
            }
        }
        Ok(renewed)
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        let reports = reports.to_vec();
        let bytes = reports.iter().flat_map(|report| &report.logs).map(LogLine::bytes).sum();
        self.write(bytes, move |state| reports.iter().map(|report| state.report(report)).collect()).await
    }

    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        let settles: Arc<[Settlement]> = settles.into();
        let bytes = settles.iter().map(result_bytes).sum();
        let step = |clear| {
            let settles = Arc::clone(&settles);
            move |state: &mut State| settles.iter().map(|settle| state.settle(settle, clear)).collect()
        };
        match self.writes.ask(false, bytes, step(Clear::Payload)).await {
            Err(Fail::Job { .. }) => self.write(bytes, step(Clear::Nothing)).await,
            settled => settled.map_err(|fail| self.error(fail)),
        }
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
        self.write_many(move |state| state.reclaim(&reclaim)).await
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        let mut cut = 0;
        loop {
            let pruned = self.write_many(move |state| state.prune(limit - cut)).await?;
            cut += pruned.cut;
            if !pruned.more() {
                break;
            }
        }
        // Apart, and so is what follows: damage there does not keep what was cut.
        while cut < limit {
            match self.writes.ask(false, 0, move |state| state.forget(limit - cut)).await {
                Ok(forgotten) => {
                    cut += forgotten;
                    if forgotten < SWEEP_JOBS {
                        break;
                    }
                }
                // Whoever has nothing else to cut is told.
                Err(fail) if cut > 0 && fail.is_damage() => break,
                Err(fail) => return Err(self.error(fail)),
            }
        }
        // It reads the pages that move: in a damaged file it may never succeed, and what was cut is cut all the same.
        match self.writes.ask(false, 0, |state| space::give_back(&state.conn)).await {
            Err(fail) if !fail.is_damage() => Err(self.error(fail)),
            _ => Ok(cut),
        }
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        let Some(hints) = self.hints.upgrade() else { return stream::empty().boxed() };
        stream::unfold(hints.subscribe(), |mut hints| async move {
            match hints.recv().await {
                Ok(hint) => Some((hint, hints)),
                Err(RecvError::Lagged(_)) => Some((Hint::Lagged, hints)),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    /// Takes and gives back the right to write: the file is there and not locked for ever.
    async fn probe(&self) -> Result<()> {
        self.write(0, |_| Ok(())).await
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}

fn result_bytes(settle: &Settlement) -> usize {
    match &settle.outcome {
        Outcome::Completed { result } => result.len(),
        _ => 0,
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
