//! Several callers, and several stores on one file, as several processes have.

mod common;

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobId, JobStore as _, SystemClock,
    store::{Hint, InsertOutcome, StatsQuery},
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::{job, name};
use common::{Folder, HOUR, claim, open};
use futures_util::{StreamExt as _, future::join_all, stream::BoxStream};

async fn two(folder: &Folder) -> [Arc<SqliteStore>; 2] {
    let one = async || Arc::new(open(folder, Synchronous::Full, SystemClock::default()).await);
    [one().await, one().await]
}

async fn until(hints: &mut BoxStream<'static, Hint>, wanted: &Hint) {
    let came = async { while hints.next().await.expect("a hint") != *wanted {} };
    tokio::time::timeout(Duration::from_secs(10), came).await.unwrap_or_else(|_| panic!("no {wanted:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_of_another_process_is_hinted() {
    let folder = Folder::new();
    let [here, there] = two(&folder).await;
    let mut hints = here.hints();
    there.insert(job("alpha", HOUR)).await.unwrap();
    until(&mut hints, &Hint::Work(name("alpha"))).await;
    until(&mut hints, &Hint::Lagged).await;
    assert_eq!(here.claim(&claim(1)).await.unwrap().attempts.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_commits_are_not_hinted_as_lagged() {
    let folder = Folder::new();
    let here = open(&folder, Synchronous::Full, SystemClock::default()).await;
    let mut hints = here.hints();
    for _ in 0..3 {
        here.insert(job("alpha", HOUR)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    drop(here);
    let received: Vec<Hint> = hints.by_ref().collect().await;
    assert_eq!(received, [Hint::Work(name("alpha"))], "the check for other processes finds none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_claim_each_job_once() {
    let folder = Folder::new();
    let stores = two(&folder).await;
    let tasks = (0..8).map(|at| {
        let store = Arc::clone(&stores[at % 2]);
        tokio::spawn(async move {
            let mut taken: Vec<JobId> = Vec::new();
            for _ in 0..20 {
                let answer = store.insert(job("alpha", HOUR)).await.unwrap();
                assert!(matches!(answer, InsertOutcome::Inserted { .. }));
                let claimed = store.claim(&claim(2)).await.unwrap();
                taken.extend(claimed.attempts.iter().map(|attempt| attempt.lease.job));
            }
            taken
        })
    });
    let mut taken: Vec<JobId> = join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    let all = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), all, "each job once");
    for store in &stores {
        let stats = store.stats(&StatsQuery::default()).await.unwrap();
        assert_eq!(stats.types[0].counts, [160 - all as u64, 0, all as u64, 0, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_process_yields_the_lock() {
    let folder = Folder::new();
    let [busy, other] = two(&folder).await;
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let busy = Arc::clone(&busy);
            tokio::spawn(async move {
                loop {
                    busy.insert(job("alpha", HOUR)).await.unwrap();
                }
            })
        })
        .collect();
    let began = std::time::Instant::now();
    for _ in 0..20 {
        other.insert(job("beta", HOUR)).await.expect("the lock is free in time");
    }
    let took = began.elapsed();
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    println!("20 inserts beside a busy process took {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
