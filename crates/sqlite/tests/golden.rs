//! Files of each released format, kept for ever: every later version opens them, reads what is in them, and carries
//! on what they hold. A format never changes what is in `tests/golden`, it adds a file:
//!
//! ```text
//! GOLDEN=crates/sqlite/tests/golden/2.sqlite cargo test -p async-endpoints-sqlite --test golden
//! ```
//!
//! They are made by [`make`], on a clock that stands at noon of the first of March 2026, and then closed in order, so
//! that there is no log beside them.

mod common;

use std::{path::Path, time::Duration};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, JobView, SharedState as _,
    job::AttemptOutcome,
    store::{
        Attempt, Beat, Cancel, Claim, Insert, Lookup, NewJob, Outcome, Reclaim, Reclaimed, Report, ReportedProgress,
        Retry, RetryAs, Role, Settle, Settled, Slots, StatsQuery, WorkerId,
    },
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, digest, error, job, key, line},
};
use bytes::Bytes;
use common::{Folder, HOUR, claim, open};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Ids of the jobs in a file.
const QUEUED: u128 = 1;
const SCHEDULED: u128 = 2;
const RUNNING: u128 = 3;
const COMPLETED: u128 = 4;
const FAILED: u128 = 5;
const CANCELED: u128 = 6;
const PRUNED: u128 = 7;
const LOST: u128 = 8;
const RETRIED: u128 = 9;
const AGAIN: u128 = 10;

const fn id(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

fn new(number: u128) -> NewJob {
    NewJob { id: id(number), ..job("alpha", WEEK) }
}

async fn insert(store: &SqliteStore, job: NewJob) {
    let answer = store.insert(job).await.expect("the store answers");
    assert!(matches!(answer, Insert::Inserted { .. }), "{answer:?}");
}

async fn take(store: &SqliteStore) -> Attempt {
    let claim = Claim { lease: LEASE, ..claim(1) };
    store.claim(&claim).await.expect("the store answers").attempts.pop().expect("a job waits")
}

async fn settle(store: &SqliteStore, attempt: &Attempt, outcome: Outcome) -> JobStatus {
    let span = Some("00f067aa0ba902b7".to_owned());
    let settle = Settle { lease: attempt.lease, outcome, if_canceled: error("X"), slow: false, span };
    match store.settle(&[settle]).await.expect("the store answers")[0] {
        Settled::Settled(status) => status,
        Settled::Lost => panic!("the lease is held"),
    }
}

async fn report(store: &SqliteStore, attempt: &Attempt, lines: &[&str]) {
    let progress =
        ReportedProgress { completed: 3, total: Some(9), percent: Some(33.3), message: Some("third".to_owned()) };
    let logs = lines.iter().map(|text| line(*text)).collect();
    store.report(&[Report { lease: attempt.lease, progress: Some(progress), logs }]).await.expect("the store answers");
}

async fn sweep(store: &SqliteStore) -> usize {
    let sweep = Reclaim { limit: 9, lease: LEASE, lost: error("LOST"), canceled: error("C") };
    match store.reclaim(&sweep).await.expect("the store answers") {
        Reclaimed::Done { recovered, .. } => recovered.len(),
        Reclaimed::Waiting(_) => 0,
    }
}

/// Writes a file that holds all there is. Each step leaves one job as it is told, and nothing runnable behind.
async fn make(path: &Path) {
    let clock = ManualClock::new();
    let store = SqliteStore::open_with_clock(path, clock.clone()).await.expect("it opens");
    // Long ago: what is left of it is a tombstone.
    insert(&store, NewJob { owner: Some(digest(7)), key: Some(key("seven")), ..new(PRUNED) }).await;
    settle(&store, &take(&store).await, completed("7")).await;
    clock.advance(WEEK);
    assert_eq!(store.prune(9).await.expect("the store answers"), 1);

    insert(&store, NewJob { owner: Some(digest(4)), key: Some(key("four")), ..new(COMPLETED) }).await;
    let attempt = take(&store).await;
    report(&store, &attempt, &["one", "two"]).await;
    settle(&store, &attempt, completed("{\"four\":4}")).await;

    insert(&store, new(FAILED)).await;
    let attempt = take(&store).await;
    report(&store, &attempt, &["a"]).await;
    settle(&store, &attempt, Outcome::Retry { delay: Duration::from_secs(5), error: error("FIRST") }).await;
    clock.advance(Duration::from_secs(6));
    settle(&store, &take(&store).await, Outcome::Failed { error: error("SECOND") }).await;

    insert(&store, new(CANCELED)).await;
    let canceled = store.cancel(id(CANCELED), &error("C")).await.expect("the store answers");
    assert!(matches!(canceled, Cancel::Canceled(_)));

    insert(&store, new(RETRIED)).await;
    settle(&store, &take(&store).await, Outcome::Failed { error: error("F") }).await;
    let again = store.retry(id(RETRIED), &RetryAs { id: id(AGAIN), trace: None }).await.expect("the store answers");
    assert!(matches!(again, Retry::Created(_)));
    settle(&store, &take(&store).await, completed("10")).await;

    // Lost once, given back once; then it waits.
    insert(&store, new(LOST)).await;
    sweep(&store).await;
    take(&store).await;
    clock.advance(LEASE);
    assert_eq!(sweep(&store).await, 1);
    settle(&store, &take(&store).await, Outcome::Released).await;
    settle(&store, &take(&store).await, Outcome::Retry { delay: HOUR, error: error("LATER") }).await;

    insert(&store, new(RUNNING)).await;
    let attempt = take(&store).await;
    report(&store, &attempt, &["running"]).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    let trace =
        Some(async_endpoints_core::job::TraceContext { traceparent: trace, tracestate: Some("v=1".to_owned()) });
    insert(&store, NewJob { owner: Some(digest(1)), key: Some(key("one")), trace, ..new(QUEUED) }).await;
    insert(&store, NewJob { delay: 2 * HOUR, ..new(SCHEDULED) }).await;

    let slots = Slots { busy: 1, idle: 1, leaked: 0 };
    let beat = Beat { worker: WorkerId(Uuid::from_u128(1)), types: Vec::new(), slots, ttl: WEEK };
    store.renew(&beat, &[attempt.lease], LEASE).await.expect("the store answers");
    store.role("sweeper", Uuid::from_u128(2), WEEK).await.expect("the store answers");
    store.put_document("d", None, Bytes::from_static(b"text"), None).await.expect("the store answers");
    close(store, path).await;
}

/// Until its threads have closed the file, and taken the log away.
async fn close(store: SqliteStore, path: &Path) {
    drop(store);
    let log = path.with_extension("sqlite-wal");
    let gone = async {
        while log.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it closes");
}

async fn view(store: &SqliteStore, number: u128) -> JobView {
    match store.get(id(number)).await.expect("the store answers") {
        Lookup::Found(view) => *view,
        other => panic!("{number}: {other:?}"),
    }
}

fn outcomes(view: &JobView) -> Vec<Option<AttemptOutcome>> {
    view.attempts.iter().map(|attempt| attempt.outcome).collect()
}

async fn all_reads(store: &SqliteStore) {
    use AttemptOutcome::{Failed, Lost, Released, Retried};
    let done = view(store, COMPLETED).await;
    assert_eq!((done.status, done.result.as_deref()), (JobStatus::Completed, Some(&b"{\"four\":4}"[..])));
    assert_eq!((done.owner, done.progress.expect("it told").percent), (Some(digest(4)), Some(33.3)));
    let logs = store.logs(id(COMPLETED), 0, 9).await.expect("the store answers");
    assert_eq!(
        logs.iter().map(|line| (line.line, line.message.as_str())).collect::<Vec<_>>(),
        [(1, "one"), (2, "two")]
    );
    let failed = view(store, FAILED).await;
    assert_eq!(
        (failed.status, failed.retry_count, failed.error.clone()),
        (JobStatus::Failed, 1, Some(error("SECOND")))
    );
    assert_eq!(outcomes(&failed), [Some(Retried), Some(Failed)]);
    assert_eq!(failed.attempts[0].error, Some(error("FIRST")));
    let canceled = view(store, CANCELED).await;
    assert_eq!((canceled.status, canceled.error), (JobStatus::Canceled, Some(error("C"))));
    assert_eq!(view(store, RETRIED).await.retried_by, Some(id(AGAIN)));
    assert_eq!(view(store, AGAIN).await.retry_of, Some(id(RETRIED)));
    let lost = view(store, LOST).await;
    assert_eq!((lost.status, lost.loss_count, lost.release_count), (JobStatus::Scheduled, 1, 1));
    assert_eq!(outcomes(&lost), [Some(Lost), Some(Released), Some(Retried)]);
    let running = view(store, RUNNING).await;
    assert_eq!((running.status, outcomes(&running)), (JobStatus::InProgress, vec![None]));
    let queued = view(store, QUEUED).await;
    assert_eq!((queued.status, queued.ahead), (JobStatus::Queued, Some(0)));
    assert_eq!(queued.trace.expect("it has one").tracestate.as_deref(), Some("v=1"));
    let pruned = store.get(id(PRUNED)).await.expect("the store answers");
    assert_eq!(pruned, Lookup::Gone { owner: Some(digest(7)) });

    let stats =
        store.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await.expect("the store answers");
    assert_eq!((stats.types[0].counts, stats.types[0].never_started), ([1, 2, 1, 2, 2, 1], 1));
    assert_eq!((stats.beats.len(), stats.quarantined), (1, 0));
    assert!(stats.slots.iter().map(|slot| slot.ended.iter().sum::<u64>()).sum::<u64>() >= 5);
    let document = store.document("d").await.expect("the store answers").expect("it was written");
    assert_eq!(document.bytes, Bytes::from_static(b"text"));
    let role = store.role("sweeper", Uuid::from_u128(9), LEASE).await.expect("the store answers");
    assert!(matches!(role, Role::Other(_)), "{role:?}");
    // Keys and ids are known: of a job that waits, and of one that was pruned.
    for (number, owner, of) in [(QUEUED, 1, "one"), (COMPLETED, 4, "four"), (PRUNED, 7, "seven")] {
        let repeat = NewJob { owner: Some(digest(owner)), key: Some(key(of)), ..new(number) };
        let repeat = NewJob { id: id(100 + number), ..repeat };
        let answer = store.insert(repeat).await.expect("the store answers");
        assert!(matches!(answer, Insert::Existing(_)), "{answer:?}");
    }
}

/// Whatever had not ended goes on: the running one is lost with its worker, the scheduled ones become due.
async fn all_goes_on(store: &SqliteStore, clock: &ManualClock) {
    sweep(store).await;
    clock.advance(LEASE);
    sweep(store).await;
    clock.advance(LEASE);
    sweep(store).await;
    assert_eq!(view(store, RUNNING).await.loss_count, 1);
    // The file is ahead of the clock, and that heals meanwhile.
    clock.advance(3 * HOUR);
    let mut ended = Vec::new();
    for _ in 0..4 {
        let attempt = take(store).await;
        assert_eq!(&attempt.payload[..], br#"{"a":1}"#);
        assert_eq!(settle(store, &attempt, completed("0")).await, JobStatus::Completed);
        ended.push(attempt.lease.job);
    }
    ended.sort_unstable();
    assert_eq!(ended, [QUEUED, SCHEDULED, RUNNING, LOST].map(id));
    let Retry::Created(again) =
        store.retry(id(FAILED), &RetryAs { id: id(200), trace: None }).await.expect("the store answers")
    else {
        panic!("a failed one runs again")
    };
    assert_eq!(again.status, JobStatus::Queued);
    settle(store, &take(store).await, completed("0")).await;
    clock.advance(3 * WEEK);
    while store.prune(100).await.expect("the store answers") > 0 {}
    let stats = store.stats(&StatsQuery::default()).await.expect("the store answers");
    assert_eq!(stats.types[0].counts, [0; 6]);
}

async fn is_whole(path: &Path, folder: &Folder) {
    std::fs::copy(path, folder.file()).expect("the file is there");
    let clock = ManualClock::new();
    let store = open(folder, Synchronous::Off, clock.clone()).await;
    all_reads(&store).await;
    all_goes_on(&store, &clock).await;
}

#[tokio::test]
async fn every_format_that_was_ever_released_is_read_and_goes_on() {
    let golden = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).expect("they are there");
    let files: Vec<_> = golden.map(|file| file.expect("it is listed").path()).collect();
    for file in &files {
        println!("{}", file.display());
        is_whole(file, &Folder::new()).await;
    }
    assert!(!files.is_empty());
}

/// What makes them still does, and this version's is read as all are.
#[tokio::test]
async fn a_file_of_this_version_is_read_and_goes_on() {
    let folder = Folder::new();
    let path = folder.file().with_file_name("new.sqlite");
    make(&path).await;
    is_whole(&path, &folder).await;
    if let Some(kept) = std::env::var_os("GOLDEN") {
        std::fs::copy(&path, kept).expect("it is written");
    }
}
