//! Services for tests: real AsyncEndpoints applications on free ports, with proxies as layers in front of them.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod proxy;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_endpoints::{AsyncEndpoints, Builder, Endpoint, JobContext, JobError, JobType, MemoryStore, Options, Store};
use async_endpoints_client::{Client, Retries};
use axum::Router;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Fails the test if the future takes too long.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("timeout after {TIMEOUT:?}"))
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) pages: u64,
}

#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Printed {
    pub(crate) pages: u64,
}

const PRINT: JobType<Order, Printed> = JobType::new("Print");
const REFUSE: JobType<Order, Printed> = JobType::new("Refuse");
const NOTHING: JobType<(), ()> = JobType::new("Nothing");
const WAITING: JobType<(), ()> = JobType::new("Waiting");

/// Lets the handler of `Print` print. Each page needs one permit.
#[derive(Clone)]
pub(crate) struct Paper(pub(crate) Arc<Semaphore>);

impl Paper {
    pub(crate) fn sheets(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    pub(crate) fn add(&self, sheets: usize) {
        self.0.add_permits(sheets);
    }
}

/// The endpoints and handlers of all tests.
pub(crate) fn endpoints(store: impl Store, paper: Paper) -> AsyncEndpoints {
    let options = Options { lease: Duration::from_secs(2), shutdown: Duration::from_secs(1), ..Options::default() };
    let builder: Builder = AsyncEndpoints::builder(store).options(options);
    builder
        .endpoint(Endpoint::post("/api/print", PRINT))
        .endpoint(Endpoint::post("/api/refuse", REFUSE))
        .endpoint(Endpoint::put("/api/nothing", NOTHING))
        .endpoint(Endpoint::post("/api/waiting", WAITING))
        .handler(PRINT, move |ctx: JobContext<Order>| {
            let paper = paper.clone();
            async move {
                let pages = ctx.request().pages;
                for page in 1..=pages {
                    tokio::select! {
                        sheet = paper.0.acquire() => sheet?.forget(),
                        () = ctx.cancellation().cancelled() => return Err(ctx.check_canceled().unwrap_err()),
                    }
                    ctx.progress().set(page, pages);
                }
                Ok(Printed { pages })
            }
        })
        .handler(REFUSE, async |ctx: JobContext<Order>| -> Result<Printed, JobError> {
            let detail = format!("{} pages are too many.", ctx.request().pages);
            Err(JobError::permanent("TOO_MANY_PAGES", detail).status(409))
        })
        .handler(NOTHING, async |_: JobContext<()>| Ok(()))
        .build()
        .expect("valid endpoints")
}

/// A running service.
pub(crate) struct Service {
    pub(crate) endpoints: AsyncEndpoints,
    pub(crate) address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Serves all endpoints with jobs in memory.
    pub(crate) async fn start(paper: Paper) -> Self {
        Self::behind(paper, |app| app).await
    }

    /// The same behind a proxy.
    pub(crate) async fn behind(paper: Paper, proxy: impl FnOnce(Router) -> Router) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::serve(endpoints(MemoryStore::new(), paper), address, proxy).await
    }

    pub(crate) async fn serve(
        endpoints: AsyncEndpoints,
        address: SocketAddr,
        proxy: impl FnOnce(Router) -> Router,
    ) -> Self {
        let app = proxy(Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes()));
        let listener = TcpListener::bind(address).await.expect("a free address");
        let address = listener.local_addr().expect("an address");
        let serves = endpoints.clone();
        let serving = tokio::spawn(async move { serves.serve(listener, app).await });
        Self { endpoints, address, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that does not wait long before it repeats a request.
    pub(crate) fn client(&self) -> Client {
        let retries = Retries { first_delay: Duration::from_millis(10), ..Retries::default() };
        Client::builder(&self.url()).retries(retries).build().expect("a client")
    }

    /// Stops as after SIGTERM.
    pub(crate) async fn stop(self) {
        self.endpoints.shutdown();
        in_time(self.serving).await.expect("no panic").expect("no error");
    }
}

/// What a proxy saw.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn push(&self, request: String) {
        self.0.lock().expect("no panic").push(request);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}
