//! The product on `RedisStore`, in turns with the store's calls on the same `redis-server`, which the bench starts.

use std::{process, sync::Arc, thread::sleep, time::Duration};

use async_endpoints::{
    core::Store,
    redis::{Options, RedisStore},
};
use async_endpoints_testkit::server::RedisServer;
use tokio::runtime::Runtime;

use crate::{
    Effort, claim,
    folder::Folder,
    idle,
    jobs::{CALLERS, Template},
    pickup, product,
    report::{Result, row, title},
    rounds::{self, StorePlace},
};

/// Interval for polling the server.
const POLL: Duration = Duration::from_millis(20);

pub(crate) fn run(runtime: &Runtime, effort: Effort) -> Result<()> {
    let mut server = Server::start("everysec")?;
    let jobs = effort.of(100_000, 6_000);
    runtime.block_on(async {
        rounds::run("Redis, appendfsync everysec", &mut server, effort.of(5, 1), jobs).await?;
        pickup::on("over Redis", &server.fresh().await?, effort.of(1_200, 120)).await?;
        server.clean();
        let time = effort.of(idle::TIME, Duration::from_secs(2));
        idle::on("with Redis", &["redis", &server.redis.url()], server.server(), time).await?;
        bytes(&mut server, jobs).await?;
        claims(&mut server, effort).await?;
        let mut always = Server::start("always")?;
        rounds::run("Redis, appendfsync always", &mut always, 1, effort.of(20_000, 2_000)).await
    })
}

pub(crate) struct Server {
    pub(crate) redis: RedisServer,
    _folder: Folder,
}

impl Server {
    pub(crate) fn start(fsync: &str) -> Result<Self> {
        let folder = Folder::new(&format!("redis-{fsync}"))?;
        let path = folder.path("").to_string_lossy().into_owned();
        Ok(Self { redis: RedisServer::with(&[("dir", &path), ("appendfsync", fsync)]), _folder: folder })
    }

    async fn open(&self, prefix: &str) -> Result<Arc<dyn Store>> {
        let store: RedisStore = Options::new().prefix(prefix).open(self.redis.url()).await?;
        Ok(Arc::new(store))
    }

    /// Empties the server and its append-only file, so that no rewrite of old data disturbs the next measurement.
    pub(crate) fn clean(&self) {
        self.redis.cli(&["FLUSHALL", "SYNC"]);
        self.finish_rewrite();
        self.redis.cli(&["BGREWRITEAOF"]);
        self.finish_rewrite();
    }

    /// Waits until the server does not rewrite its append-only file.
    fn finish_rewrite(&self) {
        while ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter().any(|key| self.info(key) != 0) {
            sleep(POLL);
        }
    }

    fn info(&self, key: &str) -> u64 {
        let info = self.redis.cli(&["INFO"]);
        let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {key} in {info}"))
    }
}

impl StorePlace for Server {
    async fn fresh(&mut self) -> Result<Arc<dyn Store>> {
        self.clean();
        self.open(&format!("bench-{}", process::id())).await
    }

    fn server(&self) -> Option<u32> {
        self.redis.pid()
    }
}

/// Prints the server's memory for each job.
async fn bytes(server: &mut Server, jobs: u32) -> Result<()> {
    title(&format!("Memory of the server: {jobs} jobs with a request of 200 bytes"));
    let store = server.fresh().await?;
    let memory = || {
        // The server frees its rewrite buffers with the rewrite.
        server.finish_rewrite();
        sleep(Duration::from_millis(1500));
        server.info("used_memory")
    };
    let before = memory();
    Template::submitted().await?.fill(&store, jobs, CALLERS).await?;
    let queued = memory();
    product::drain(&store, jobs).await?;
    let ended = memory();
    for (what, now) in [("a queued job", queued), ("a completed job, with a result of 4 bytes", ended)] {
        let each = now.saturating_sub(before) as f64 / f64::from(jobs);
        row(what, &format!("{each:>6.0} bytes"));
    }
    Ok(())
}

async fn claims(server: &mut Server, effort: Effort) -> Result<()> {
    server.clean();
    let template = claim::template()?;
    let mut queues = claim::Queues::new();
    for size in effort.of(claim::SIZES, [1_000, 10_000, 30_000]) {
        let store = server.open(&format!("queued-{size}")).await?;
        template.fill(&store, size, CALLERS).await?;
        queues.push((size, store));
    }
    server.finish_rewrite();
    claim::on("in Redis", &queues, effort.of(21, 3)).await
}
