//! The worker with handlers that end in time, block, hang, or are canceled.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, Builder, Endpoint, JobContext, JobError, JobLookup, JobStatus, JobType, MemoryStore, Options,
    Priority,
    core::store::{StatsQuery, StoreOperation},
};
use async_endpoints_testkit::When;
use reqwest::StatusCode;
use serde_json::json;
use support::{PATIENCE, Process, Service, TestStore, ended, flaky_store, quick, store, until, watch};
use tokio::sync::{Notify, Semaphore, mpsc};

/// The lease of tests whose handlers run longer than a lease.
const LEASE: Duration = Duration::from_secs(1);

/// A builder with this lease.
fn builder(store: &TestStore) -> Builder {
    support::builder(store).options(Options { lease: LEASE, ..quick() })
}

#[tokio::test]
async fn long_handler_keeps_its_lease() {
    const LONG: JobType<(), u32> = JobType::new("Long");
    let store = store();
    let build = || {
        let long = async |_: JobContext<()>| {
            tokio::time::sleep(2 * LEASE).await;
            Ok(1)
        };
        builder(&store).handler(LONG, long).build().unwrap()
    };
    let (first, second) = (Process::start(build(), 2), Process::start(build(), 2));
    let id = first.endpoints.submit(LONG, ()).await.unwrap().job.id;
    let job = ended(&second.endpoints, id).await;
    assert_eq!((job.status, job.attempt, job.loss_count), (JobStatus::Completed, 1, 0));
    drop((first, second));
    store.verify().await;
}

#[tokio::test]
async fn handler_blocking_all_threads_keeps_its_lease() {
    const BLOCK: JobType<(), ()> =
        JobType::new("Block").retry(async_endpoints::RetryPolicy::Custom(|_| Duration::ZERO));
    let store = store();
    let build = || {
        let block = async |_: JobContext<()>| {
            std::thread::sleep(2 * LEASE);
            Ok(())
        };
        builder(&store).handler(BLOCK, block).build().unwrap()
    };
    let (first, second) = (Process::start(build(), 2), Process::start(build(), 2));
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(first.endpoints.submit(BLOCK, ()).await.unwrap().job.id);
    }
    for id in ids {
        let JobLookup::Found(job) = watch(&store).wait(id, PATIENCE).await.unwrap() else { panic!("not found") };
        assert_eq!((job.status, job.attempt, job.loss_count), (JobStatus::Completed, 1, 0));
    }
    drop((first, second));
    store.verify().await;
}

#[tokio::test]
async fn blocked_handler_times_out_and_leaks_its_slot() {
    const STUCK: JobType<(), ()> = JobType::new("Stuck").timeout(Duration::from_millis(200)).max_retries(0);
    let store = store();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let endpoints = support::builder(&store)
        .handler(STUCK, move |_: JobContext<()>| {
            let wait = wait.clone();
            async move {
                let _ = wait.lock().unwrap().recv(); // blocks the runtime thread
                Ok(())
            }
        })
        .build()
        .unwrap();
    let process = Process::start(endpoints, 2);
    let id = process.endpoints.submit(STUCK, ()).await.unwrap().job.id;
    let job = ended(&watch(&store), id).await;
    assert_eq!((job.status, job.error.unwrap().code.as_ref()), (JobStatus::Failed, "JOB_TIMEOUT"));
    assert_eq!(process.endpoints.worker_status().slots.leaked, 1);
    release.send(()).unwrap();
    until(async || process.endpoints.worker_status().slots.leaked == 0).await;
    drop(process);
    store.verify().await;
}

#[tokio::test]
async fn blocking_handler_times_out_and_leaks_its_slot() {
    const STUCK: JobType<(), ()> = JobType::new("Stuck").timeout(Duration::from_millis(200)).max_retries(0);
    let store = store();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let endpoints = support::builder(&store)
        .blocking_handler(STUCK, move |_| {
            let _ = wait.lock().unwrap().recv();
            Ok(())
        })
        .build()
        .unwrap();
    let process = Process::start(endpoints, 2);
    let id = process.endpoints.submit(STUCK, ()).await.unwrap().job.id;
    let job = ended(&process.endpoints, id).await;
    assert_eq!(job.error.unwrap().code, "JOB_TIMEOUT");
    assert_eq!(process.endpoints.worker_status().slots.leaked, 1);
    release.send(()).unwrap();
    drop(process);
    store.verify().await;
}

#[tokio::test]
async fn timeout_fires_token_and_is_retried() {
    const SLOW: JobType<(), u32> = JobType::new("Slow").timeout(Duration::from_millis(100));
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/slow", SLOW)).handler(SLOW, async |ctx: JobContext<()>| {
            if ctx.attempt() == 1 {
                ctx.cancellation().cancelled().await;
                ctx.check_canceled()?;
            }
            Ok(ctx.attempt())
        })
    })
    .await;
    let job = service.ended(service.submit("/slow", json!(null)).await).await;
    assert_eq!((&job["status"], &job["result"], &job["retryCount"]), (&json!("Completed"), &json!(2), &json!(1)));
    let error = &job["attempts"][0]["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!("JOB_TIMEOUT"), &json!(504)));
    service.stop().await;
}

#[tokio::test]
async fn cancel_ends_queued_and_running_jobs() {
    const WORK: JobType<String, String> = JobType::new("Work").concurrency(3);
    const QUEUED: JobType<(), ()> = JobType::new("WithoutHandler");
    let (started, mut starts) = mpsc::unbounded_channel();
    let finish = Arc::new(Notify::new());
    let (handler_finish, dropped) = (finish.clone(), Arc::new(AtomicU32::new(0)));
    let drops = dropped.clone();
    struct CountDrop(Arc<AtomicU32>);
    impl Drop for CountDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/work", WORK)).endpoint(Endpoint::post("/queued", QUEUED)).handler(
            WORK,
            move |ctx: JobContext<String>| {
                let (started, finish, drops) = (started.clone(), handler_finish.clone(), drops.clone());
                async move {
                    let _count = CountDrop(drops);
                    started.send(ctx.job_id()).unwrap();
                    match ctx.request().as_str() {
                        "polite" => {
                            ctx.cancellation().cancelled().await;
                            Err(JobError::canceled())
                        }
                        "finishes" => {
                            ctx.cancellation().cancelled().await;
                            finish.notified().await;
                            Ok("done anyway".to_owned())
                        }
                        _ => std::future::pending().await,
                    }
                }
            },
        )
    })
    .await;

    let queued = service.submit("/queued", json!(null)).await;
    assert_eq!(service.job(queued).await["waiting"]["reason"], "noWorker");
    let (status, job) = service.cancel(queued).await;
    assert_eq!(
        (status, &job["status"], &job["error"]["code"]),
        (StatusCode::OK, &json!("Canceled"), &json!("JOB_CANCELED"))
    );
    assert_eq!(service.cancel(queued).await.0, StatusCode::CONFLICT);

    let polite = service.submit("/work", json!("polite")).await;
    let finishes = service.submit("/work", json!("finishes")).await;
    let stubborn = service.submit("/work", json!("stubborn")).await;
    for _ in 0..3 {
        starts.recv().await.unwrap();
    }
    let asked = Instant::now();
    for id in [polite, finishes, stubborn] {
        let (status, job) = service.cancel(id).await;
        assert_eq!((status, &job["status"]), (StatusCode::ACCEPTED, &json!("InProgress")));
        assert!(job["cancelRequestedAt"].is_string());
    }
    assert_eq!(service.ended(polite).await["status"], "Canceled");
    assert!(asked.elapsed() < Duration::from_secs(5), "the token fired after {:?}", asked.elapsed());
    finish.notify_one();
    let job = service.ended(finishes).await;
    assert_eq!((&job["status"], &job["result"]), (&json!("Completed"), &json!("done anyway")));
    let job = service.ended(stubborn).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("Canceled"), &json!(1)));
    assert!(asked.elapsed() >= Duration::from_secs(5), "aborted after {:?}", asked.elapsed());
    assert_eq!(dropped.load(Ordering::SeqCst), 3, "an aborted handler is dropped");
    service.stop().await;
}

#[tokio::test]
async fn concurrency_limit_and_priority_are_kept() {
    const NARROW: JobType<u32, ()> = JobType::new("Narrow").concurrency(2);
    let (running, peak) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = (running.clone(), peak.clone(), order.clone());
    let store = store();
    let endpoints = support::builder(&store)
        .handler(NARROW, move |ctx: JobContext<u32>| {
            let (running, peak, order) = seen.clone();
            async move {
                order.lock().unwrap().push(*ctx.request());
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .build()
        .unwrap();
    for n in 0..20 {
        endpoints.submit(NARROW, n).priority(Priority::new((n % 2) as u8)).await.unwrap();
    }
    endpoints.run_until_idle().await.unwrap();
    assert_eq!(peak.load(Ordering::SeqCst), 2);
    let order = order.lock().unwrap().clone();
    let expected: Vec<u32> = (0..20).filter(|n| n % 2 == 1).chain((0..20).filter(|n| n % 2 == 0)).collect();
    let pairs = |of: &[u32]| {
        of.chunks(2).map(|pair| pair.iter().copied().collect::<std::collections::BTreeSet<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&order), pairs(&expected), "two attempts at once may start in any order");
    store.verify().await;
}

#[tokio::test]
async fn progress_is_visible_in_half_a_second_and_kept() {
    const STEPS: JobType<(), ()> = JobType::new("Steps");
    let (reported, mut reports) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let handler_go = go.clone();
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/steps", STEPS)).handler(STEPS, move |ctx: JobContext<()>| {
            let (reported, go) = (reported.clone(), handler_go.clone());
            async move {
                ctx.progress().set(1, 4);
                ctx.progress().message("one of four");
                reported.send(ctx.job_id()).unwrap();
                go.notified().await;
                ctx.progress().set(4, 4);
                Ok(())
            }
        })
    })
    .await;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let id = service.submit("/steps", json!(null)).await;
        reports.recv().await.unwrap();
        let at = Instant::now();
        until(async || !service.job(id).await["progress"].is_null()).await;
        fastest = fastest.min(at.elapsed());
        let progress = service.job(id).await["progress"].clone();
        assert_eq!(
            (&progress["completed"], &progress["total"], &progress["percent"]),
            (&json!(1), &json!(4), &json!(25.0))
        );
        assert_eq!(progress["message"], "one of four");
        go.notify_one();
        assert_eq!(service.ended(id).await["progress"]["percent"], 100.0);
    }
    // The others may have waited for a busy machine.
    assert!(fastest < Duration::from_millis(500), "visible after {fastest:?}");
    service.stop().await;
}

#[tokio::test]
async fn expired_jobs_leave_memory() {
    const WORK: JobType<(), ()> = JobType::new("Work").retention(Duration::from_millis(1));
    let store = Arc::new(MemoryStore::new());
    let endpoints = AsyncEndpoints::builder(store.clone())
        .options(Options { lease: Duration::from_millis(200), ..quick() })
        .handler(WORK, async |_: JobContext<()>| Ok(()))
        .build()
        .unwrap();
    let process = Process::start(endpoints, 2);
    let mut ids = Vec::new();
    for _ in 0..500 {
        ids.push(process.endpoints.submit(WORK, ()).await.unwrap().job.id);
    }
    use async_endpoints::core::JobStore;
    until(async || {
        let stats = store.stats(&StatsQuery::default()).await.unwrap();
        stats.types.iter().all(|of_type| of_type.counts == [0; 6])
    })
    .await;
    for id in ids {
        assert!(!matches!(process.endpoints.job(id).await.unwrap(), JobLookup::Found(_)));
    }
}

#[tokio::test]
async fn local_cancel_needs_no_renewal() {
    const JOB: JobType<(), ()> = JobType::new("Job");
    let (inner, flaky) = flaky_store();
    let running = Arc::new(Semaphore::new(0));
    let runs = running.clone();
    let options = Options { lease: Duration::from_secs(600), ..quick() };
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(options)
        .handler(JOB, move |ctx: JobContext<()>| {
            let running = runs.clone();
            async move {
                running.add_permits(1);
                ctx.cancellation().cancelled().await;
                Err::<(), _>(JobError::canceled())
            }
        })
        .build()
        .unwrap();
    let process = Process::start(endpoints.clone(), 2);
    let id = endpoints.submit(JOB, ()).await.unwrap().job.id;
    tokio::time::timeout(PATIENCE, running.acquire()).await.unwrap().unwrap().forget();
    (0..1000).for_each(|_| flaky.fail_next(StoreOperation::Renew, When::Before));
    endpoints.cancel(id).await.unwrap();
    assert_eq!(ended(&endpoints, id).await.status, JobStatus::Canceled);
    drop(process);
    inner.verify().await;
}
