//! A store that is not there when the process starts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

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
    AsyncEndpoints, DeferredStore, Endpoint, JobContext, JobType, MemoryStore, StoreError,
    core::{JobStore, store::Hint},
};
use async_endpoints_testkit::{Fixture, ManualClock, conformance};
use futures_util::StreamExt;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::{PATIENCE, TestStore, quick, routes, store};
use tokio::time::timeout;

/// A store that can be opened once somebody lets it.
#[derive(Clone, Default)]
struct Door {
    is_open: Arc<AtomicBool>,
    /// What a try finds that is final.
    broken: Arc<AtomicBool>,
    tries: Arc<AtomicU32>,
}

impl Door {
    async fn store(&self, behind: TestStore) -> DeferredStore {
        let door = self.clone();
        let open = move || {
            door.tries.fetch_add(1, Ordering::SeqCst);
            ready(match (door.is_open.load(Ordering::SeqCst), door.broken.load(Ordering::SeqCst)) {
                (_, true) => Err(StoreError::Corrupt("a hole".to_owned())),
                (true, _) => Ok(behind.clone()),
                _ => Err(StoreError::Unavailable("the door is shut".to_owned())),
            })
        };
        DeferredStore::open(open, StoreError::is_transient).await.unwrap()
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// Waits for another try.
    async fn tried(&self) {
        let before = self.tries.load(Ordering::SeqCst);
        until(|| self.tries.load(Ordering::SeqCst) > before).await;
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it never comes");
}

async fn at_once() -> Fixture {
    let clock = ManualClock::new();
    let memory = Arc::new(MemoryStore::with_clock(clock.clone()));
    let open = move || ready(Ok::<_, StoreError>(memory.clone()));
    Fixture::manual(DeferredStore::open(open, StoreError::is_transient).await.unwrap(), clock)
}

/// Opened at the second try, by its own task.
async fn later() -> Fixture {
    let (clock, tries) = (ManualClock::new(), Arc::new(AtomicU32::new(0)));
    let memory = Arc::new(MemoryStore::with_clock(clock.clone()));
    let counted = tries.clone();
    let open = move || {
        let is_second = counted.fetch_add(1, Ordering::SeqCst) == 1;
        ready(if is_second { Ok(memory.clone()) } else { Err(StoreError::Unavailable("not yet".to_owned())) })
    };
    let late = DeferredStore::open(open, StoreError::is_transient).await.unwrap();
    until(|| late.is_open()).await;
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    Fixture::manual(late, clock)
}

conformance!(behind_late, at_once());
conformance!(behind_later, later());

#[tokio::test]
async fn until_it_is_open_every_call_says_so_and_why() {
    let door = Door::default();
    let late = door.store(store()).await;
    let said = late.probe().await.unwrap_err();
    assert!(said.is_transient(), "{said}");
    assert_eq!(
        said.to_string(),
        "the store is unavailable: it is not open yet: the store is unavailable: the door is shut"
    );
    assert!(late.prune(1).await.unwrap_err().is_transient() && !late.is_open());
    door.open();
    until(|| late.is_open()).await;
    late.probe().await.unwrap();
}

#[tokio::test]
async fn a_listener_of_before_hears_what_comes_after() {
    let door = Door::default();
    let late = door.store(store()).await;
    let mut hints = late.hints();
    assert!(timeout(Duration::from_millis(20), hints.next()).await.is_err(), "nothing to tell yet");
    door.open();
    assert_eq!(timeout(PATIENCE, hints.next()).await.unwrap(), Some(Hint::Lagged));
    const WORK: JobType<(), ()> = JobType::new("Work");
    let endpoints = AsyncEndpoints::builder(late).build().unwrap();
    endpoints.submit(WORK, ()).await.unwrap();
    let told = async { while !matches!(hints.next().await.unwrap(), Hint::Work(name) if name.as_str() == "Work") {} };
    timeout(PATIENCE, told).await.expect("it is told");
}

#[tokio::test]
async fn dropping_it_ends_the_tries_and_the_hints() {
    let door = Door::default();
    let late = door.store(store()).await;
    door.tried().await;
    let mut hints = late.hints();
    drop(late);
    assert_eq!(timeout(PATIENCE, hints.next()).await.unwrap(), None);
    // The task had what opens the door.
    until(|| Arc::strong_count(&door.tries) == 1).await;
}

#[tokio::test]
async fn a_final_error_of_the_first_try_comes_back() {
    let open = || ready(Err::<MemoryStore, _>(StoreError::Corrupt("a hole".to_owned())));
    let refusal = DeferredStore::open(open, StoreError::is_transient).await.unwrap_err();
    assert!(matches!(refusal.downcast_ref(), Some(StoreError::Corrupt(why)) if why == "a hole"));
}

#[tokio::test]
async fn a_final_error_later_ends_the_tries_and_is_told_to_all_who_wait() {
    let door = Door::default();
    let late = door.store(store()).await;
    assert!(timeout(Duration::from_millis(20), late.refused()).await.is_err(), "it may yet open");
    let breaking = async {
        door.broken.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    };
    let told = async { tokio::join!(late.refused(), late.refused()) };
    let (one, two) = tokio::select! {
        told = timeout(PATIENCE, told) => told.unwrap(),
        () = breaking => unreachable!("it never ends"),
    };
    assert!(Arc::ptr_eq(&one, &two) && one.to_string().contains("a hole"));
    assert_eq!(late.refused().await.to_string(), one.to_string(), "also to who asks later");
    let said = late.probe().await.unwrap_err();
    assert!(said.is_transient() && said.to_string().contains("it cannot be opened: "), "{said}");
    assert_eq!(Arc::strong_count(&door.tries), 1, "nobody tries any more");
}

#[tokio::test]
async fn a_try_that_panics_is_a_try_that_failed() {
    let tries = AtomicU32::new(0);
    let open = move || {
        assert!(tries.fetch_add(1, Ordering::SeqCst) > 0, "not at the first time");
        ready(Ok::<_, StoreError>(MemoryStore::new()))
    };
    let late = DeferredStore::open(open, StoreError::is_transient).await.unwrap();
    assert!(late.probe().await.unwrap_err().to_string().contains("not at the first time"));
    until(|| late.is_open()).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_try_is_not_waited_for_and_not_given_up() {
    let (tries, began) = (Arc::new(AtomicU32::new(0)), tokio::time::Instant::now());
    let counted = tries.clone();
    let open = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok::<_, StoreError>(MemoryStore::new())
        }
    };
    let late = DeferredStore::open(open, StoreError::is_transient).await.unwrap();
    assert_eq!((began.elapsed().as_secs(), late.is_open()), (2, false));
    assert_eq!(late.probe().await.unwrap_err().to_string(), "the store is unavailable: it is not open yet");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!((late.is_open(), tries.load(Ordering::SeqCst)), (true, 1));
}

#[tokio::test]
async fn a_service_listens_before_its_store_is_there_and_works_once_it_is() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let (door, behind, ran) = (Door::default(), store(), Arc::new(Mutex::new(Vec::new())));
    let runs = ran.clone();
    let endpoints = AsyncEndpoints::builder(door.store(behind.clone()).await)
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
    assert!(began.elapsed() < Duration::from_secs(5));

    door.open();
    let job = timeout(PATIENCE, async {
        loop {
            let answer = submit().send().await.unwrap();
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(answer.status(), StatusCode::OK, "the wait sees the end");
                return answer.json::<Value>().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let job = job.await.expect("it works");
    assert_eq!((&job["status"], &job["result"], &job["attempt"]), (&json!("Completed"), &json!(7), &json!(1)));
    let events = client.get(format!("{url}{}/events", job["links"]["self"].as_str().unwrap())).send().await.unwrap();
    assert!(events.text().await.unwrap().contains("Completed"));
    assert_eq!(*ran.lock().unwrap(), [7]);
    endpoints.shutdown();
    serving.await.unwrap().unwrap();
    behind.verify().await;
}

#[tokio::test]
async fn a_service_whose_store_never_comes_stops_at_once() {
    let endpoints = AsyncEndpoints::builder(Door::default().store(store()).await)
        .handler(JobType::<(), ()>::new("Work"), |_| ready(Ok(())))
        .build()
        .unwrap();
    let (running, began) = (endpoints.clone(), Instant::now());
    let running = tokio::spawn(async move { running.run().await });
    endpoints.shutdown();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// An error whose own code fails.
#[derive(Debug)]
struct Trap;

impl std::fmt::Display for Trap {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("it cannot be said")
    }
}

impl std::error::Error for Trap {}

#[tokio::test]
async fn what_panics_about_an_error_is_tried_again() {
    for judge in [|_: &Trap| true, |_: &Trap| panic!("it cannot be judged")] {
        let tries = AtomicU32::new(0);
        let open = move || {
            let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            ready(if is_first { Err(Trap) } else { Ok(MemoryStore::new()) })
        };
        let late = DeferredStore::open(open, judge).await.unwrap();
        let why = late.probe().await.expect_err("it is not open").to_string();
        assert!(why.contains("opening it panicked: it cannot be"), "{why}");
        until(|| late.is_open()).await;
    }
}
