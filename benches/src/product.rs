//! The product on a store: callers that submit no-op jobs, and a worker that runs them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, Builder, JobContext, Options, Telemetry,
    core::{JobStatus, Store},
};
use tokio::task::JoinHandle;

use crate::{
    jobs::{self, CALLERS, NOOP},
    process,
    report::{Result, mib, per_second},
};

pub(crate) const SLOTS: u32 = 256;
/// Interval for polling progress.
const POLL: Duration = Duration::from_millis(1);

/// What the handler does.
#[derive(Copy, Clone, Default)]
pub(crate) struct Work {
    /// Time that an attempt takes.
    pub(crate) time: Duration,
    /// Logs one line per attempt.
    pub(crate) logs: bool,
}

pub(crate) struct Product {
    pub(crate) endpoints: AsyncEndpoints,
    ran: Arc<AtomicU32>,
    working: Option<JoinHandle<()>>,
}

impl Product {
    /// Accepts jobs. `work` starts the worker.
    pub(crate) fn on(store: &Arc<dyn Store>, retention: Duration) -> Result<Self> {
        Self::with_telemetry(store, retention, None, Work::default())
    }

    /// Like `on`, with optional telemetry and another handler.
    pub(crate) fn with_telemetry(
        store: &Arc<dyn Store>,
        retention: Duration,
        telemetry: Option<&Telemetry>,
        work: Work,
    ) -> Result<Self> {
        let options = Options { concurrency: SLOTS, max_queue_size: u64::MAX, retention, ..Options::default() };
        let ran = Arc::new(AtomicU32::new(0));
        let count = ran.clone();
        let builder = AsyncEndpoints::builder(store.clone()).options(options);
        let builder = telemetry.into_iter().fold(builder, Builder::telemetry);
        let endpoints = builder
            .handler(NOOP, move |_: JobContext<String>| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    if !work.time.is_zero() {
                        tokio::time::sleep(work.time).await;
                    }
                    if work.logs {
                        tracing::info!(number, "job done");
                    }
                    Ok(())
                }
            })
            .build()?;
        Ok(Self { endpoints, ran, working: None })
    }

    pub(crate) fn work(&mut self) {
        let endpoints = self.endpoints.clone();
        self.working = Some(tokio::spawn(async move {
            endpoints.run().await.expect("the worker runs");
        }));
    }

    /// Submits jobs with concurrent callers, each with one call at a time.
    pub(crate) async fn submit(&self, jobs: u32) -> Result<()> {
        jobs::at_once(CALLERS, |caller| {
            let endpoints = self.endpoints.clone();
            async move {
                let request = jobs::request();
                for _ in 0..jobs::share(jobs, CALLERS, caller) {
                    endpoints.submit(NOOP, request.clone()).await?;
                }
                Ok(())
            }
        })
        .await
    }

    pub(crate) fn ran(&self) -> u32 {
        self.ran.load(Ordering::Relaxed)
    }

    /// Waits until this number of jobs have run.
    pub(crate) async fn until_ran(&self, jobs: u32) {
        while self.ran() < jobs {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until this number of jobs are settled. Queries the store only after all of them have run.
    pub(crate) async fn until_settled(&self, jobs: u32) -> Result<()> {
        self.until_ran(jobs).await;
        while jobs::count(&**self.endpoints.store(), JobStatus::Completed).await? < u64::from(jobs) {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.endpoints.shutdown();
        if let Some(working) = self.working {
            working.await?;
        }
        Ok(())
    }
}

/// Longer than any bench.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Jobs submitted per second, without a worker.
pub(crate) async fn submits(store: &Arc<dyn Store>, jobs: u32) -> Result<f64> {
    let product = Product::on(store, DAY)?;
    let began = Instant::now();
    product.submit(jobs).await?;
    Ok(per_second(jobs, began.elapsed()))
}

/// Jobs per second from submission to settlement.
pub(crate) async fn submit_to_settled(store: &Arc<dyn Store>, jobs: u32) -> Result<f64> {
    let mut product = Product::on(store, DAY)?;
    product.work();
    let began = Instant::now();
    product.submit(jobs).await?;
    product.until_settled(jobs).await?;
    let took = began.elapsed();
    product.stop().await?;
    Ok(per_second(jobs, took))
}

/// Result of draining a backlog.
pub(crate) struct Drained {
    pub(crate) per_second: f64,
    /// Growth of this process in MiB, from a tenth of the backlog to its end.
    pub(crate) growth: f64,
}

/// Runs this number of queued jobs.
pub(crate) async fn drain(store: &Arc<dyn Store>, jobs: u32) -> Result<Drained> {
    let mut product = Product::on(store, DAY)?;
    let began = Instant::now();
    product.work();
    product.until_ran(jobs / 10).await;
    let early = process::memory("self", "VmRSS")?;
    product.until_settled(jobs).await?;
    let took = began.elapsed();
    let late = process::memory("self", "VmRSS")?;
    product.stop().await?;
    Ok(Drained { per_second: per_second(jobs, took), growth: mib(late) - mib(early) })
}
