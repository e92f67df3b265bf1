//! Start, background tasks and shutdown.

use std::{io, sync::atomic::Ordering};

use async_endpoints_core::{JobName, StoreError};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::{sync::DropGuard, task::AbortOnDropHandle};

use super::AsyncEndpoints;
use crate::{
    server,
    telemetry::events,
    worker::{KeeperEnd, supervise},
};

impl AsyncEndpoints {
    /// Serves HTTP and runs jobs until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), then drains.
    ///
    /// From the stop request on, `/health/ready` answers 503. After
    /// [`Options::shutdown_delay`](crate::Options::shutdown_delay) the drain begins, and takes at most
    /// [`Options::shutdown`](crate::Options::shutdown). No jobs are accepted or started, and jobs can still be read. Running
    /// attempts may end, and the rest is released without using up a retry. A second signal ends the drain at once.
    ///
    /// When this returns, the worker has released the store. The store is closed with the last clone of these endpoints,
    /// or with the runtime.
    ///
    /// Dropping the future drains the worker in the background.
    ///
    /// # Errors
    ///
    /// Fails if the endpoints were started before, or if the worker's thread cannot be created.
    pub async fn serve(&self, listener: TcpListener, app: Router) -> io::Result<()> {
        let (_stop, keeper) = self.start()?;
        let (alerts, bulk) = (self.start_alerts(), self.start_bulk_runner());
        let worker = &self.0.worker;
        server::serve(listener, app, &self.0.options, worker.drained().clone(), worker.closed().clone()).await;
        worker.end(keeper).await;
        tokio::join!(alerts, bulk);
        Ok(())
    }

    /// Runs jobs until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), then drains as [`serve`](Self::serve) does. For a
    /// process without HTTP.
    pub async fn run(&self) -> io::Result<()> {
        let (_stop, keeper) = self.start()?;
        let (alerts, bulk) = (self.start_alerts(), self.start_bulk_runner());
        self.0.worker.drained().cancelled().await;
        self.0.worker.end(keeper).await;
        tokio::join!(alerts, bulk);
        Ok(())
    }

    /// Requests a drain, as SIGTERM does. [`serve`](Self::serve) and [`run`](Self::run) then return.
    ///
    /// If neither runs, because the routes are in a server of your own, this ends waiting requests and streams.
    pub fn shutdown(&self) {
        self.0.worker.stop();
        if !self.0.started.load(Ordering::Acquire) {
            self.0.worker.begin_drain();
            self.0.worker.drained().cancel();
        }
    }

    /// Runs jobs until none is runnable. For tests.
    ///
    /// On a [`MemoryStore`](crate::MemoryStore) with a manual clock, delayed jobs become runnable when the test advances
    /// the clock.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobStatus, JobType, JobLookup, MemoryStore};
    /// use async_endpoints_testkit::ManualClock;
    ///
    /// const FLAKY: JobType<(), ()> = JobType::new("Flaky");
    ///
    /// async fn second_time_lucky(ctx: JobContext<()>) -> Result<(), JobError> {
    ///     if ctx.attempt() == 1 { Err("not yet")? } else { Ok(()) }
    /// }
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let store = MemoryStore::with_clock(clock.clone());
    /// let endpoints = AsyncEndpoints::builder(store).handler(FLAKY, second_time_lucky).build()?;
    /// let id = endpoints.submit(FLAKY, ()).await?.job.id;
    /// endpoints.run_until_idle().await?; // fails, and is retried within two seconds
    /// clock.advance(Duration::from_secs(2));
    /// endpoints.run_until_idle().await?;
    /// let JobLookup::Found(job) = endpoints.job(id).await? else { panic!("not found") };
    /// assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2));
    /// # Ok(()) }
    /// ```
    pub async fn run_until_idle(&self) -> Result<(), StoreError> {
        self.0.worker.run_until_idle().await
    }

    /// Whether the drain has begun, which is [`Options::shutdown_delay`](crate::Options::shutdown_delay) after the stop
    /// request.
    pub fn is_shutting_down(&self) -> bool {
        self.0.worker.is_stopping()
    }

    /// Waits until the drain is over.
    pub(crate) async fn drained(&self) {
        self.0.worker.drained().cancelled().await;
    }

    /// Starts the worker. It drains when the guard is dropped.
    fn start(&self) -> io::Result<(DropGuard, KeeperEnd)> {
        if self.0.started.swap(true, Ordering::AcqRel) {
            return Err(io::Error::other("these endpoints were started before: build new ones to start again"));
        }
        self.start_background();
        self.0.health.start();
        let keeper = self.0.worker.start()?;
        Ok((self.0.worker.stopping().clone().drop_guard(), keeper))
    }

    /// Starts the background tasks unless they run already.
    ///
    /// They end with the last clone of these endpoints, or with the runtime that they were started on. In that case the
    /// next call starts them again.
    pub(super) fn start_background(&self) {
        let mut background = self.0.background.lock();
        if background.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (hub, store, worker) = (self.0.hub.clone(), self.0.store.clone(), self.0.worker.clone());
        let controls = self.0.controls.clone();
        // A scrape refreshes the cache itself; other readers of metrics cannot.
        let is_read_elsewhere = self.0.measured.telemetry.has_other_readers();
        let stats_cache = is_read_elsewhere.then(|| self.0.stats_cache.clone());
        *background = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let on_work = |name: Option<&JobName>| {
                if name.is_none_or(|name| worker.has_handler(name)) {
                    worker.wake();
                }
            };
            tokio::join!(
                supervise("hub", worker.restarts(), || hub.listen(&*store, on_work)),
                supervise("hub publish", worker.restarts(), || hub.publish_changes(&*store)),
                supervise("hub logs", worker.restarts(), || hub.publish_lines(&*store)),
                supervise("types", worker.restarts(), || {
                    controls.follow(|| worker.wake(), |error| events::store_failed("document", error))
                }),
                supervise("statistics", worker.restarts(), || async {
                    if let Some(cache) = &stats_cache {
                        cache.keep_fresh().await;
                    }
                }),
            );
        })));
    }
}
