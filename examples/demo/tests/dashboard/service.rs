//! A service in this process: its store can have an outage, and it can be put under load.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, JobContext, JobError, JobType, MemoryStore,
    axum::{
        Router,
        extract::Path,
        routing::{get, post},
    },
};
use async_endpoints_testkit::FlakyStore;
use tokio::{net::TcpListener, task::JoinHandle};

const WORK: JobType<(), ()> = JobType::new("Work");
const WAIT: JobType<(), ()> = JobType::new("Wait");

/// Between two bursts of changes.
const TICK: Duration = Duration::from_millis(20);

pub(crate) struct Service {
    endpoints: AsyncEndpoints,
    url: String,
    serving: JoinHandle<io::Result<()>>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let store = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let builder = AsyncEndpoints::builder(store.clone()).access(Access::loopback());
        let builder = builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work).handled_elsewhere(WAIT);
        let endpoints = builder.build().expect("valid endpoints");
        let loaded = endpoints.clone();
        let app = Router::new()
            .merge(endpoints.submit_routes())
            .merge(endpoints.job_routes())
            .merge(endpoints.monitoring_routes())
            .merge(endpoints.dashboard_routes())
            .route("/outage/{is_out}", post(async move |Path(is_out): Path<bool>| store.outage(is_out)))
            .route("/load/{seconds}", post(async move |Path(seconds)| load(loaded, seconds).await))
            .route("/elsewhere", get(async |query: axum::extract::RawQuery| link(&query.0.unwrap_or_default())));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = endpoints.clone();
        let serving = tokio::spawn(async move { served.serve(listener, app).await });
        Self { endpoints, url, serving }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn stop(self) {
        self.endpoints.shutdown();
        self.served().await;
    }

    /// Waits for the end, which SIGINT and SIGTERM begin.
    pub(crate) async fn served(self) {
        self.serving.await.expect("no panic").expect("an exit");
    }
}

async fn work(_: JobContext<()>) -> Result<(), JobError> {
    Ok(())
}

/// A page with a link to this address. Opened under another host name, it is another site.
fn link(address: &str) -> axum::response::Html<String> {
    axum::response::Html(format!("<!doctype html><title>Elsewhere</title><a href=\"{address}\">The job</a>"))
}

/// Accepts and cancels 2 500 jobs a second. Returns the number of changes a second that it made.
async fn load(endpoints: AsyncEndpoints, seconds: u64) -> String {
    let (begun, span) = (Instant::now(), Duration::from_secs(seconds));
    let (mut ticks, mut changes) = (0, 0);
    while begun.elapsed() < span {
        for _ in 0..50 {
            let job = endpoints.submit(WAIT, ()).await.expect("memory answers").job;
            endpoints.cancel(job.id).await.expect("memory answers");
            changes += 2;
        }
        ticks += 1;
        tokio::time::sleep((TICK * ticks).saturating_sub(begun.elapsed())).await;
    }
    format!("{:.0}", f64::from(changes) / begun.elapsed().as_secs_f64())
}
