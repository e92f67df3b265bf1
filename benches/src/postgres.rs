//! The product on `PostgresStore`, in turns with the store's calls and with single-row inserts of `pgbench` on the same
//! server, which the bench starts.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{
    core::Store,
    postgres::{Options, PostgresStore},
};
use async_endpoints_testkit::server::PostgresServer;
use tokio::runtime::Runtime;

use crate::{
    Effort, claim, direct,
    folder::Folder,
    idle,
    jobs::{CALLERS, Template},
    pickup,
    process::cpu_with_children,
    report::{self, Result, median, per_second, ratio, row, title},
    rounds::{self, StorePlace},
};

/// How long a snapshot is held open.
const HELD: Duration = Duration::from_secs(60);
/// Drivers and batches that claim and settle while a snapshot is held.
const DRIVERS: (u32, u32) = (4, 64);
/// A row of the reference: an id, and as many bytes as the request of a job.
const REFERENCE: &str = "INSERT INTO reference VALUES (gen_random_uuid(), decode(repeat('78', 200), 'hex'));";

pub(crate) fn run(runtime: &Runtime, effort: Effort) -> Result<()> {
    runtime.block_on(async {
        let mut server = Server::start()?;
        let jobs = effort.of(50_000, 6_000);
        rounds::run("PostgreSQL", &mut server, effort.of(5, 1), jobs).await?;
        report::rate("pgbench, 64 connections, 1 row a commit (reference)", "rows/s", &server.reference);
        pickup::on("over PostgreSQL", &server.fresh().await?, effort.of(1_200, 120)).await?;
        lives(&mut server, jobs).await?;
        snapshot(&mut server, effort).await?;
        idle(&server, effort).await?;
        claims(&mut server, effort).await
    })
}

pub(crate) struct Server {
    pub(crate) postgres: PostgresServer,
    folder: Folder,
    schemas: u32,
    /// Rows per second of `pgbench`, measured before each part of a round.
    reference: Vec<f64>,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let folder = Folder::new("postgres")?;
        let postgres = PostgresServer::with(&[
            ("shared_buffers", "'512MB'"),
            ("max_wal_size", "'4GB'"),
            ("autovacuum_naptime", "'5s'"),
        ]);
        postgres.sql("CREATE TABLE reference (id uuid PRIMARY KEY, body bytea NOT NULL)");
        fs::write(folder.path("insert.sql"), REFERENCE)?;
        Ok(Self { postgres, folder, schemas: 0, reference: Vec::new() })
    }

    async fn open(&mut self) -> Result<Arc<dyn Store>> {
        self.schemas += 1;
        let options = Options::new().schema(format!("bench_{}", self.schemas));
        Ok(Arc::new(options.open(self.postgres.url()).await?) as Arc<PostgresStore>)
    }

    /// Removes the previous schema and writes its pages, so that they do not disturb the next measurement.
    pub(crate) fn clean(&self) {
        self.postgres.sql(&format!("DROP SCHEMA IF EXISTS bench_{} CASCADE", self.schemas));
        self.postgres.sql("TRUNCATE reference");
        self.postgres.sql("CHECKPOINT");
    }

    /// Single-row inserts per second by 64 connections of `pgbench`.
    fn inserts(&self) -> Result<f64> {
        let url = self.postgres.url();
        let script = self.folder.path("insert.sql");
        let out = Command::new("pgbench")
            .args(["--no-vacuum", "--client=64", "--jobs=2", "--time=2", "--file"])
            .arg(script)
            .arg(url)
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.ok_or_else(|| format!("no rate from pgbench: {text}{}", String::from_utf8_lossy(&out.stderr)).into())
    }

    fn number(&self, sql: &str) -> Result<f64> {
        let answer = self.postgres.sql(sql);
        answer.parse().map_err(|_| format!("{sql}: {answer}").into())
    }

    /// Bytes of the write-ahead log since the server was made.
    fn wal(&self) -> Result<f64> {
        self.number("SELECT pg_current_wal_insert_lsn() - '0/0'")
    }
}

impl StorePlace for Server {
    async fn fresh(&mut self) -> Result<Arc<dyn Store>> {
        self.clean();
        let rate = self.inserts()?;
        self.reference.push(rate);
        self.open().await
    }

    fn server(&self) -> Option<u32> {
        self.postgres.pid()
    }
}

/// Prints the write-ahead log and the server's processor time of a job from insert to settlement.
async fn lives(server: &mut Server, jobs: u32) -> Result<()> {
    title(&format!("Log and processor time of the server: {jobs} jobs from insert to settlement"));
    let store = server.fresh().await?;
    let template = Template::submitted().await?;
    let pid = server.server().ok_or("the server is down")?;
    let (wal, cpu, began) = (server.wal()?, cpu_with_children(pid)?, Instant::now());
    direct::insert_to_settled(&store, &template, jobs, DRIVERS.0, DRIVERS.1).await?;
    let took = began.elapsed();
    row("write-ahead log of each", &format!("{:>9.0} bytes", (server.wal()? - wal) / f64::from(jobs)));
    let micros = (cpu_with_children(pid)? - cpu).as_secs_f64() * 1e6 / f64::from(jobs);
    row("processor time of each", &format!("{micros:>9.1} µs"));
    row("jobs from insert to settlement", &format!("{:>9.0} jobs/s", per_second(jobs, took)));
    Ok(())
}

/// Prints rates with and without a snapshot that is held open, in turns.
async fn snapshot(server: &mut Server, effort: Effort) -> Result<()> {
    let held = effort.of(HELD, Duration::from_secs(3));
    title(&format!("Insert to settlement for {held:?}, without and with a snapshot that is held open meanwhile"));
    let template = Template::submitted().await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..effort.of(2, 1) {
        for (rates, hold) in [(&mut without, false), (&mut with, true)] {
            let store = server.fresh().await?;
            let _snapshot = hold.then(|| Snapshot::hold(&server.postgres)).transpose()?;
            let began = Instant::now();
            while began.elapsed() < held {
                rates.push(direct::insert_to_settled(&store, &template, 20_000, DRIVERS.0, DRIVERS.1).await?);
            }
        }
    }
    report::rate("without", "jobs/s", &without);
    report::rate("with a held snapshot", "jobs/s", &with);
    ratio("  ratio", &with, &without);
    let last = &with[with.len().saturating_sub(5)..];
    row("  the last five rounds with a held snapshot", &format!("{:>9.0} jobs/s", median(last)));
    Ok(())
}

/// A session with an open snapshot. Ends when it is dropped.
struct Snapshot<'a> {
    postgres: &'a PostgresServer,
    psql: Child,
}

/// The sessions that hold a snapshot. The server does not end a sleeping session when `psql` is killed.
const HOLDERS: &str = "FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND wait_event = 'PgSleep'";

impl<'a> Snapshot<'a> {
    fn hold(postgres: &'a PostgresServer) -> Result<Self> {
        let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_snapshot(); SELECT pg_sleep(600)";
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--command", hold]).arg(postgres.url());
        let psql = psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let held = Self { postgres, psql };
        while held.count() != "1" {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(held)
    }

    fn count(&self) -> String {
        self.postgres.sql(&format!("SELECT count(*) {HOLDERS}"))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        self.postgres.sql(&format!("SELECT pg_terminate_backend(pid) {HOLDERS}"));
        drop(self.psql.wait());
    }
}

/// Prints the load of an idle process, and the transactions that it causes.
async fn idle(server: &Server, effort: Effort) -> Result<()> {
    let time = effort.of(idle::TIME, Duration::from_secs(2));
    server.clean();
    let transactions = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'";
    let (before, began) = (server.number(transactions)?, Instant::now());
    idle::on("with PostgreSQL", &["postgres", &server.postgres.url()], server.server(), time).await?;
    let each_second = (server.number(transactions)? - before) / began.elapsed().as_secs_f64();
    row("transactions, start included", &format!("{each_second:>9.1} a second"));
    Ok(())
}

async fn claims(server: &mut Server, effort: Effort) -> Result<()> {
    server.clean();
    let template = claim::template()?;
    let mut queues = claim::Queues::new();
    for size in effort.of(claim::SIZES, [1_000, 10_000, 30_000]) {
        let store = server.open().await?;
        template.fill(&store, size, CALLERS).await?;
        queues.push((size, store));
    }
    server.postgres.sql("CHECKPOINT");
    claim::on("in PostgreSQL", &queues, effort.of(21, 3)).await
}
