//! The store: its threads, and its calls as scripts.

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
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery, hint_stream,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use redis::Value;
use tokio::{
    runtime::{self, Handle},
    sync::{broadcast, oneshot},
};
use uuid::Uuid;

use crate::{
    args::Args,
    calls::Calls,
    fail::Fail,
    hints,
    inserts::{self, Inserts},
    link,
    options::{OpenError, Options},
    record, repair,
    reply::{int, list},
    scripts::{Script, Scripts},
    server::Server,
    stats::{self, BeatRecord},
    wire::{
        Done, claimed, each, inserted, json, list_args, list_page, new_job, reclaimed, report_args, settle_args,
        trace_args, uuid,
    },
};

/// Hints that a slow listener may fall behind by before it is told [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;
/// Jobs that one look at a list reads: a page is made of several.
const LOOK_JOBS: usize = 50;
/// Ids that one call of `versions` asks for.
const VERSIONS: usize = 500;

/// A store in Redis. Its jobs are what the server keeps: with an append-only file, they outlive all processes and the
/// server's own.
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
    /// The runtime that opened it, and a connection that this runtime drives: an answer wakes the thread that waits for it.
    home: runtime::Id,
    near: Arc<Calls>,
    inserts: Inserts,
    /// Over a connection that a thread of the store drives. Renewals go here, and all that comes from elsewhere, so that both
    /// go on while handlers block every thread of the home runtime.
    own: Arc<Calls>,
    listener: Mutex<Option<Listener>>,
    /// Dropped with the store, which ends what runs for it.
    _life: [oneshot::Sender<()>; 2],
}

/// Who hears hints for all streams of a store.
struct Listener {
    hints: broadcast::WeakSender<Hint>,
    _life: oneshot::Sender<()>,
}

/// Runs until the other half is dropped.
fn mortal(run: impl Future<Output = ()> + Send) -> (oneshot::Sender<()>, impl Future<Output = ()> + Send) {
    let (life, ended) = oneshot::channel::<()>();
    let until = async {
        tokio::select! {
            _ = ended => {}
            () = run => {}
        }
    };
    (life, until)
}

/// Runs on a thread of the store's own.
fn on_a_thread(run: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("redis-store".to_owned()).spawn(move || runtime.block_on(run)).map(drop)
}

impl RedisStore {
    /// Opens a store with default [`Options`].
    pub async fn open(url: impl AsRef<str>) -> std::result::Result<Self, OpenError> {
        Options::new().open(url).await
    }

    /// What this server can lose, as of the last connection; none if it keeps what it was given. Only with
    /// [`Options::allow_volatile`] can there be something.
    #[must_use]
    pub fn volatile(&self) -> Option<String> {
        self.server.volatile()
    }

    pub(crate) async fn start(server: Server, options: &Options) -> std::result::Result<Self, OpenError> {
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
        let (inserts, desk) = inserts::new();
        let (tell, told) = oneshot::channel();
        let desk = desk.run(Arc::clone(&near));
        let (near_life, run) = mortal(async { _ = tokio::join!(keeper.run(Some(tell)), desk) });
        tokio::spawn(run);
        told.await.unwrap_or_else(|_| Err(OpenError::Unavailable("its task ended".to_owned())))?;

        let (link, keeper) = link::new(Arc::clone(&server));
        let own = calls(link);
        let mending = repair::run(Arc::clone(&own), options.rest);
        let (own_life, run) = mortal(async { _ = tokio::join!(keeper.run(None), mending) });
        on_a_thread(run).map_err(|error| OpenError::Unavailable(format!("a thread cannot start: {error}")))?;
        let (home, life) = (Handle::current().id(), [near_life, own_life]);
        let store = Self { server, home, near, inserts, own, listener: Mutex::default(), _life: life };
        store.listen();
        Ok(store)
    }

    /// The hints, heard by the runtime of whoever asks first, or first after that one is gone: a hint that goes from thread to
    /// thread comes a wake-up later. None outside of any.
    fn listen(&self) -> Option<broadcast::Sender<Hint>> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hints) = listener.as_ref().and_then(|listener| listener.hints.upgrade()) {
            return Some(hints);
        }
        let here = Handle::try_current().ok()?;
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let (life, run) = mortal(hints::run(Arc::clone(&self.server), hints.clone()));
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

    async fn call(&self, script: impl FnOnce(&Scripts) -> &Script + Send, args: Args) -> Result<Value> {
        let calls = self.calls();
        calls.call(script(&calls.scripts), &args).await.map_err(|fail| self.error(fail))
    }

    /// An answer as it is read, or the contract's error.
    fn read<T>(&self, read: Done<T>) -> Result<T> {
        read.map_err(|fail| self.error(fail))
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
        let args = new_job(&job);
        let answer = if self.is_home() {
            self.inserts.insert(args).await
        } else {
            let answers = self.own.call(&self.own.scripts.insert, &args).await;
            answers.and_then(list).and_then(|mut answers| answers.value())
        };
        self.read(answer.and_then(inserted))
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        let found = self.call(|scripts| &scripts.get, Args::new().text(id)).await?;
        self.read(list(found).and_then(record::lookup))
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        let mut versions = Vec::with_capacity(ids.len());
        for some in ids.chunks(VERSIONS) {
            let args = some.iter().fold(Args::new(), Args::text);
            let found = self.call(|scripts| &scripts.versions, args).await?;
            let found = self.read(list(found))?.map(|version| int(&version));
            let found: Done<Vec<_>> =
                found.map(|version| Ok(u64::try_from(version?).ok().filter(|v| *v > 0))).collect();
            versions.extend(self.read(found)?);
        }
        Ok(versions)
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let limit = page.limit.min(PAGE_JOBS) as usize;
        let mut whole = ListPage { jobs: Vec::new(), next: page.cursor };
        let mut left = limit;
        while left > 0 {
            let looked = left.min(LOOK_JOBS);
            let found = self.call(|scripts| &scripts.list, list_args(filter, whole.next, looked)).await?;
            let part = self.read(list(found).and_then(|found| list_page(found, whole.next)))?;
            whole.jobs.extend(part.jobs);
            whole.next = part.next;
            left -= looked;
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
        let found = self.call(|scripts| &scripts.logs, args).await?;
        let mut found = self.read(list(found))?;
        let lines =
            std::iter::from_fn(|| (found.len() > 0).then(|| found.bytes().and_then(|line| record::line(&line))));
        self.read(lines.collect())
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        self.read(stats::stats(self.calls(), query).await)
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let max = (claim.max as usize).min(BATCH_JOBS);
        let args = Args::new().text(claim.token.0).duration(claim.lease).text(max).text(claim.max_bytes);
        let args = claim.quotas.iter().fold(args, |args, want| args.bytes(want.name.as_str()).text(want.max));
        let found = self.call(|scripts| &scripts.claim, args).await?;
        self.read(list(found).and_then(|found| claimed(found, claim)))
    }

    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        let record = json(&BeatRecord::from(beat));
        let args = Args::new().text(beat.worker).bytes(record).duration(beat.ttl).duration(lease);
        let args = leases.iter().fold(args, |args, lease| args.text(lease.job).text(lease.token.0));
        let answers = self.own.call(&self.own.scripts.renew, &args).await.map_err(|fail| self.error(fail))?;
        let renewed = |answer: Value| {
            Ok(match int(&answer)? {
                0 => Renewed::Held,
                1 => Renewed::CancelRequested,
                _ => Renewed::Lost,
            })
        };
        self.read(each(answers, leases.len(), renewed))
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        let args = reports.iter().fold(Args::new(), report_args);
        let answers = self.call(|scripts| &scripts.report, args).await?;
        let fenced = |answer: Value| Ok(if int(&answer)? == 0 { Fenced::Applied } else { Fenced::Lost });
        self.read(each(answers, reports.len(), fenced))
    }

    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        if settles.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.call(|scripts| &scripts.settle, settle_args(settles)).await?;
        let settled = |answer: Value| match int(&answer)? {
            -1 => Ok(Settled::Lost),
            status => record::status(status).map(Settled::Settled),
        };
        self.read(each(answers, settles.len(), settled))
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        let found = self.call(|scripts| &scripts.cancel, Args::new().text(id).bytes(json(error))).await?;
        self.read(list(found).and_then(|mut found| {
            let what = found.int()?;
            Ok(match (what, record::lookup(found.list()?)?) {
                (0, JobLookup::Found(job)) => CancelOutcome::Canceled(job),
                (1, JobLookup::Found(job)) => CancelOutcome::Requested(job),
                (_, JobLookup::Found(job)) => CancelOutcome::Terminal(job),
                (_, JobLookup::Gone { owner }) => CancelOutcome::Gone { owner },
                (_, JobLookup::NotFound) => CancelOutcome::NotFound,
            })
        }))
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let args = trace_args(Args::new().text(id).text(new.id), new.trace.as_ref());
        let found = self.call(|scripts| &scripts.retry, args).await?;
        self.read(list(found).and_then(|mut found| {
            let what = found.int()?;
            Ok(match (what, record::lookup(found.list()?)?) {
                (0, JobLookup::Found(job)) => RetryOutcome::Created(job),
                (1, repeated) => RetryOutcome::Existing(repeated),
                (2, JobLookup::Found(job)) => RetryOutcome::NotEnded(job.status),
                (3, _) => RetryOutcome::Conflict,
                (5, _) => return Err(Fail::Bad(format!("the payload of {id} is not there"))),
                (_, JobLookup::Gone { owner }) => RetryOutcome::Gone { owner },
                _ => RetryOutcome::NotFound,
            })
        }))
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let args = Args::new().duration(reclaim.lease).text(reclaim.limit.min(SWEEP_JOBS));
        let args = args.bytes(json(&reclaim.lost)).bytes(json(&reclaim.canceled));
        let found = self.call(|scripts| &scripts.reclaim, args).await?;
        self.read(list(found).and_then(reclaimed))
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        // Every process prunes now and then, whatever else it does.
        let conn = self.calls().link.conn().await.map_err(|fail| self.error(fail))?;
        self.server.look_again(conn).await?;
        let cut = self.call(|scripts| &scripts.prune, Args::new().text(limit.min(SWEEP_JOBS))).await?;
        self.read(int(&cut)).map(|cut| u32::try_from(cut).unwrap_or(0))
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        let Some(hints) = self.listen() else { return stream::empty().boxed() };
        hint_stream(hints.subscribe())
    }

    async fn probe(&self) -> Result<()> {
        self.call(|scripts| &scripts.probe, Args::new()).await.map(drop)
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

#[async_trait]
impl SharedState for RedisStore {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        let args = Args::new().bytes(name).text(holder).duration(ttl).text(Uuid::new_v4());
        let found = self.call(|scripts| &scripts.role, args).await?;
        self.read(list(found).and_then(|mut found| {
            Ok(match found.int()? {
                0 => Role::Held(RoleToken(uuid(&found.text()?)?)),
                1 => Role::Other(Duration::from_micros(found.number()?)),
                _ => Role::Resigned,
            })
        }))
    }

    async fn document(&self, name: &str) -> Result<Option<Document>> {
        let mut command = redis::cmd("HMGET");
        let calls = self.calls();
        command.arg(calls.key(format_args!("document:{name}"))).arg("version").arg("content");
        let found = calls.link.send(&command).await;
        self.read(found.and_then(list).and_then(|mut found| {
            let (version, content) = (found.maybe_text()?, found.bytes()?);
            let version = version.map(|version| uuid(&version)).transpose()?;
            Ok(version.map(|version| Document { version: DocVersion(version), bytes: content.into() }))
        }))
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
        let put = self.call(|scripts| &scripts.put, args).await?;
        self.read(int(&put).map(|put| match put {
            0 => PutOutcome::Stored(DocVersion(version)),
            1 => PutOutcome::Stale,
            _ => PutOutcome::Fenced,
        }))
    }
}
