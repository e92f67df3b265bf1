//! A store that is down when the process starts.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    Access, AsyncEndpoints, DeferredStore, Endpoint, JobContext, JobType, MemoryStore, StoreError,
    core::{JobStore, store::Hint},
};
use async_endpoints_testkit::{Fixture, ManualClock, conformance};
use futures_util::StreamExt;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::{PATIENCE, TestStore, quick, routes, store, until};
use tokio::time::timeout;

/// A store server that the test starts.
#[derive(Clone, Default)]
struct Server {
    is_up: Arc<AtomicBool>,
    /// The next try fails permanently.
    is_corrupt: Arc<AtomicBool>,
    tries: Arc<AtomicU32>,
}

impl Server {
    /// A deferred store that opens `inner` once the server is up.
    async fn store(&self, inner: TestStore) -> DeferredStore {
        let server = self.clone();
        let open = move || {
            server.tries.fetch_add(1, Ordering::SeqCst);
            ready(match (server.is_up.load(Ordering::SeqCst), server.is_corrupt.load(Ordering::SeqCst)) {
                (_, true) => Err(StoreError::Corrupt("bad page".to_owned())),
                (true, _) => Ok(inner.clone()),
                _ => Err(StoreError::Unavailable("connection refused".to_owned())),
            })
        };
        DeferredStore::open(open, StoreError::is_transient).await.unwrap()
    }

    fn start(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }

    /// Waits for the next try.
    async fn next_try(&self) {
        let before = self.tries.load(Ordering::SeqCst);
        until(async || self.tries.load(Ordering::SeqCst) > before).await;
    }
}

async fn opened_at_first_try() -> Fixture {
    let clock = ManualClock::new();
    let memory = Arc::new(MemoryStore::with_clock(clock.clone()));
    let open = move || ready(Ok::<_, StoreError>(memory.clone()));
    Fixture::manual(DeferredStore::open(open, StoreError::is_transient).await.unwrap(), clock)
}

async fn opened_at_second_try() -> Fixture {
    let (clock, tries) = (ManualClock::new(), Arc::new(AtomicU32::new(0)));
    let memory = Arc::new(MemoryStore::with_clock(clock.clone()));
    let counted = tries.clone();
    let open = move || {
        let is_second = counted.fetch_add(1, Ordering::SeqCst) == 1;
        ready(if is_second { Ok(memory.clone()) } else { Err(StoreError::Unavailable("not yet".to_owned())) })
    };
    let deferred = DeferredStore::open(open, StoreError::is_transient).await.unwrap();
    until(async || deferred.is_open()).await;
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    Fixture::manual(deferred, clock)
}

conformance!(first_try, opened_at_first_try());
conformance!(second_try, opened_at_second_try());

#[tokio::test]
async fn call_before_opening_is_unavailable() {
    let server = Server::default();
    let deferred = server.store(store()).await;
    let error = deferred.probe().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(
        error.to_string(),
        "the store is unavailable: it is not open yet: the store is unavailable: connection refused"
    );
    assert!(deferred.prune(1).await.unwrap_err().is_transient() && !deferred.is_open());
    server.start();
    until(async || deferred.is_open()).await;
    deferred.probe().await.unwrap();
}

#[tokio::test]
async fn hints_from_before_opening_begin_with_lagged() {
    let server = Server::default();
    let deferred = server.store(store()).await;
    let mut hints = deferred.hints();
    assert!(timeout(Duration::from_millis(20), hints.next()).await.is_err(), "no hint before the opening");
    server.start();
    assert_eq!(timeout(PATIENCE, hints.next()).await.unwrap(), Some(Hint::Lagged));
    const WORK: JobType<(), ()> = JobType::new("Work");
    let endpoints = AsyncEndpoints::builder(deferred).build().unwrap();
    endpoints.submit(WORK, ()).await.unwrap();
    let hinted = async { while !matches!(hints.next().await.unwrap(), Hint::Work(name) if name.as_str() == "Work") {} };
    timeout(PATIENCE, hinted).await.expect("a work hint");
}

#[tokio::test]
async fn drop_ends_tries_and_hints() {
    let server = Server::default();
    let deferred = server.store(store()).await;
    server.next_try().await;
    let mut hints = deferred.hints();
    drop(deferred);
    assert_eq!(timeout(PATIENCE, hints.next()).await.unwrap(), None);
    // The task owned the closure that opens the store.
    until(async || Arc::strong_count(&server.tries) == 1).await;
}

#[tokio::test]
async fn permanent_error_of_first_try_is_returned() {
    let open = || ready(Err::<MemoryStore, _>(StoreError::Corrupt("bad page".to_owned())));
    let refusal = DeferredStore::open(open, StoreError::is_transient).await.unwrap_err();
    assert!(matches!(refusal.downcast_ref(), Some(StoreError::Corrupt(why)) if why == "bad page"));
}

#[tokio::test]
async fn permanent_error_later_ends_tries() {
    let server = Server::default();
    let deferred = server.store(store()).await;
    assert!(timeout(Duration::from_millis(20), deferred.refused()).await.is_err(), "no permanent error yet");
    let breaking = async {
        server.is_corrupt.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    };
    let refused = async { tokio::join!(deferred.refused(), deferred.refused()) };
    let (one, two) = tokio::select! {
        refused = timeout(PATIENCE, refused) => refused.unwrap(),
        () = breaking => unreachable!("a pending future"),
    };
    assert!(Arc::ptr_eq(&one, &two) && one.to_string().contains("bad page"));
    assert_eq!(deferred.refused().await.to_string(), one.to_string(), "also for a later call");
    let error = deferred.probe().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("it cannot be opened: "), "{error}");
    assert_eq!(Arc::strong_count(&server.tries), 1, "the task has ended");
}

#[tokio::test]
async fn panicking_try_is_repeated() {
    let tries = AtomicU32::new(0);
    let open = move || {
        assert!(tries.fetch_add(1, Ordering::SeqCst) > 0, "first try");
        ready(Ok::<_, StoreError>(MemoryStore::new()))
    };
    let deferred = DeferredStore::open(open, StoreError::is_transient).await.unwrap();
    assert!(deferred.probe().await.unwrap_err().to_string().contains("first try"));
    until(async || deferred.is_open()).await;
}

#[tokio::test(start_paused = true)]
async fn slow_first_try_continues_in_background() {
    let (tries, began) = (Arc::new(AtomicU32::new(0)), tokio::time::Instant::now());
    let counted = tries.clone();
    let open = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok::<_, StoreError>(MemoryStore::new())
        }
    };
    let deferred = DeferredStore::open(open, StoreError::is_transient).await.unwrap();
    assert_eq!((began.elapsed().as_secs(), deferred.is_open()), (2, false));
    assert_eq!(deferred.probe().await.unwrap_err().to_string(), "the store is unavailable: it is not open yet");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!((deferred.is_open(), tries.load(Ordering::SeqCst)), (true, 1));
}

#[tokio::test]
async fn service_listens_before_store_is_open() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let (server, inner, ran) = (Server::default(), store(), Arc::new(Mutex::new(Vec::new())));
    let runs = ran.clone();
    let endpoints = AsyncEndpoints::builder(server.store(inner.clone()).await)
        .access(Access::loopback())
        .options(quick())
        .endpoint(Endpoint::post("/work", WORK))
        .handler(WORK, move |ctx: JobContext<u32>| {
            runs.lock().unwrap().push(*ctx.request());
            ready(Ok(*ctx.request()))
        })
        .build()
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (served, app) = (endpoints.clone(), routes(&endpoints));
    let serving = tokio::spawn(async move { served.serve(listener, app).await });
    let client = Client::new();
    let submit =
        || client.post(format!("{url}/work")).json(&7).header("idempotency-key", "k").header("prefer", "wait=20");

    let began = Instant::now();
    let unknown = format!("{url}/jobs/{}", async_endpoints::JobId::random());
    for request in
        [submit(), client.get(&unknown), client.get(format!("{unknown}/events")), client.get(format!("{url}/jobs"))]
    {
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "STORE_UNAVAILABLE");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

    server.start();
    let job = timeout(PATIENCE, async {
        loop {
            let answer = submit().send().await.unwrap();
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(answer.status(), StatusCode::OK, "the wait returns the ended job");
                return answer.json::<Value>().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let job = job.await.expect("the job is accepted");
    assert_eq!((&job["status"], &job["result"], &job["attempt"]), (&json!("Completed"), &json!(7), &json!(1)));
    let events = client.get(format!("{url}{}/events", job["links"]["self"].as_str().unwrap())).send().await.unwrap();
    assert!(events.text().await.unwrap().contains("Completed"));
    assert_eq!(*ran.lock().unwrap(), [7]);
    endpoints.shutdown();
    serving.await.unwrap().unwrap();
    inner.verify().await;
}

#[tokio::test]
async fn service_without_store_stops() {
    let endpoints = AsyncEndpoints::builder(Server::default().store(store()).await)
        .handler(JobType::<(), ()>::new("Work"), |_| ready(Ok(())))
        .build()
        .unwrap();
    let (running, began) = (endpoints.clone(), Instant::now());
    let running = tokio::spawn(async move { running.run().await });
    endpoints.shutdown();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
