//! Telemetry under a steady load: jobs of 1 ms over Redis at half and a quarter of the highest rate from submission to
//! settlement, with all telemetry off and on in turns. Each measurement runs in a process of its own, because a process has
//! one subscriber.

use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{
    JobLookup, Telemetry,
    core::{JobId, Store},
    redis::RedisStore,
};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    Effort,
    folder::Folder,
    jobs::{self, NOOP},
    process::Server,
    product::{self, DAY, Product, Work},
    redis,
    report::{Result, median, quantile, row, title},
    telemetry::observed,
};

/// Time of an attempt.
const WORK: Duration = Duration::from_millis(1);
/// Interval at which due jobs are submitted.
const TICK: Duration = Duration::from_millis(1);
/// The first seconds of a run are not counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// One of this number of jobs is read back for its times.
const SAMPLE: u64 = 7;

/// What was measured in one process.
#[derive(Default)]
struct Measured {
    /// Completed jobs per second.
    rates: Vec<f64>,
    /// From acceptance to completion, by the store's clock.
    p50_micros: Vec<f64>,
    p99_micros: Vec<f64>,
}

pub(crate) fn run(runtime: &Runtime, effort: Effort) -> Result<()> {
    let jobs = effort.of(100_000, 6_000);
    let server = redis::Server::start("everysec")?;
    let mut highest = Vec::new();
    for _ in 0..3 {
        highest.push(runtime.block_on(submit_to_settled(&server.redis.url(), jobs))?);
        server.clean();
    }
    let highest = median(&highest);
    for (share, name) in [(0.5, "half"), (0.25, "a quarter")] {
        compare(&server, highest * share, name, effort)?;
    }
    Ok(())
}

/// Measures with all telemetry off and on in turns, at this number of jobs per second.
fn compare(server: &redis::Server, rate: f64, share: &str, effort: Effort) -> Result<()> {
    let (rounds, seconds) = (effort.of(3, 1), effort.of(15, 3));
    title(&format!(
        "Telemetry at {share} of the highest rate over Redis: {rate:.0} jobs/s of {WORK:?}, {rounds} × {seconds} s in turns"
    ));
    let (sink, folder) = (Server::start(&["sink"])?, Folder::new("half-load")?);
    let (mut off, mut on) = (Measured::default(), Measured::default());
    for _ in 0..rounds {
        for (telemetry, measured) in [("off", &mut off), ("on", &mut on)] {
            let serve = ["paced", telemetry, &server.redis.url(), &format!("{rate:.0}"), &seconds.to_string()];
            let lines = File::create(folder.path("lines"))?;
            let output = observed(&serve, &format!("http://{}", sink.address), "info")?.stderr(lines).output()?;
            measured.add(&String::from_utf8_lossy(&output.stdout))?;
            server.clean();
        }
    }
    row("off (reference)", &off.shown());
    row("metrics, traces at 10 %, JSON lines, a captured line", &on.shown());
    row("ratio of the rates", &format!("{:>6.3}", median(&on.rates) / median(&off.rates)));
    let later = (median(&on.p99_micros) - median(&off.p99_micros)) / 1000.0;
    row("difference of the p99", &format!("{later:>6.2} ms"));
    Ok(())
}

impl Measured {
    /// Adds the output of `measure`.
    fn add(&mut self, output: &str) -> Result<()> {
        let figures: Vec<f64> = output.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        let [rate, p50, p99] = figures.as_slice() else {
            return Err(format!("invalid output {output:?}: expected a rate, a p50 and a p99").into());
        };
        self.rates.push(*rate);
        self.p50_micros.push(*p50);
        self.p99_micros.push(*p99);
        Ok(())
    }

    fn shown(&self) -> String {
        let millis = |micros: &[f64]| median(micros) / 1000.0;
        let (low, high) = (quantile(&self.p99_micros, 0.0) / 1000.0, quantile(&self.p99_micros, 1.0) / 1000.0);
        format!(
            "{:>6.0} jobs/s   p50 {:>5.2} ms   p99 {:>5.2} ms ({low:.2} … {high:.2})",
            median(&self.rates),
            millis(&self.p50_micros),
            millis(&self.p99_micros)
        )
    }
}

async fn submit_to_settled(url: &str, jobs: u32) -> Result<f64> {
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(url).await?);
    product::submit_to_settled(&store, jobs).await
}

/// Measures in this process, and prints the completed jobs per second, and the p50 and p99 of their times in microseconds.
pub(crate) async fn measure(telemetry: bool, url: &str, rate: f64, seconds: u64) -> Result<()> {
    let telemetry = telemetry.then(Telemetry::from_env).transpose()?;
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(url).await?);
    let work = Work { time: WORK, logs: telemetry.is_some() };
    let mut product = Product::with_telemetry(&store, DAY, telemetry.as_ref(), work)?;
    product.work();
    submit_for(&product, rate, WARM_UP).await?;
    let (began, before) = (Instant::now(), product.ran());
    let ids = submit_for(&product, rate, Duration::from_secs(seconds)).await?;
    let completed = f64::from(product.ran() - before) / began.elapsed().as_secs_f64();
    product.until_ran(before + ids.len() as u32).await;
    let mut micros = Vec::new();
    for id in ids.iter().step_by(SAMPLE as usize) {
        let job = product.endpoints.wait(*id, Duration::from_secs(10)).await?;
        if let JobLookup::Found(job) = job
            && let Some(completed) = job.completed_at
        {
            micros.push((completed.as_micros() - job.created_at.as_micros()) as f64);
        }
    }
    println!("{completed} {} {}", quantile(&micros, 0.5), quantile(&micros, 0.99));
    product.stop().await
}

/// Submits jobs at a steady rate, each by a task of its own, and returns their ids.
async fn submit_for(product: &Product, rate: f64, time: Duration) -> Result<Vec<JobId>> {
    let (mut submitting, mut ids) = (JoinSet::new(), Vec::new());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (began, mut submitted) = (Instant::now(), 0.0);
    while began.elapsed() < time {
        ticks.tick().await;
        let due = rate * began.elapsed().min(time).as_secs_f64();
        while submitted < due {
            submitted += 1.0;
            let endpoints = product.endpoints.clone();
            submitting
                .spawn(async move { endpoints.submit(NOOP, jobs::request()).await.map(|submitted| submitted.job.id) });
        }
        while let Some(id) = submitting.try_join_next() {
            ids.push(id??);
        }
    }
    while let Some(id) = submitting.join_next().await {
        ids.push(id??);
    }
    Ok(ids)
}
