//! A test application served over HTTP on a free port, with a store that checks the invariants at the end.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[cfg(feature = "dashboard")]
pub mod dashboard;
pub mod hooked;
pub mod subscriber;

use std::{sync::Arc, time::Duration};

use async_endpoints::{Access, AsyncEndpoints, Builder, JobId, JobLookup, JobView, MemoryStore, Options};
use async_endpoints_testkit::{Checked, FlakyStore};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;

pub type TestStore = Arc<Checked<MemoryStore>>;

/// Timeout of single steps. Reaching it fails the test.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn store() -> TestStore {
    Arc::new(Checked::new(MemoryStore::new()))
}

/// A store with injected faults, and the store inside it.
pub fn flaky_store() -> (TestStore, Arc<FlakyStore>) {
    let inner = store();
    (inner.clone(), Arc::new(FlakyStore::new(Arc::new(inner))))
}

/// Waits until a condition holds.
pub async fn until(condition: impl AsyncFn() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("the condition holds in time");
}

/// Options for tests: quick retries, and leases that are short, but longer than a busy machine pauses.
pub fn quick() -> Options {
    Options {
        concurrency: 8,
        lease: Duration::from_secs(2),
        retry_base: Duration::from_millis(20),
        shutdown: Duration::from_secs(5),
        ..Options::default()
    }
}

/// A builder that allows requests of this machine to use operator routes.
pub fn builder(store: &TestStore) -> Builder {
    AsyncEndpoints::builder(store.clone()).options(quick()).access(Access::loopback())
}

pub struct Service {
    pub endpoints: AsyncEndpoints,
    pub client: Client,
    url: String,
    pub store: TestStore,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Serves the endpoints that `build` declares.
    pub async fn start(build: impl FnOnce(Builder) -> Builder) -> Self {
        let store = store();
        let endpoints = build(builder(&store)).build().unwrap();
        Self::serve(store, endpoints).await
    }

    pub async fn serve(store: TestStore, endpoints: AsyncEndpoints) -> Self {
        let app = routes(&endpoints);
        Self::serve_app(store, endpoints, app).await
    }

    pub async fn serve_app(store: TestStore, endpoints: AsyncEndpoints, app: axum::Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = endpoints.clone();
        let serving = tokio::spawn(async move { served.serve(listener, app).await });
        Self { endpoints, client: Client::new(), url, store, serving }
    }

    /// The address that the server listens on.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(self.url(path)).json(&body).send().await.unwrap()
    }

    /// Submits a job that must be accepted.
    pub async fn submit(&self, path: &str, body: Value) -> JobId {
        let response = self.post(path, body).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap()
    }

    /// Reads a job over HTTP.
    pub async fn job(&self, id: JobId) -> Value {
        let response = self.client.get(self.url(&format!("/jobs/{id}"))).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// Waits for the end of a job, then reads it over HTTP.
    pub async fn ended(&self, id: JobId) -> Value {
        ended(&self.endpoints, id).await;
        self.job(id).await
    }

    pub async fn cancel(&self, id: JobId) -> (StatusCode, Value) {
        let response = self.client.post(self.url(&format!("/jobs/{id}/cancel"))).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Shuts down as SIGTERM does, and checks the invariants.
    pub async fn stop(self) {
        self.endpoints.shutdown();
        self.serving.await.unwrap().unwrap();
        self.store.verify().await;
    }
}

/// The submit routes and the job routes.
pub fn routes(endpoints: &AsyncEndpoints) -> axum::Router {
    axum::Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes())
}

/// Waits for the end of a job.
pub async fn ended(endpoints: &AsyncEndpoints, id: JobId) -> JobView {
    match endpoints.wait(id, PATIENCE).await.unwrap() {
        JobLookup::Found(job) if job.status.is_terminal() => *job,
        other => panic!("not ended: {other:?}"),
    }
}

/// Reads a job that must exist.
pub async fn found(endpoints: &AsyncEndpoints, id: JobId) -> JobView {
    match endpoints.job(id).await.unwrap() {
        JobLookup::Found(job) => *job,
        other => panic!("not found: {other:?}"),
    }
}

/// Runs endpoints on a runtime of their own with this many threads, like a separate process, until dropped.
pub struct Process {
    pub endpoints: AsyncEndpoints,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub fn start(endpoints: AsyncEndpoints, threads: usize) -> Self {
        let runs = endpoints.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        let thread = std::thread::spawn(move || {
            let running = runtime.spawn(async move { runs.run().await });
            runtime.block_on(running).unwrap().unwrap();
            runtime.shutdown_background();
        });
        Self { endpoints, thread: Some(thread) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.endpoints.shutdown();
        if let Some(Err(panic)) = self.thread.take().map(std::thread::JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Endpoints without handlers, for reading jobs.
pub fn watch(store: &TestStore) -> AsyncEndpoints {
    builder(store).build().unwrap()
}
