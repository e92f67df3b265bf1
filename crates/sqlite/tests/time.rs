//! One time for all processes of a file: two stores whose clocks are an hour apart.

mod common;

use std::time::Duration;

use async_endpoints_core::{
    Clock, JobStore as _, SystemClock, Timestamp,
    store::{
        Attempt, Claim, Heartbeat, JobLookup, Lease, NewJob, Reclaim, Reclaimed, Renewed, StatsQuery, WorkerId,
        WorkerSlots,
    },
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{error, job},
};
use common::{Folder, HOUR, claim, open};
use rusqlite::Connection;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(60);
const HALF: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

/// Two processes. The one that started first, the other, and how to let time pass for both.
struct Two {
    folder: Folder,
    first: SqliteStore,
    clocks: [ManualClock; 2],
}

impl Two {
    async fn new(first_ahead: Duration, second_ahead: Duration) -> Self {
        let (folder, clocks) = (Folder::new(), [ManualClock::new(), ManualClock::new()]);
        clocks[0].advance(first_ahead);
        clocks[1].advance(second_ahead);
        let first = open(&folder, Synchronous::Off, clocks[0].clone()).await;
        Self { folder, first, clocks }
    }

    async fn second(&self) -> SqliteStore {
        open(&self.folder, Synchronous::Off, self.clocks[1].clone()).await
    }

    fn pass(&self, time: Duration) {
        self.clocks.iter().for_each(|clock| clock.advance(time));
    }
}

async fn take(store: &SqliteStore) -> Option<Attempt> {
    store.claim(&Claim { lease: LEASE, ..claim(1) }).await.expect("it answers").attempts.pop()
}

async fn sweep(store: &SqliteStore) -> Reclaimed {
    let sweep = Reclaim { limit: 9, lease: LEASE, lost: error("L"), canceled: error("C") };
    store.reclaim(&sweep).await.expect("it answers")
}

fn recovered(swept: &Reclaimed) -> usize {
    match swept {
        Reclaimed::Done { recovered, .. } => recovered.len(),
        Reclaimed::Waiting(_) => 0,
    }
}

async fn renew(store: &SqliteStore, lease: Lease) -> Renewed {
    let slots = WorkerSlots { busy: 1, idle: 0, leaked: 0 };
    let beat = Heartbeat { worker: WorkerId(Uuid::from_u128(7)), types: Vec::new(), slots, ttl: LEASE };
    store.renew(&beat, &[lease], LEASE).await.expect("it answers").remove(0)
}

async fn now(store: &SqliteStore) -> Timestamp {
    store.stats(&StatsQuery::default()).await.expect("it answers").now
}

/// A job of one runs for as long as it is renewed, whoever sweeps, and no longer.
async fn a_living_worker_keeps_its_job(two: &Two) {
    two.first.insert(job("alpha", HOUR)).await.expect("it answers");
    let held = take(&two.first).await.expect("it is there");
    // The first process sweeps as it always does: its sweep after a long time takes nothing, the next one may.
    sweep(&two.first).await;
    two.pass(HALF);
    assert_eq!(renew(&two.first, held.lease).await, Renewed::Held);
    let before = now(&two.first).await;

    let second = two.second().await;
    assert_eq!(recovered(&sweep(&second).await), 0, "nobody swept for a lease by the new time");
    assert!(now(&second).await >= before, "times go on");
    assert_eq!(renew(&two.first, held.lease).await, Renewed::Held);
    assert_eq!(now(&two.first).await, now(&second).await, "they agree");
    for _ in 0..6 {
        two.pass(HALF);
        assert_eq!(renew(&two.first, held.lease).await, Renewed::Held);
        assert_eq!(recovered(&sweep(&second).await), 0, "it is renewed");
        assert_eq!(recovered(&sweep(&two.first).await), 0, "it is renewed");
    }
    two.pass(HALF);
    sweep(&second).await;
    two.pass(HALF + Duration::from_secs(5));
    assert_eq!(recovered(&sweep(&second).await), 1, "nobody renewed it for a lease");

    // The other way round: what the second one runs, the first one leaves alone.
    let held = take(&second).await.expect("it waits again");
    two.pass(HALF);
    assert_eq!(recovered(&sweep(&two.first).await), 0);
    assert_eq!(renew(&second, held.lease).await, Renewed::Held);
}

#[tokio::test]
async fn a_clock_that_was_set_forward_takes_no_job_from_the_living() {
    a_living_worker_keeps_its_job(&Two::new(Duration::ZERO, HOUR).await).await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_takes_no_job_from_the_living() {
    a_living_worker_keeps_its_job(&Two::new(HOUR, Duration::ZERO).await).await;
}

/// What either puts off starts in time, for either.
async fn nothing_starts_early(two: &Two) {
    two.first.insert(job("other", HOUR)).await.expect("it answers");
    let second = two.second().await;
    second.insert(job("other", HOUR)).await.expect("it answers");
    for (by, other) in [(&two.first, &second), (&second, &two.first)] {
        let later = NewJob { delay: 30 * MINUTE, ..job("alpha", HOUR) };
        by.insert(later.clone()).await.expect("it answers");
        for _ in 0..2 {
            assert!(take(other).await.is_none() && take(by).await.is_none(), "it is early");
            two.pass(14 * MINUTE);
        }
        // Who heals a difference may be a sixteenth late.
        two.pass(4 * MINUTE);
        assert_eq!(take(other).await.expect("it is due").lease.job, later.id);
    }
}

#[tokio::test]
async fn no_delayed_job_starts_early() {
    nothing_starts_early(&Two::new(Duration::ZERO, HOUR).await).await;
    nothing_starts_early(&Two::new(HOUR, Duration::ZERO).await).await;
}

#[tokio::test]
async fn a_process_with_an_earlier_clock_goes_on_from_the_time_of_the_file() {
    let two = Two::new(HOUR, Duration::ZERO).await;
    let (old, new) = (job("alpha", HOUR), job("alpha", HOUR));
    two.first.insert(old.clone()).await.expect("it answers");
    let before = now(&two.first).await;
    drop(two.first);
    let second = open(&two.folder, Synchronous::Off, two.clocks[1].clone()).await;
    assert!(now(&second).await >= before, "a reader knows, before anything was written");
    second.insert(new.clone()).await.expect("it answers");
    let JobLookup::Found(new) = second.get(new.id).await.expect("it answers") else { panic!("it is there") };
    assert!(new.created_at >= before);
    two.clocks[1].advance(16 * MINUTE);
    assert_eq!(now(&second).await, before + 15 * MINUTE, "its own clock moves it on");
    two.clocks[1].advance(20 * HOUR);
    assert_eq!(now(&second).await, two.clocks[1].now(), "what the other clock did has healed");
}

/// Renews once, and lets a moment pass for both.
async fn work(two: &Two, lease: Lease) {
    assert_eq!(renew(&two.first, lease).await, Renewed::Held);
    two.pass(Duration::from_millis(10));
}

#[tokio::test]
async fn a_clock_far_ahead_is_not_believed_beside_others_that_work() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let two = Two::new(Duration::ZERO, YEAR).await;
    two.first.insert(job("alpha", HOUR)).await.expect("it answers");
    let held = take(&two.first).await.expect("it is there");
    work(&two, held.lease).await;
    let mut opening = std::pin::pin!(two.second());
    let second = loop {
        tokio::select! {
            opened = &mut opening => break opened,
            () = work(&two, held.lease) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let apart = |one: Timestamp, other: Timestamp| one.since(other).max(other.since(one));
    assert!(apart(now(&second).await, two.clocks[0].now()) < MINUTE);

    // It goes on with the time of the file, a sixteenth faster, and what it ever added heals once it is gone.
    let began = two.clocks[0].now();
    two.pass(16 * MINUTE);
    second.insert(job("beta", HOUR)).await.expect("it answers");
    for store in [&second, &two.first] {
        assert!(apart(now(store).await, began + 17 * MINUTE) < HALF, "{}", now(store).await);
    }
    drop(second);
    two.pass(32 * MINUTE);
    assert_eq!(now(&two.first).await, two.clocks[0].now());
}

/// A clock of a machine, a year ahead.
struct Ahead(SystemClock);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + 365 * 24 * HOUR
    }
}

#[tokio::test]
async fn a_process_with_a_clock_far_ahead_does_not_take_the_others_along() {
    if let Some(path) = std::env::var_os("AHEAD") {
        let store = SqliteStore::open_with_clock(path, Ahead(SystemClock::default())).await.expect("it opens");
        store.insert(job("alpha", HOUR)).await.expect("it answers");
        take(&store).await.expect("it is there");
        return;
    }
    let (folder, clock) = (Folder::new(), SystemClock::default());
    let store = SqliteStore::open(folder.file()).await.expect("it opens");
    store.insert(job("alpha", HOUR)).await.expect("it answers");
    let held = take(&store).await.expect("it is there");
    let mut other = std::process::Command::new(std::env::current_exe().expect("its name"))
        .args(["a_process_with_a_clock_far_ahead_does_not_take_the_others_along", "--exact"])
        .env("AHEAD", folder.file())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let ended = loop {
        assert_eq!(renew(&store, held.lease).await, Renewed::Held);
        match other.try_wait().expect("it runs") {
            Some(ended) => break ended,
            None => tokio::time::sleep(HALF / 300).await,
        }
    };
    assert!(ended.success());
    let counts = store.stats(&StatsQuery::default()).await.expect("it answers").types[0].counts;
    assert_eq!(counts, [0, 0, 2, 0, 0, 0], "it did something");
    assert!(now(&store).await.since(clock.now()) < MINUTE);
}

/// The time is written with what it decided, and for nothing else: an idle process must not wake the disk.
#[tokio::test]
async fn who_finds_nothing_to_do_writes_nothing() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    store.insert(job("beta", HOUR)).await.expect("it answers");
    let other = Connection::open(folder.file()).expect("it answers");
    let version = || other.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).expect("it answers");
    let before = version();
    for _ in 0..3 {
        clock.advance(HALF);
        assert!(take(&store).await.is_none());
        store.probe().await.expect("it answers");
        assert_eq!(store.prune(9).await.expect("it answers"), 0);
    }
    assert_eq!(version(), before);
}
