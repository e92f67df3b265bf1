//! What the tests share.

// Each test file uses a part of it.
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
        TypeQuota, WorkerId, WorkerSlots,
    },
};
use async_endpoints_sqlite::{Options, SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::{error, job, name};
use rusqlite::Connection;
use uuid::Uuid;

pub const HOUR: Duration = Duration::from_secs(3600);

/// Takes jobs of one type, as a worker of its own.
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

/// Another program's connection to the file.
pub fn by_hand(path: &Path, sql: &str) {
    let conn = Connection::open(path).expect("it opens");
    conn.busy_timeout(Duration::from_secs(5)).expect("it waits");
    conn.execute_batch(sql).expect("it is SQL");
}

pub async fn insert(store: &SqliteStore, job: &NewJob) {
    let answer = store.insert(job.clone()).await.expect("the store answers");
    assert!(matches!(answer, InsertOutcome::Inserted { .. }), "{answer:?}");
}

/// A fresh folder, removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sqlite-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder is made");
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
    options.open_with_clock(folder.file(), clock).await.expect("a fresh store opens")
}

pub async fn durable(folder: &Folder) -> SqliteStore {
    SqliteStore::open(folder.file()).await.expect("it opens")
}

/// Runs one test of such a program as this in a process of its own.
#[cfg(unix)]
pub fn in_a_process(program: &std::path::Path, test: &str, set_up: impl FnOnce(&mut std::process::Command)) {
    let mut command = std::process::Command::new(program);
    command.args([test, "--exact"]);
    set_up(&mut command);
    let ran = command.output().expect("it starts");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

pub async fn fresh(folder: &Folder) -> SqliteStore {
    open(folder, Synchronous::Off, SystemClock::default()).await
}

pub fn number(conn: &Connection, sql: &str) -> u64 {
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number").unsigned_abs()
}

pub fn end(attempt: &Attempt, outcome: Outcome) -> Settlement {
    Settlement::new(attempt.lease, outcome, error("X"))
}

pub fn beat() -> Heartbeat {
    let slots = WorkerSlots { busy: 1, idle: 1, leaked: 0 };
    Heartbeat { worker: WorkerId(uuid::Uuid::new_v4()), types: Vec::new(), slots, ttl: HOUR }
}

/// A sweep takes nothing for one lease if there was none for one.
pub fn sweep(lease: Duration) -> Reclaim {
    Reclaim { limit: 100, lease, lost: error("L"), canceled: error("C") }
}

pub fn is_corrupt<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Corrupt(_)))
}

/// Jobs of one type that wait, each of that priority.
pub async fn waiting(store: &SqliteStore, many: usize, priority: u8, delay: Duration) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..many {
        let mut new = NewJob { delay, ..job("alpha", HOUR) };
        new.terms.priority = Priority::new(priority);
        insert(store, &new).await;
        ids.push(new.id);
    }
    ids
}

/// Asks the file, as statistics may need what is damaged.
pub fn aside(path: &Path) -> u64 {
    number(&Connection::open(path).expect("it opens"), "SELECT count(*) FROM quarantine")
}

pub async fn status(store: &SqliteStore, id: JobId) -> Result<JobStatus, StoreError> {
    match store.get(id).await? {
        JobLookup::Found(job) => Ok(job.status),
        other => panic!("{other:?}"),
    }
}
