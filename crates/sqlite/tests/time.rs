//! Steps of the machine's clock. The store's time is the wall clock, which may be wrong for a while.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    Clock, JobStatus, JobStore as _, SharedState as _, SystemClock, Timestamp,
    store::{Claim, JobLookup, ListFilter, Page, Reclaimed, Renewed, Role, StatsQuery, TypeCutoffs},
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, job, name},
};
use common::{Folder, HOUR, claim, end, fresh, heartbeat, insert, number, open, sweep};
use rusqlite::Connection;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(60);

/// A clock that is ahead by a number of microseconds.
#[derive(Clone, Default)]
struct SteppingClock {
    ahead: Arc<AtomicI64>,
    time: ManualClock,
}

impl SteppingClock {
    fn set_ahead(&self, ahead: Duration) {
        self.ahead.store(i64::try_from(ahead.as_micros()).expect("a small step"), Ordering::SeqCst);
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        // Each call takes a moment.
        self.time.advance(Duration::from_micros(1));
        Timestamp::from_micros(self.time.now().as_micros() + self.ahead.load(Ordering::SeqCst))
    }
}

/// Accepts a job, runs it, and checks that readers see both.
async fn run_a_job(store: &SqliteStore, clock: &SteppingClock) {
    let new = job("alpha", HOUR);
    insert(store, &new).await;
    let list = async |status| {
        let filter = ListFilter { status: Some(status), ..ListFilter::default() };
        let page = Page { cursor: None, limit: 200 };
        let jobs = store.list(&filter, &page).await.expect("the store answers").jobs;
        jobs.iter().any(|listed| listed.id == new.id)
    };
    assert!(list(JobStatus::Queued).await, "an accepted job is listed");
    let attempts = store.claim(&Claim { lease: LEASE, ..claim(9) }).await.expect("the store answers").attempts;
    let attempt = attempts.iter().find(|attempt| attempt.lease.job == new.id).expect("the job is claimed");
    let worker = heartbeat();
    let renewed = store.renew(&worker, &[attempt.lease], LEASE).await.expect("the store answers");
    assert_eq!(renewed, [Renewed::Held]);
    store.settle(&[end(attempt, completed("1"))]).await.expect("the store answers");
    assert!(list(JobStatus::Completed).await, "a completed job is listed");
    let JobLookup::Found(found) = store.get(new.id).await.expect("the store answers") else { panic!("it is readable") };
    assert_eq!(found.status, JobStatus::Completed);

    let now = clock.now();
    let completed_at = found.completed_at.expect("it has ended");
    assert!(completed_at <= now && now.since(completed_at) < LEASE, "times follow the clock");
    let query = StatsQuery { since_minute: Some(now.minute() - 9), ..StatsQuery::default() };
    let stats = store.stats(&query).await.expect("the store answers");
    assert!(now.since(stats.now) < LEASE && stats.now.since(now) < LEASE, "statistics follow the clock");
    let ended: u64 = stats.minutes.iter().filter(|of| of.minute == now.minute()).map(|of| of.ended[0]).sum();
    assert!(ended > 0, "the job is counted in the present minute");
    assert!(stats.minutes.iter().all(|of| of.minute <= now.minute()), "no minute is ahead of the clock");
    assert!(stats.workers.iter().any(|live| live.info == worker.worker), "the worker is live");
    assert!(stats.workers.iter().all(|live| live.last_heartbeat_at <= stats.now), "no heartbeat is ahead of the clock");
}

#[tokio::test]
async fn jobs_go_on_after_a_clock_was_an_hour_ahead() {
    let (folder, clock) = (Folder::new(), SteppingClock::default());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    let mut order = Vec::new();
    let conn = Connection::open(folder.file()).expect("the file opens");
    // Correct, ahead, corrected, ahead by a year, corrected again.
    for ahead in [Duration::ZERO, HOUR, Duration::ZERO, 365 * 24 * HOUR, Duration::ZERO] {
        clock.set_ahead(ahead);
        for _ in 0..3 {
            run_a_job(&store, &clock).await;
            order.push(number(&conn, "SELECT last_order FROM meta"));
        }
    }
    assert!(order.is_sorted_by(|a, b| a < b), "order numbers grow: {order:?}");
    let delayed = job("alpha", HOUR).delay(HOUR);
    insert(&store, &delayed).await;
    assert_eq!(store.claim(&claim(9)).await.expect("the store answers").attempts.len(), 0, "it is not due");
    clock.time.advance(HOUR);
    assert_eq!(store.claim(&claim(9)).await.expect("the store answers").attempts.len(), 1, "it is due in time");
}

/// A worker stops while its clock is a year ahead. Then the clock is corrected.
#[tokio::test]
async fn times_a_year_ahead_are_not_waited_for() {
    let (folder, clock) = (Folder::new(), SteppingClock::default());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    let [lost, completed_ahead] = [job("alpha", HOUR), job("alpha", HOUR)];
    clock.set_ahead(365 * 24 * HOUR);
    for job in [&lost, &completed_ahead] {
        insert(&store, job).await;
    }
    let attempts = store.claim(&claim(2)).await.expect("the store answers").attempts;
    store.settle(&[end(&attempts[1], completed("1"))]).await.expect("the store answers");
    let [stopped, other] = [1, 2].map(Uuid::from_u128);
    assert!(matches!(store.role("sweeper", stopped, HOUR).await, Ok(Role::Held(_))));
    clock.set_ahead(Duration::ZERO);

    assert!(matches!(store.role("sweeper", other, HOUR).await, Ok(Role::Held(_))), "the role is free");
    let stuck_after = Duration::from_secs(1);
    insert(&store, &job("alpha", HOUR)).await;
    clock.time.advance(2 * stuck_after);
    let cutoffs = TypeCutoffs { name: name("alpha"), slow_after: HOUR, overdue_after: HOUR, stuck_after };
    let query = StatsQuery { since_minute: None, cutoffs: vec![cutoffs] };
    let stats = store.stats(&query).await.expect("the store answers");
    assert_eq!(stats.types[0].stale, 1, "a job that waits for too long is counted");
    run_a_job(&store, &clock).await;

    let mut recovered = Vec::new();
    for _ in 0..6 {
        store.prune(100).await.expect("the store answers");
        if let Reclaimed::Done { recovered: some, .. } =
            store.reclaim(&sweep(2 * HOUR)).await.expect("the store answers")
        {
            recovered.extend(some.into_iter().map(|one| one.id));
        }
        clock.time.advance(HOUR);
    }
    assert!(recovered.contains(&lost.id), "the lease expired");
    let completed = ListFilter { status: Some(JobStatus::Completed), ..ListFilter::default() };
    let listed = store.list(&completed, &Page { cursor: None, limit: 9 }).await.expect("the store answers");
    assert_eq!(listed.jobs, [], "all completed jobs have expired");
    let conn = Connection::open(folder.file()).expect("the file opens");
    assert_eq!(number(&conn, "SELECT count(*) FROM jobs WHERE status = 3"), 0, "they were pruned");
}

/// A worker that renews keeps its job whichever way the clock steps.
#[tokio::test]
async fn live_worker_keeps_its_lease_over_clock_steps() {
    let (folder, clock) = (Folder::new(), SteppingClock::default());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    insert(&store, &job("alpha", HOUR)).await;
    let held = store.claim(&Claim { lease: LEASE, ..claim(1) }).await.expect("the store answers").attempts.remove(0);
    for ahead in [Duration::ZERO, HOUR, Duration::ZERO, HOUR] {
        clock.set_ahead(ahead);
        for _ in 0..6 {
            // The sweep comes before the renewal, as the worst case.
            match store.reclaim(&sweep(LEASE)).await.expect("the store answers") {
                Reclaimed::Waiting(left) => assert!(left <= LEASE, "{left:?}"),
                Reclaimed::Done { recovered, .. } => assert_eq!(recovered, []),
            }
            let renewed = store.renew(&heartbeat(), &[held.lease], LEASE).await.expect("the store answers");
            assert_eq!(renewed, [Renewed::Held]);
            clock.time.advance(LEASE / 3);
        }
    }
    clock.time.advance(LEASE);
    assert!(
        matches!(store.reclaim(&sweep(LEASE * 9)).await, Ok(Reclaimed::Done { recovered, .. }) if recovered.len() == 1)
    );
}

#[tokio::test]
async fn store_time_is_the_wall_clock() {
    let folder = Folder::new();
    let clock = SystemClock::default();
    for store in [SqliteStore::open(folder.file()).await.expect("the file opens"), fresh(&folder).await] {
        let now = store.stats(&StatsQuery::default()).await.expect("the store answers").now;
        assert!(now.since(clock.now()) < LEASE && clock.now().since(now) < LEASE);
    }
}

/// Polls of an idle process must not write to the disk. Only the probe does, which shows that writes succeed.
#[tokio::test]
async fn call_without_effect_writes_nothing() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    insert(&store, &job("beta", HOUR)).await;
    let other = Connection::open(folder.file()).expect("the file opens");
    let version = || number(&other, "PRAGMA data_version");
    let before = version();
    for _ in 0..3 {
        clock.advance(LEASE);
        assert!(store.claim(&claim(1)).await.expect("the store answers").attempts.is_empty());
        assert_eq!(store.prune(9).await.expect("the store answers"), 0);
    }
    assert_eq!(version(), before);
    store.probe().await.expect("the store answers");
    assert_ne!(version(), before);
}
