//! What the worker promises when handlers misbehave, stores fail and processes stop.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobError, JobStatus, JobType, Lookup, MemoryStore, Options, Priority,
    core::store::StatsQuery,
};
use async_endpoints_testkit::{FlakyStore, Op, When};
use reqwest::StatusCode;
use serde_json::json;
use support::{PATIENCE, Service, TestStore, ended, found, quick, store};
use tokio::sync::{Notify, mpsc};

/// Runs endpoints as a process of its own would: on their own runtime with that many threads, until dropped.
struct Process {
    endpoints: AsyncEndpoints,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    fn start(endpoints: AsyncEndpoints, threads: usize) -> Self {
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

/// The lease of every process here.
const LEASE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_handler_five_leases_long_runs_once() {
    const LONG: JobType<(), u32> = JobType::new("Long");
    let store = store();
    let build = || {
        let long = async |_: JobContext<()>| {
            tokio::time::sleep(5 * LEASE).await;
            Ok(1)
        };
        support::builder(&store).handler(LONG, long).build().unwrap()
    };
    let (first, second) = (Process::start(build(), 2), Process::start(build(), 2));
    let id = first.endpoints.submit(LONG, ()).await.unwrap().job.id;
    let job = ended(&second.endpoints, id).await;
    assert_eq!((job.status, job.attempt, job.loss_count), (JobStatus::Completed, 1, 0));
    drop((first, second));
    store.verify().await;
}

#[tokio::test]
async fn a_handler_that_blocks_every_thread_keeps_its_lease() {
    const BLOCK: JobType<(), ()> =
        JobType::new("Block").retry(async_endpoints::RetryPolicy::Custom(|_| Duration::ZERO));
    let store = store();
    let build = || {
        let block = async |_: JobContext<()>| {
            std::thread::sleep(4 * LEASE);
            Ok(())
        };
        support::builder(&store).handler(BLOCK, block).build().unwrap()
    };
    let (first, second) = (Process::start(build(), 2), Process::start(build(), 2));
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(first.endpoints.submit(BLOCK, ()).await.unwrap().job.id);
    }
    for id in ids {
        let Lookup::Found(job) = watch(&store).wait(id, PATIENCE).await.unwrap() else { panic!("not found") };
        assert_eq!((job.status, job.attempt, job.loss_count), (JobStatus::Completed, 1, 0));
    }
    drop((first, second));
    store.verify().await;
}

/// Endpoints that run nothing and only look.
fn watch(store: &TestStore) -> AsyncEndpoints {
    support::builder(store).build().unwrap()
}

#[tokio::test]
async fn a_blocked_handler_past_its_timeout_is_ended_and_its_slot_leaks_until_it_returns() {
    const STUCK: JobType<(), ()> = JobType::new("Stuck").timeout(Duration::from_millis(200)).max_retries(0);
    let store = store();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let endpoints = support::builder(&store)
        .handler(STUCK, move |_: JobContext<()>| {
            let wait = wait.clone();
            async move {
                let _ = wait.lock().unwrap().recv(); // blocks its thread, not only its task
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
    let returned = async {
        while process.endpoints.worker_status().slots.leaked > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, returned).await.unwrap();
    drop(process);
    store.verify().await;
}

#[tokio::test]
async fn a_blocking_handler_that_ignores_its_timeout_keeps_its_slot() {
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
async fn a_timeout_fires_the_token_and_is_retried() {
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
async fn cancel_reaches_queued_running_and_stubborn_jobs() {
    const WORK: JobType<String, String> = JobType::new("Work").concurrency(3);
    const QUEUED: JobType<(), ()> = JobType::new("NobodyRuns");
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
    assert!(asked.elapsed() < Duration::from_secs(2), "the token fired after {:?}", asked.elapsed());
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
async fn limits_and_priorities_are_kept() {
    const NARROW: JobType<u32, ()> = JobType::new("Narrow").concurrency(2);
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = (now.clone(), most.clone(), order.clone());
    let store = store();
    let endpoints = support::builder(&store)
        .handler(NARROW, move |ctx: JobContext<u32>| {
            let (now, most, order) = seen.clone();
            async move {
                order.lock().unwrap().push(*ctx.request());
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .build()
        .unwrap();
    for n in 0..20 {
        endpoints.submit(NARROW, n).priority(Priority::new((n % 2) as u8)).await.unwrap();
    }
    endpoints.run_until_idle().await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let order = order.lock().unwrap();
    let expected: Vec<u32> = (0..20).filter(|n| n % 2 == 1).chain((0..20).filter(|n| n % 2 == 0)).collect();
    let pairs = |of: &[u32]| {
        of.chunks(2).map(|pair| pair.iter().copied().collect::<std::collections::BTreeSet<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&order), pairs(&expected), "the two that run at once may start in any order");
    store.verify().await;
}

#[tokio::test]
async fn progress_is_visible_within_half_a_second_and_kept_at_the_end() {
    const STEPS: JobType<(), ()> = JobType::new("Steps");
    let (told, mut tells) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let handler_go = go.clone();
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/steps", STEPS)).handler(STEPS, move |ctx: JobContext<()>| {
            let (told, go) = (told.clone(), handler_go.clone());
            async move {
                ctx.progress().set(1, 4);
                ctx.progress().message("one of four");
                told.send(ctx.job_id()).unwrap();
                go.notified().await;
                ctx.progress().set(4, 4);
                Ok(())
            }
        })
    })
    .await;
    let id = service.submit("/steps", json!(null)).await;
    tells.recv().await.unwrap();
    let at = Instant::now();
    let progress = loop {
        let progress = service.job(id).await["progress"].clone();
        if !progress.is_null() {
            break progress;
        }
        tokio::task::yield_now().await;
    };
    assert!(at.elapsed() < Duration::from_millis(500), "visible after {:?}", at.elapsed());
    assert_eq!(
        (&progress["completed"], &progress["total"], &progress["percent"]),
        (&json!(1), &json!(4), &json!(25.0))
    );
    assert_eq!(progress["message"], "one of four");
    go.notify_one();
    assert_eq!(service.ended(id).await["progress"]["percent"], 100.0);
    service.stop().await;
}

#[tokio::test]
async fn a_stop_under_load_loses_and_doubles_nothing_and_uses_no_retry() {
    const LOAD: JobType<u32, u32> = JobType::new("Load");
    let store = store();
    let finished = Arc::new(Mutex::new(Vec::new()));
    let build = |outlives: bool| {
        let finished = finished.clone();
        let handler = move |ctx: JobContext<u32>| {
            let finished = finished.clone();
            async move {
                // In the first process, every tenth outlives its drain.
                let ms = if outlives && ctx.request() % 10 == 0 { 60_000 } else { 5 };
                tokio::time::sleep(Duration::from_millis(ms)).await;
                finished.lock().unwrap().push(*ctx.request());
                Ok(*ctx.request())
            }
        };
        let options = Options { shutdown: Duration::from_millis(400), ..quick() };
        support::builder(&store).options(options).handler(LOAD, handler).build().unwrap()
    };
    let first = Process::start(build(true), 2);
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(first.endpoints.submit(LOAD, n).await.unwrap().job.id);
    }
    ended(&first.endpoints, ids[1]).await;
    drop(first); // as SIGTERM does
    for id in &ids {
        let job = found(&watch(&store), *id).await;
        assert!(matches!(job.status, JobStatus::Queued | JobStatus::Completed), "{job:?}");
        assert_eq!(
            (job.retry_count, job.loss_count, job.attempt - u32::from(job.status == JobStatus::Completed)),
            (0, 0, job.release_count)
        );
    }
    let second = Process::start(build(false), 2);
    for id in &ids {
        let job = ended(&second.endpoints, *id).await;
        assert_eq!((job.status, job.retry_count, job.loss_count), (JobStatus::Completed, 0, 0));
    }
    drop(second);
    let mut finished = finished.lock().unwrap().clone();
    finished.sort_unstable();
    assert_eq!(finished, (0..100).collect::<Vec<_>>(), "each ran to its end once");
    store.verify().await;
}

#[tokio::test]
async fn work_goes_on_after_an_outage_of_the_store_and_no_result_is_lost() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())));
    let (started, mut starts) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let handler_go = go.clone();
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(Options { lease: Duration::from_secs(20), ..quick() })
        .handler(WORK, move |ctx: JobContext<u32>| {
            let (started, go) = (started.clone(), handler_go.clone());
            async move {
                started.send(()).unwrap();
                go.notified().await;
                Ok(*ctx.request())
            }
        })
        .build()
        .unwrap();
    let process = Process::start(endpoints, 2);
    let id = process.endpoints.submit(WORK, 7).await.unwrap().job.id;
    starts.recv().await.unwrap();
    flaky.outage(true);
    go.notify_one(); // it ends while nothing can be settled
    assert!(process.endpoints.submit(WORK, 8).await.is_err());
    flaky.outage(false);
    flaky.fail_next(Op::Settle, When::After); // and the reply to its settlement is lost
    let job = ended(&process.endpoints, id).await;
    assert_eq!((job.status, job.attempt, job.result.as_deref()), (JobStatus::Completed, 1, Some(b"7".as_slice())));
    go.notify_one();
    let next = process.endpoints.submit(WORK, 9).await.unwrap().job.id;
    assert_eq!(ended(&process.endpoints, next).await.status, JobStatus::Completed);
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn a_worker_cut_off_for_its_lease_stops_its_handlers_and_settles_nothing() {
    const WORK: JobType<(), u32> = JobType::new("Work");
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())));
    let (started, mut starts) = mpsc::unbounded_channel();
    let stopped = Arc::new(Notify::new());
    let handler_stopped = stopped.clone();
    let cut_off = AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .handler(WORK, move |ctx: JobContext<()>| {
            let (started, stopped) = (started.clone(), handler_stopped.clone());
            async move {
                started.send(()).unwrap();
                ctx.cancellation().cancelled().await;
                stopped.notify_one();
                Ok(1) // it does not even care
            }
        })
        .build()
        .unwrap();
    let cut_off = Process::start(cut_off, 2);
    let id = cut_off.endpoints.submit(WORK, ()).await.unwrap().job.id;
    starts.recv().await.unwrap();
    flaky.outage(true);
    let other = support::builder(&inner).handler(WORK, async |_: JobContext<()>| Ok(2)).build().unwrap();
    let other = Process::start(other, 2);
    tokio::time::timeout(PATIENCE, stopped.notified()).await.expect("its token fires");
    let job = ended(&other.endpoints, id).await;
    assert_eq!((job.attempt, job.loss_count, job.result.as_deref()), (2, 1, Some(b"2".as_slice())));
    flaky.outage(false);
    drop((cut_off, other));
    assert_eq!(found(&watch(&inner), id).await, job, "a terminal job never changes");
    inner.verify().await;
}

#[tokio::test]
async fn jobs_that_kill_their_workers_end() {
    const POISON: JobType<(), ()> = JobType::new("Poison");
    let store = store();
    let options = Options { max_losses: 1, lease: Duration::from_millis(100), ..quick() };
    let submitter = AsyncEndpoints::builder(store.clone()).options(options.clone()).build().unwrap();
    let id = submitter.submit(POISON, ()).await.unwrap().job.id;
    // A worker that dies takes the job and is heard of no more.
    for _ in 0..2 {
        let Lookup::Found(job) = submitter.job(id).await.unwrap() else { panic!("not found") };
        assert_eq!(job.status, JobStatus::Queued);
        claim_and_die(&store, "Poison").await;
        let janitor = AsyncEndpoints::builder(store.clone())
            .options(options.clone())
            .handler(JobType::<(), ()>::new("Other"), async |_: JobContext<()>| Ok(()))
            .build()
            .unwrap();
        let janitor = Process::start(janitor, 2);
        let recovered = async {
            while found(&submitter, id).await.status == JobStatus::InProgress {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, recovered).await.unwrap();
        drop(janitor);
    }
    let job = found(&submitter, id).await;
    assert_eq!((job.status, job.loss_count), (JobStatus::Failed, 2));
    assert_eq!(job.error.unwrap().code, "WORKER_LOST");
    store.verify().await;
}

async fn claim_and_die(store: &TestStore, name: &str) {
    use async_endpoints::core::{
        JobName, JobStore,
        store::{Claim, LeaseToken, Want, WorkerId},
    };
    let want = Want { name: JobName::new(name).unwrap(), n: 1, timeout: Duration::from_secs(60) };
    let claim = Claim {
        worker: WorkerId(uuid::Uuid::new_v4()),
        token: LeaseToken::random(),
        wants: vec![want],
        max: 1,
        max_bytes: 1,
        lease: Duration::from_millis(50),
    };
    assert_eq!(store.claim(&claim).await.unwrap().attempts.len(), 1);
}

#[tokio::test]
async fn background_tasks_that_panic_are_started_again_and_it_shows() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .handler(WORK, async |ctx: JobContext<u32>| Ok(*ctx.request()))
        .build()
        .unwrap();
    for op in [Op::Claim, Op::Settle, Op::Renew, Op::Reclaim, Op::Reclaim] {
        flaky.fail_next(op, When::Panic);
    }
    let process = Process::start(endpoints, 2);
    let restarted = async {
        loop {
            let id = process.endpoints.submit(WORK, 7).await.unwrap().job.id;
            assert_eq!(ended(&process.endpoints, id).await.status, JobStatus::Completed);
            if process.endpoints.worker_status().restarts.values().sum::<u32>() == 5 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, restarted).await.unwrap();
    let restarts = process.endpoints.worker_status().restarts;
    let expected = [("claimer", 1), ("janitor", 2), ("keeper", 1), ("settler", 1)];
    assert_eq!(restarts, std::collections::BTreeMap::from(expected));
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn progress_told_during_an_outage_is_stored_after_it() {
    const WORK: JobType<(), ()> = JobType::new("Work");
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .handler(WORK, async |ctx: JobContext<()>| {
            ctx.progress().set(1, 2);
            ctx.cancellation().cancelled().await;
            ctx.check_canceled()
        })
        .build()
        .unwrap();
    flaky.fail_next(Op::Report, When::Before);
    let process = Process::start(endpoints, 2);
    let id = process.endpoints.submit(WORK, ()).await.unwrap().job.id;
    let stored = async {
        while found(&process.endpoints, id).await.progress.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.unwrap();
    process.endpoints.cancel(id).await.unwrap();
    assert_eq!(ended(&process.endpoints, id).await.status, JobStatus::Canceled);
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn endpoints_start_once() {
    let endpoints = watch(&store());
    endpoints.shutdown();
    endpoints.run().await.unwrap();
    assert!(endpoints.run().await.is_err());
}

#[tokio::test]
async fn a_worker_is_seen_while_it_lives_and_says_goodbye() {
    const WORK: JobType<(), ()> = JobType::new("Work");
    use async_endpoints::core::JobStore;
    let store = store();
    let endpoints = support::builder(&store).handler(WORK, async |_: JobContext<()>| Ok(())).build().unwrap();
    let process = Process::start(endpoints, 2);
    let beats = || async { store.stats(&StatsQuery::default()).await.unwrap().beats };
    let seen = async {
        while beats().await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    let beat = &beats().await[0];
    assert_eq!(
        (beat.worker, beat.types[0].name.as_str(), beat.slots.idle),
        (process.endpoints.worker_status().worker, "Work", 8)
    );
    drop(process);
    assert!(beats().await.is_empty());
}

#[tokio::test]
async fn memory_is_bounded_by_retention() {
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
    let pruned = async {
        loop {
            let stats = store.stats(&StatsQuery::default()).await.unwrap();
            if stats.types.iter().all(|kind| kind.counts == [0; 6]) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, pruned).await.unwrap();
    for id in ids {
        assert!(!matches!(process.endpoints.job(id).await.unwrap(), Lookup::Found(_)));
    }
}
