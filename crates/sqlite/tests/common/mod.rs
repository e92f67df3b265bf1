//! What the tests share.

// Each test file uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_endpoints_core::{
    Clock, JobStore as _,
    store::{Claim, Insert, LeaseToken, NewJob, Want, WorkerId},
};
use async_endpoints_sqlite::{Options, SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::name;
use rusqlite::Connection;
use uuid::Uuid;

pub const HOUR: Duration = Duration::from_secs(3600);

/// Takes jobs of one type, as a worker of its own.
pub fn claim(n: u32) -> Claim {
    Claim {
        worker: WorkerId(Uuid::new_v4()),
        token: LeaseToken::random(),
        wants: vec![Want { name: name("alpha"), n, timeout: HOUR }],
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
    assert!(matches!(answer, Insert::Inserted { .. }), "{answer:?}");
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
