//! A service with the operator routes and the dashboard, as a process of its own, over a store with many jobs.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, JobContext, MemoryStore, Options, RedisStore, Store, Telemetry,
    axum::{Router, routing::get},
    core::Clock,
    redis, sqlite,
};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    backlog::{self, PastClock},
    folder::Folder,
    jobs::{self, CALLERS, NOOP},
    orders::{ORDERS, Order, RUN, WAIT, WAITING, listen},
    process::Server,
    product::SLOTS,
    redis as redis_bench,
    report::Result,
    sqlite_file::open,
};

/// Path of the number of no-op jobs that the process has run.
pub(crate) const RAN: &str = "/ran";
/// Under load, this number of jobs of each caller waits for its turn.
const AHEAD: u32 = 32;
/// Under load, ended jobs are kept for this time.
const KEPT: Duration = Duration::from_secs(5);

/// Where jobs are stored.
pub(crate) enum Place {
    Memory,
    Sqlite(Folder),
    Redis(redis_bench::Server),
}

impl Place {
    pub(crate) const ALL: [&'static str; 3] = ["memory", "sqlite", "redis"];

    pub(crate) fn new(name: &str) -> Result<Self> {
        match name {
            "memory" => Ok(Self::Memory),
            "sqlite" => Ok(Self::Sqlite(Folder::new("dashboard")?)),
            "redis" => Ok(Self::Redis(redis_bench::Server::start("everysec")?)),
            _ => Err(format!("unknown store {name:?}: expected memory, sqlite or redis").into()),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Sqlite(_) => "on SQLite",
            Self::Redis(_) => "on Redis",
        }
    }

    /// Whether several processes can share a store.
    pub(crate) const fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory)
    }

    /// The file, or the server and the prefix of keys, of a store.
    fn at(&self, store: &str) -> String {
        match self {
            Self::Memory => "memory:".to_owned(),
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path(store).display()),
            Self::Redis(server) => format!("{}/?{store}", server.redis.url()),
        }
    }

    /// Starts a process on a store. A store without jobs gets this number of them.
    pub(crate) fn serve(&self, store: &str, jobs: u32, load: Load) -> Result<Server> {
        let load = if load == Load::Full { "full" } else { "none" };
        Ok(Server::start(&["operated", &self.at(store), &jobs.to_string(), load])?)
    }
}

/// What the process does besides serving.
#[derive(Copy, Clone, PartialEq)]
pub(crate) enum Load {
    None,
    /// It submits no-op jobs as fast as it runs them.
    Full,
}

/// Opens a store, fills it if it has no jobs, and returns it with the system's clock.
async fn open_filled(at: &str, jobs: u32) -> Result<Arc<dyn Store>> {
    let clock = PastClock::new();
    if at == "memory:" {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(clock.clone()));
        backlog::fill(&store, &clock, jobs).await?;
        return Ok(store);
    }
    let store = reopen(at, Some(clock.clone())).await?;
    if has_no_jobs(&*store).await? {
        backlog::fill(&store, &clock, jobs).await?;
    }
    drop(store);
    reopen(at, None::<PastClock>).await
}

/// Opens a durable store. With a clock, which is for filling, commits need not wait for the disk.
async fn reopen(at: &str, clock: Option<impl Clock>) -> Result<Arc<dyn Store>> {
    if let Some(file) = at.strip_prefix("sqlite:") {
        let Some(clock) = clock else { return open(Path::new(file), sqlite::Synchronous::Full).await };
        let options = sqlite::Options::new().synchronous(sqlite::Synchronous::Off);
        return Ok(Arc::new(options.open_with_clock(file, clock).await?));
    }
    let (url, prefix) = at.split_once("/?").ok_or("a store without a prefix")?;
    let options = redis::Options::new().prefix(prefix);
    let options = clock.into_iter().fold(options, redis::Options::clock);
    let store: RedisStore = options.open(url).await?;
    Ok(Arc::new(store))
}

async fn has_no_jobs(store: &dyn Store) -> Result<bool> {
    Ok(store.stats(&Default::default()).await?.types.is_empty())
}

/// Serves on a store until this is dropped.
pub(crate) async fn serve(at: &str, jobs: u32, load: &str) -> Result<impl Future<Output = io::Result<()>> + use<>> {
    let (store, is_loaded) = (open_filled(at, jobs).await?, load == "full");
    let retention = if is_loaded { KEPT } else { Options::default().retention };
    let options = Options { max_queue_size: u64::MAX, concurrency: SLOTS, retention, ..Options::default() };
    let (ran, has_run) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (count, shown, notify) = (ran.clone(), ran.clone(), has_run.clone());
    let telemetry = Telemetry::builder().service_name("bench").build()?;
    let endpoints = AsyncEndpoints::builder(store)
        .options(options)
        .telemetry(&telemetry)
        .access(Access::loopback())
        .endpoint(Endpoint::post(ORDERS, RUN))
        .endpoint(Endpoint::post(WAITING, WAIT))
        .handler(RUN, async |_: JobContext<Order>| Ok(()))
        .handler(NOOP, move |_: JobContext<String>| {
            count.fetch_add(1, Ordering::Relaxed);
            notify.notify_waiters();
            async { Ok(()) }
        })
        .build()?;
    let app = Router::new()
        .route(RAN, get(async move || shown.load(Ordering::Relaxed).to_string()))
        .merge(endpoints.submit_routes())
        .merge(endpoints.job_routes())
        .merge(endpoints.monitoring_routes())
        .merge(endpoints.dashboard_routes());
    let mut callers = JoinSet::new();
    for _ in 0..if is_loaded { CALLERS } else { 0 } {
        callers.spawn(submit(endpoints.clone(), ran.clone(), has_run.clone()));
    }
    Ok(async move {
        let _callers = callers;
        endpoints.serve(listen().await?, app).await
    })
}

/// Submits jobs, as long as few of them wait.
async fn submit(endpoints: AsyncEndpoints, ran: Arc<AtomicU32>, has_run: Arc<Notify>) {
    for submitted in 0.. {
        while submitted > ran.load(Ordering::Relaxed) / CALLERS + AHEAD {
            let _ = tokio::time::timeout(Duration::from_millis(5), has_run.notified()).await;
        }
        if let Err(error) = endpoints.submit(NOOP, jobs::request()).await
            && !endpoints.is_shutting_down()
        {
            eprintln!("a submission failed: {error}");
        }
    }
}
