//! Rates and times of other job queues: `async-endpoints-peers URL JOBS`. The bench of the PostgreSQL store runs this program on
//! its own server. Each line of the output is a name and a number.
//!
//! apalis runs with its leases and in batches of 100, graphile_worker with 8 concurrent jobs and without its local queue.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use graphile_worker::{IntoTaskHandlerResult, JobSpec, TaskHandler, WorkerOptions};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const CALLERS: u32 = 64;
const QUEUE: &str = "bench";
/// Jobs of the measurement of pickup times, and the pause between them.
const TIMED: u32 = 600;
const PACE: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, jobs] = args.as_slice() else { return Err("usage: async-endpoints-peers URL JOBS".into()) };
    let jobs = jobs.parse()?;
    let pool = PgPoolOptions::new().max_connections(CALLERS).connect(url).await?;
    PostgresStorage::setup(&pool).await?;
    println!("apalis-submit {:.0}", submit(&pool, jobs).await?);
    println!("apalis-drain {:.0}", drain(&pool, jobs).await?);
    let micros = pickup(url).await?;
    println!("graphile-pickup-p50 {:.0}", quantile(&micros, 0.5));
    println!("graphile-pickup-p99 {:.0}", quantile(&micros, 0.99));
    Ok(())
}

fn storage(pool: &PgPool) -> PostgresStorage<String> {
    PostgresStorage::new(pool).with_config(Config::default().queue(QUEUE).batch_size(100))
}

/// Jobs per second that 64 callers submit to apalis, each with one call at a time.
async fn submit(pool: &PgPool, jobs: u32) -> Result<f64> {
    let request = "x".repeat(198);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut storage, request) = (storage(pool), request.clone());
        callers.spawn(async move {
            for _ in 0..jobs / CALLERS {
                storage.push(request.clone()).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(f64::from(jobs / CALLERS * CALLERS) / began.elapsed().as_secs_f64())
}

/// Jobs per second that one worker of apalis runs and acknowledges.
async fn drain(pool: &PgPool, jobs: u32) -> Result<f64> {
    async fn noop(_: String) -> std::result::Result<(), BoxDynError> {
        Ok(())
    }
    let jobs = jobs / CALLERS * CALLERS;
    let worker =
        WorkerBuilder::new("bench").backend(storage(pool)).concurrency(256).parallelize(tokio::spawn).build(noop);
    let began = Instant::now();
    let working = tokio::spawn(worker.run());
    let done = "SELECT count(*) FROM apalis.jobs WHERE status = 'Done'";
    while sqlx::query_scalar::<_, i64>(done).fetch_one(pool).await? < i64::from(jobs) {
        if began.elapsed() > Duration::from_secs(120) || working.is_finished() {
            return Err("apalis did not run all jobs".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = f64::from(jobs) / began.elapsed().as_secs_f64();
    working.abort();
    Ok(rate)
}

#[derive(Serialize, Deserialize)]
struct Timed {
    number: u32,
}

static STARTED: Mutex<Vec<(u32, Instant)>> = Mutex::new(Vec::new());
static COUNT: AtomicU32 = AtomicU32::new(0);

impl TaskHandler for Timed {
    const IDENTIFIER: &'static str = "timed";

    async fn run(self, _: graphile_worker::WorkerContext) -> impl IntoTaskHandlerResult {
        let now = Instant::now();
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).push((self.number, now));
        COUNT.fetch_add(1, Ordering::Relaxed);
        Ok::<(), String>(())
    }
}

/// Microseconds from before a job is added to the start of its handler, one job after the other.
async fn pickup(url: &str) -> Result<Vec<f64>> {
    let options = WorkerOptions::default().database_url(url).schema("graphile_worker").concurrency(8);
    let worker = Arc::new(options.define_job::<Timed>().init().await?);
    let running = tokio::spawn({
        let worker = worker.clone();
        async move { worker.run().await.map_err(|error| error.to_string()) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let utils = worker.create_utils();
    let mut sent = Vec::new();
    for number in 0..TIMED {
        tokio::time::sleep(PACE).await;
        sent.push(Instant::now());
        utils.add_job(Timed { number }, JobSpec::default()).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while COUNT.load(Ordering::Relaxed) < TIMED {
        if Instant::now() > deadline {
            return Err("graphile_worker did not run all jobs".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.abort();
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(started.iter().map(|(number, at)| (*at - sent[*number as usize]).as_secs_f64() * 1e6).collect())
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}
