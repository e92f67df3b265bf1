//! Stopped and dead processes, failing stores, and panicking background tasks.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, JobContext, JobLookup, JobStatus, JobType, Options,
    core::store::{StatsQuery, StoreOperation},
};
use async_endpoints_testkit::{FlakyStore, When};
use support::{
    PATIENCE, Process, TestStore, ended, flaky_store, found, hooked::HookedStore, quick, store, until, watch,
};
use tokio::sync::{Notify, mpsc};

#[tokio::test]
async fn stop_under_load_runs_each_job_once() {
    const LOAD: JobType<u32, u32> = JobType::new("Load");
    let store = store();
    let finished = Arc::new(Mutex::new(Vec::new()));
    let build = |outlives: bool| {
        let finished = finished.clone();
        let handler = move |ctx: JobContext<u32>| {
            let finished = finished.clone();
            async move {
                // In the first process, every tenth handler runs longer than the drain.
                let ms = if outlives && ctx.request().is_multiple_of(10) { 60_000 } else { 5 };
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
    assert_eq!(finished, (0..100).collect::<Vec<_>>(), "each handler completed once");
    store.verify().await;
}

#[tokio::test]
async fn result_survives_store_outage() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let (inner, flaky) = flaky_store();
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
    go.notify_one(); // the handler ends during the outage
    assert!(process.endpoints.submit(WORK, 8).await.is_err());
    flaky.outage(false);
    flaky.fail_next(StoreOperation::Settle, When::After); // the reply to its settlement is lost
    let job = ended(&process.endpoints, id).await;
    assert_eq!((job.status, job.attempt, job.result.as_deref()), (JobStatus::Completed, 1, Some(b"7".as_slice())));
    go.notify_one();
    let next = process.endpoints.submit(WORK, 9).await.unwrap().job.id;
    assert_eq!(ended(&process.endpoints, next).await.status, JobStatus::Completed);
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn worker_without_renewals_stops_its_handlers() {
    const WORK: JobType<(), u32> = JobType::new("Work");
    let (inner, flaky) = flaky_store();
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
                Ok(1)
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
    tokio::time::timeout(PATIENCE, stopped.notified()).await.expect("the token fires");
    let job = ended(&other.endpoints, id).await;
    assert_eq!((job.attempt, job.loss_count, job.result.as_deref()), (2, 1, Some(b"2".as_slice())));
    flaky.outage(false);
    drop((cut_off, other));
    assert_eq!(found(&watch(&inner), id).await, job, "a terminal job never changes");
    inner.verify().await;
}

#[tokio::test]
async fn attempt_does_not_start_after_its_lease() {
    const WORK: JobType<(), u32> = JobType::new("Work");
    let options = Options { lease: Duration::from_secs(1), ..quick() };
    let (lasts, was_suspended) = (options.lease + Duration::from_millis(100), AtomicBool::default());
    // The first claim blocks its thread after the store has answered, as in a process that is suspended.
    let suspended = HookedStore::new(store()).after(move |operation| {
        if operation == StoreOperation::Claim && !was_suspended.swap(true, Ordering::Relaxed) {
            std::thread::sleep(lasts);
        }
    });
    let endpoints = AsyncEndpoints::builder(suspended)
        .options(options)
        .handler(WORK, async |ctx: JobContext<()>| Ok(ctx.attempt()))
        .build()
        .unwrap();
    let id = endpoints.submit(WORK, ()).await.unwrap().job.id;
    let process = Process::start(endpoints, 2);
    let job = ended(&process.endpoints, id).await;
    assert_eq!((job.attempt, job.result.as_deref()), (2, Some(b"2".as_slice())), "{job:?}");
}

#[tokio::test]
async fn job_that_loses_its_workers_fails() {
    const POISON: JobType<(), ()> = JobType::new("Poison");
    let store = store();
    let options = Options { max_losses: 1, lease: Duration::from_millis(100), ..quick() };
    let submitter = AsyncEndpoints::builder(store.clone()).options(options.clone()).build().unwrap();
    let id = submitter.submit(POISON, ()).await.unwrap().job.id;
    for _ in 0..2 {
        let JobLookup::Found(job) = submitter.job(id).await.unwrap() else { panic!("not found") };
        assert_eq!(job.status, JobStatus::Queued);
        claim_and_die(&store, "Poison").await;
        let janitor = AsyncEndpoints::builder(store.clone())
            .options(options.clone())
            .handler(JobType::<(), ()>::new("Other"), async |_: JobContext<()>| Ok(()))
            .build()
            .unwrap();
        let janitor = Process::start(janitor, 2);
        until(async || found(&submitter, id).await.status != JobStatus::InProgress).await;
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
        store::{Claim, LeaseToken, TypeQuota, WorkerId},
    };
    let want = TypeQuota { name: JobName::new(name).unwrap(), max: 1, timeout: Duration::from_secs(60) };
    let claim = Claim {
        worker: WorkerId(uuid::Uuid::new_v4()),
        token: LeaseToken::random(),
        quotas: vec![want],
        max: 1,
        max_bytes: 1,
        lease: Duration::from_millis(50),
    };
    assert_eq!(store.claim(&claim).await.unwrap().attempts.len(), 1);
}

#[tokio::test]
async fn panicking_tasks_are_restarted_and_counted() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let (inner, flaky) = flaky_store();
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .handler(WORK, async |ctx: JobContext<u32>| Ok(*ctx.request()))
        .build()
        .unwrap();
    for op in [
        StoreOperation::Claim,
        StoreOperation::Settle,
        StoreOperation::Renew,
        StoreOperation::Reclaim,
        StoreOperation::Reclaim,
    ] {
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
    let expected = [("claimer", 1), ("keeper", 1), ("settler", 1), ("sweeper", 2)];
    assert_eq!(restarts, std::collections::BTreeMap::from(expected));
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn progress_of_outage_is_stored_after_it() {
    const WORK: JobType<(), ()> = JobType::new("Work");
    let (inner, flaky) = flaky_store();
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .handler(WORK, async |ctx: JobContext<()>| {
            ctx.progress().set(1, 2);
            ctx.cancellation().cancelled().await;
            ctx.check_canceled()
        })
        .build()
        .unwrap();
    flaky.fail_next(StoreOperation::Report, When::Before);
    let process = Process::start(endpoints, 2);
    let id = process.endpoints.submit(WORK, ()).await.unwrap().job.id;
    until(async || found(&process.endpoints, id).await.progress.is_some()).await;
    process.endpoints.cancel(id).await.unwrap();
    assert_eq!(ended(&process.endpoints, id).await.status, JobStatus::Canceled);
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn refused_settlement_does_not_affect_others() {
    const WORK: JobType<u32, u32> = JobType::new("Work");
    let (inner, flaky) = flaky_store();
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(Options { lease: Duration::from_secs(20), ..quick() })
        .handler(WORK, async |ctx: JobContext<u32>| Ok(*ctx.request()))
        .build()
        .unwrap();
    let process = Process::start(endpoints, 2);
    // The first refusal may concern a batch. Its settlements are then sent alone, and one of them is refused again.
    flaky.fail_next(StoreOperation::Settle, When::Never);
    flaky.fail_next(StoreOperation::Settle, When::Never);
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(process.endpoints.submit(WORK, n).await.unwrap().job.id);
    }
    until(async || {
        let mut completed = 0;
        for id in &ids {
            completed += usize::from(found(&process.endpoints, *id).await.status == JobStatus::Completed);
        }
        completed >= ids.len() - 2
    })
    .await;
    // A slot is freed when the settlement's reply arrives, shortly after the outcome is readable.
    until(async || {
        let slots = process.endpoints.worker_status().slots;
        (slots.busy, slots.leaked) == (0, 0)
    })
    .await;
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn last_progress_survives_failed_and_slow_reports() {
    const WORK: JobType<(), ()> = JobType::new("Work");
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())).delays(Duration::from_millis(60)));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(Options { lease: Duration::from_secs(4), ..quick() })
        .handler(WORK, async |ctx: JobContext<()>| {
            for done in 1..=4 {
                ctx.progress().set(done, 4);
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Ok(())
        })
        .build()
        .unwrap();
    flaky.fail_next(StoreOperation::Report, When::Before);
    let process = Process::start(endpoints, 2);
    for _ in 0..5 {
        let id = process.endpoints.submit(WORK, ()).await.unwrap().job.id;
        let job = ended(&process.endpoints, id).await;
        assert_eq!(job.progress.and_then(|progress| progress.percent), Some(100.0));
    }
    drop(process);
    inner.verify().await;
}

#[tokio::test]
async fn report_before_settlement_is_overwritten() {
    // The settlement is later still, so that the job runs when the report arrives.
    assert_eq!(percent_after_late_report(&[StoreOperation::Report, StoreOperation::Settle]).await, Some(100.0));
}

#[tokio::test]
async fn report_after_settlement_changes_nothing() {
    assert_eq!(percent_after_late_report(&[StoreOperation::Report]).await, Some(100.0));
}

/// Runs a job whose progress report is in flight when its handler ends, with these calls late. Returns the job's percentage
/// once all calls have arrived.
async fn percent_after_late_report(late: &[StoreOperation]) -> Option<f64> {
    const WORK: JobType<(), ()> = JobType::new("Work");
    let (inner, flaky) = flaky_store();
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(Options { lease: Duration::from_secs(8), ..quick() })
        .handler(WORK, async |ctx: JobContext<()>| {
            ctx.progress().set(3, 4);
            // Long enough for the report to be sent, and shorter than its delay.
            tokio::time::sleep(Duration::from_millis(200)).await;
            ctx.progress().set(4, 4);
            Ok(())
        })
        .build()
        .unwrap();
    late.iter().for_each(|operation| flaky.fail_next(*operation, When::Late));
    let process = Process::start(endpoints, 2);
    let id = process.endpoints.submit(WORK, ()).await.unwrap().job.id;
    ended(&process.endpoints, id).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let job = found(&process.endpoints, id).await;
    drop(process);
    inner.verify().await;
    job.progress.and_then(|progress| progress.percent)
}

/// Releases blocked handlers, also when the test fails.
struct Release(Arc<OnceLock<()>>);

impl Drop for Release {
    fn drop(&mut self) {
        let _ = self.0.set(());
    }
}

#[tokio::test]
async fn stop_works_while_handlers_block_all_threads() {
    const BLOCK: JobType<(), ()> = JobType::new("Block");
    let (store, flaky) = flaky_store();
    // A report is in flight when the last thread blocks, so its reply is never read.
    flaky.fail_next(StoreOperation::Report, When::Late);
    let (started, mut starts) = mpsc::unbounded_channel();
    let over = Arc::new(OnceLock::new());
    let released = over.clone();
    let options = Options { shutdown: Duration::from_millis(300), lease: Duration::from_secs(60), ..quick() };
    let endpoints = AsyncEndpoints::builder(flaky)
        .options(options)
        .handler(BLOCK, move |ctx: JobContext<()>| {
            let (started, over) = (started.clone(), over.clone());
            async move {
                ctx.progress().set(1, 2);
                // Long enough for the report to be sent.
                tokio::time::sleep(Duration::from_millis(100)).await;
                started.send(ctx.attempt()).unwrap();
                // Wakes the other thread, which may be parked while this one has all the tasks. A single new task
                // stays in the slot of this thread and wakes no other one.
                drop((tokio::spawn(async {}), tokio::spawn(async {})));
                over.wait();
                Ok(())
            }
        })
        .build()
        .unwrap();
    let process = Process::start(endpoints, 2);
    let release = Release(released);
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(process.endpoints.submit(BLOCK, ()).await.unwrap().job.id);
    }
    // After two starts both threads are blocked.
    for _ in 0..2 {
        tokio::time::timeout(Duration::from_secs(20), starts.recv()).await.expect("a handler starts").unwrap();
    }
    let asked = Instant::now();
    process.endpoints.shutdown();
    until(async || {
        let mut running = 0;
        for id in &ids {
            running += u32::from(found(&watch(&store), *id).await.status == JobStatus::InProgress);
        }
        running == 0
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(15), "released after {:?}", asked.elapsed());
    for id in &ids {
        let job = found(&watch(&store), *id).await;
        assert_eq!((job.status, job.retry_count, job.loss_count), (JobStatus::Queued, 0, 0));
    }
    drop((release, process));
    assert!(starts.recv().await.is_none(), "no further attempt started");
    store.verify().await;
}

#[tokio::test]
async fn job_is_released_after_its_handler_is_dropped() {
    const STUBBORN: JobType<(), ()> = JobType::new("Stubborn");
    let store = store();
    let running = Arc::new(AtomicU32::new(0));
    let both = Arc::new(AtomicU32::new(0));
    struct Run(Arc<AtomicU32>);
    impl Drop for Run {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (started, mut starts) = mpsc::unbounded_channel();
    let build = || {
        let (running, both, started) = (running.clone(), both.clone(), started.clone());
        let options = Options { shutdown: Duration::from_millis(200), ..quick() };
        let stubborn = move |ctx: JobContext<()>| {
            let (running, both, started) = (running.clone(), both.clone(), started.clone());
            async move {
                both.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _run = Run(running);
                started.send(()).unwrap();
                if ctx.attempt() == 1 {
                    std::future::pending::<()>().await; // ignores its token
                }
                Ok(())
            }
        };
        support::builder(&store).options(options).handler(STUBBORN, stubborn).build().unwrap()
    };
    let (first, second) = (Process::start(build(), 2), build());
    let id = second.submit(STUBBORN, ()).await.unwrap().job.id;
    starts.recv().await.unwrap();
    let second = Process::start(second, 2);
    first.endpoints.shutdown();
    let job = ended(&second.endpoints, id).await;
    assert_eq!((job.attempt, job.release_count, job.retry_count), (2, 1, 0));
    assert_eq!(both.load(Ordering::SeqCst), 1, "the attempts did not overlap");
    drop((first, second));
    store.verify().await;
}

#[tokio::test]
async fn process_without_handlers_recovers_jobs() {
    const ORPHAN: JobType<(), ()> = JobType::new("Orphan");
    let store = store();
    let options = Options { lease: Duration::from_millis(100), ..quick() };
    let accepting = AsyncEndpoints::builder(store.clone()).options(options).build().unwrap();
    let id = accepting.submit(ORPHAN, ()).await.unwrap().job.id;
    claim_and_die(&store, "Orphan").await;
    accepting.cancel(id).await.unwrap();
    let process = Process::start(accepting, 2);
    assert_eq!(ended(&process.endpoints, id).await.status, JobStatus::Canceled);
    drop(process);
    store.verify().await;
}

#[tokio::test]
async fn dropped_endpoints_release_their_store() {
    const WORK: JobType<(), ()> = JobType::new("Work");
    let store = store();
    let endpoints = support::builder(&store).handler(WORK, async |_: JobContext<()>| Ok(())).build().unwrap();
    let id = endpoints.submit(WORK, ()).await.unwrap().job.id;
    let serving = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { endpoints.run().await }
    });
    ended(&endpoints, id).await;
    serving.abort(); // dropped, not stopped
    drop(endpoints);
    until(async || Arc::strong_count(&store) == 1).await;
    store.verify().await;
}

#[tokio::test]
async fn second_start_is_an_error() {
    let endpoints = watch(&store());
    endpoints.shutdown();
    endpoints.run().await.unwrap();
    assert!(endpoints.run().await.is_err());
}

#[tokio::test]
async fn worker_is_listed_until_it_deregisters() {
    const WORK: JobType<(), ()> = JobType::new("Work");
    use async_endpoints::core::JobStore;
    let store = store();
    let endpoints = support::builder(&store).handler(WORK, async |_: JobContext<()>| Ok(())).build().unwrap();
    let process = Process::start(endpoints, 2);
    let live_workers = async || store.stats(&StatsQuery::default()).await.unwrap().workers;
    until(async || !live_workers().await.is_empty()).await;
    let worker = &live_workers().await[0];
    assert_eq!(
        (worker.info.id, worker.info.types[0].name.as_str(), worker.info.slots.idle),
        (process.endpoints.worker_status().worker, "Work", 8)
    );
    drop(process);
    assert!(live_workers().await.is_empty());
}
