//! Helpers of the tests.

// Each test file uses some of them.
#![allow(dead_code, unreachable_pub, unused_imports)]

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_endpoints_core::{
    Clock, JobId, JobStatus, JobStore as _, Priority, StoreError, SystemClock,
    store::{
        Attempt, Claim, Heartbeat, InsertOutcome, JobLookup, LeaseToken, NewJob, Outcome, Reclaim, Settlement,
        TypeQuota, WorkerId,
    },
};
use async_endpoints_sqlite::{Options, SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::{error, job, name, worker};
use rusqlite::Connection;
use uuid::Uuid;

pub const HOUR: Duration = Duration::from_secs(3600);

/// A claim of at most `n` jobs of one type, by a new worker.
pub fn claim(n: u32) -> Claim {
    Claim {
        worker: WorkerId(Uuid::new_v4()),
        token: LeaseToken::random(),
        quotas: vec![TypeQuota { name: name("alpha"), max: n, timeout: HOUR }],
        max: n,
        max_bytes: 1 << 20,
        lease: HOUR,
    }
}

/// Runs SQL as another program.
pub fn by_hand(path: &Path, sql: &str) {
    let conn = Connection::open(path).expect("the file opens");
    conn.busy_timeout(Duration::from_secs(5)).expect("a timeout is set");
    conn.execute_batch(sql).expect("valid SQL");
}

pub async fn insert(store: &SqliteStore, job: &NewJob) {
    let answer = store.insert(job.clone()).await.expect("the store answers");
    assert!(matches!(answer, InsertOutcome::Inserted { .. }), "{answer:?}");
}

/// A new folder, removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sqlite-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("jobs.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A store on the file of a folder.
pub async fn open(folder: &Folder, synchronous: Synchronous, clock: impl Clock) -> SqliteStore {
    let options = Options::new().synchronous(synchronous);
    options.open_with_clock(folder.file(), clock).await.expect("the file opens")
}

pub async fn durable(folder: &Folder) -> SqliteStore {
    SqliteStore::open(folder.file()).await.expect("the file opens")
}

/// Runs one test of this program, or of a copy of it, in a new process.
#[cfg(unix)]
pub fn in_a_process(program: &std::path::Path, test: &str, set_up: impl FnOnce(&mut std::process::Command)) {
    let mut command = std::process::Command::new(program);
    command.args([test, "--exact"]);
    set_up(&mut command);
    let ran = command.output().expect("the process starts");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// A store that does not wait for the disk.
pub async fn fresh(folder: &Folder) -> SqliteStore {
    open(folder, Synchronous::Off, SystemClock::default()).await
}

pub fn number(conn: &Connection, sql: &str) -> u64 {
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number").unsigned_abs()
}

/// A settlement of an attempt.
pub fn end(attempt: &Attempt, outcome: Outcome) -> Settlement {
    Settlement::new(attempt.lease, outcome, error("X"))
}

/// A heartbeat of a new worker.
pub fn heartbeat() -> Heartbeat {
    Heartbeat { worker: worker(WorkerId(Uuid::new_v4())), ttl: HOUR }
}

/// A sweep. After a pause of more than `lease`, it reclaims nothing for a `lease`.
pub fn sweep(lease: Duration) -> Reclaim {
    Reclaim { limit: 100, lease, lost: error("L"), canceled: error("C") }
}

/// Whether a call failed because of an unreadable row.
pub fn is_unreadable<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unreadable(_)))
}

/// Inserts jobs of one type and priority.
pub async fn insert_many(store: &SqliteStore, count: usize, priority: u8, delay: Duration) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let mut new = job("alpha", HOUR).delay(delay);
        new.terms.priority = Priority::new(priority);
        insert(store, &new).await;
        ids.push(new.id);
    }
    ids
}

/// Quarantined jobs in the file.
pub fn quarantined(path: &Path) -> u64 {
    number(&Connection::open(path).expect("the file opens"), "SELECT count(*) FROM quarantine")
}

pub async fn status(store: &SqliteStore, id: JobId) -> Result<JobStatus, StoreError> {
    match store.get(id).await? {
        JobLookup::Found(job) => Ok(job.status),
        other => panic!("{other:?}"),
    }
}
