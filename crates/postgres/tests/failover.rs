//! A standby is promoted while jobs are accepted and run.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore,
    job::JobTerms,
    store::{Claim, InsertOutcome, JobLookup, LeaseToken, NewJob, Reclaim, Settlement, TypeQuota, WorkerId},
};
use async_endpoints_postgres::{Options, PostgresStore};
use async_endpoints_testkit::{
    jobs::{completed, digest, error, name},
    server::PostgresServer,
};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(2);

/// What the tasks of the test share.
struct World {
    store: PostgresStore,
    accepted: Mutex<Vec<JobId>>,
    stops: AtomicBool,
}

impl World {
    fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// Submits jobs. Every call ends within 5 seconds.
    async fn submit(&self) {
        while !self.stops.load(Ordering::Relaxed) {
            let job = NewJob::new(JobId::random(), name("Print"), "{}".into(), JobTerms::default(), digest(1));
            let (id, began) = (job.id, Instant::now());
            match self.store.insert(job).await {
                Ok(InsertOutcome::Inserted { .. }) => self.accepted.lock().unwrap().push(id),
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    }

    /// Runs jobs, and recovers those whose lease has expired.
    async fn work(&self) {
        let reclaim = Reclaim { limit: 100, lease: LEASE, lost: error("WORKER_LOST"), canceled: error("JOB_CANCELED") };
        loop {
            let claim = Claim {
                worker: WorkerId(uuid::Uuid::new_v4()),
                token: LeaseToken::random(),
                quotas: vec![TypeQuota { name: name("Print"), max: 16, timeout: LIMIT }],
                max: 16,
                max_bytes: 1 << 20,
                lease: LEASE,
            };
            let attempts = self.store.claim(&claim).await.map(|claimed| claimed.attempts).unwrap_or_default();
            let settle = |lease| Settlement::new(lease, completed("1"), error("JOB_CANCELED"));
            let settlements: Vec<Settlement> = attempts.iter().map(|attempt| settle(attempt.lease)).collect();
            if settlements.is_empty() {
                drop(self.store.reclaim(&reclaim).await);
                sleep(Duration::from_millis(20)).await;
            } else {
                // What is not settled is recovered.
                drop(self.store.settle(&settlements).await);
            }
        }
    }
}

/// Waits until the condition holds.
async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, holds).await.expect("the condition holds in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_standby_has_every_accepted_job_and_work_goes_on() {
    let first = PostgresServer::start();
    let second = PostgresServer::standby_of(&first);
    first.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    first.sql("SELECT pg_reload_conf()");
    until(|| first.sql("SELECT sync_state FROM pg_stat_replication") == "sync").await;

    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", first.port(), second.port());
    let store = Options::new().open(&url).await.unwrap();
    let world = Arc::new(World { store, accepted: Mutex::default(), stops: AtomicBool::new(false) });
    let submitting: Vec<_> = (0..8)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.submit().await })
        })
        .collect();
    let working = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.work().await }
    });

    until(|| world.accepted() >= 200).await;
    first.kill();
    second.promote();
    let (promoted, before) = (Instant::now(), world.accepted());
    until(|| world.accepted() > before).await;
    assert!(promoted.elapsed() < Duration::from_secs(5), "{:?}", promoted.elapsed());
    until(|| world.accepted() >= before + 200).await;
    world.stops.store(true, Ordering::Relaxed);
    for submitting in submitting {
        submitting.await.unwrap();
    }

    let accepted = world.accepted.lock().unwrap().clone();
    let all_complete = async {
        for id in &accepted {
            loop {
                let JobLookup::Found(job) = world.store.get(*id).await.unwrap() else { panic!("job {id} is lost") };
                if job.status == JobStatus::Completed {
                    break;
                }
                assert!(!job.status.is_terminal(), "{job:?}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(LIMIT, all_complete).await.expect("all jobs complete");
    working.abort();
}
