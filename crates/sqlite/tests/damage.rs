//! A damaged page stops the store: each call fails with the same clear error.

mod common;

use std::path::Path;

use async_endpoints_core::{
    JobStatus, JobStore as _, StoreError,
    store::{ListFilter, Page, StatsQuery},
};
use async_endpoints_sqlite::SqliteStore;
use async_endpoints_testkit::jobs::{completed, error, job};
use common::{Folder, HOUR, by_hand, claim, end, fresh, heartbeat, insert, number, sweep};
use rusqlite::Connection;

/// Inverts the first page of a table and makes other connections read it again. Returns its offset and its content before.
fn damage(path: &Path, table: &str) -> (u64, Vec<u8>) {
    let (offset, page) = root_page(path, table);
    write_page(path, offset, &page.iter().map(|byte| !byte).collect::<Vec<_>>());
    (offset, page)
}

fn root_page(path: &Path, table: &str) -> (u64, Vec<u8>) {
    let conn = Connection::open(path).expect("the file opens");
    let page = number(&conn, &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'"));
    assert_eq!(number(&conn, "PRAGMA wal_checkpoint(TRUNCATE)"), 0, "the log is copied back");
    let size = number(&conn, "PRAGMA page_size");
    let offset = (page - 1) * size;
    let file = std::fs::read(path).expect("the file is read");
    (offset, file[offset as usize..(offset + size) as usize].to_vec())
}

fn write_page(path: &Path, offset: u64, page: &[u8]) {
    use std::io::{Seek as _, Write as _};
    let mut file = std::fs::File::options().write(true).open(path).expect("the file opens");
    file.seek(std::io::SeekFrom::Start(offset)).expect("the page is written");
    file.write_all(page).expect("the page is written");
    by_hand(path, "INSERT OR REPLACE INTO documents VALUES ('a change', x'00', randomblob(9))");
}

/// The text of a corruption error, which has to name the file and the remedies.
fn corrupt<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    let error = answer.expect_err("the file is damaged");
    let text = error.to_string();
    assert!(matches!(error, StoreError::Corrupt(_)), "{text}");
    for part in ["jobs.db is damaged", "malformed", "restore a backup", ".recover"] {
        assert!(text.contains(part), "{text}");
    }
    text
}

#[tokio::test]
async fn damaged_page_stops_the_store() {
    for table in ["meta", "jobs", "payloads", "jobs_by_state", "minutes"] {
        let folder = Folder::new();
        let store = fresh(&folder).await;
        let kept = job("alpha", HOUR);
        insert(&store, &kept).await;
        insert(&store, &job("alpha", HOUR)).await;
        let running = store.claim(&claim(1)).await.expect("the file is intact").attempts.remove(0);
        let (offset, page) = damage(&folder.file(), table);

        // A settlement needs each of the tables.
        let first = corrupt(store.settle(&[end(&running, completed("1"))]).await);
        let mut errors = vec![
            corrupt(store.insert(job("alpha", HOUR)).await),
            corrupt(store.get(kept.id).await),
            corrupt(store.versions(&[kept.id]).await),
            corrupt(store.list(&ListFilter::default(), &Page { cursor: None, limit: 9 }).await),
            corrupt(store.stats(&StatsQuery::default()).await),
            corrupt(store.claim(&claim(1)).await),
            corrupt(store.renew(&heartbeat(), &[running.lease], HOUR).await),
            corrupt(store.cancel(kept.id, &error("C")).await),
            corrupt(store.reclaim(&sweep(HOUR)).await),
            corrupt(store.prune(9).await),
            corrupt(store.probe().await),
        ];
        // The stop is final, as other pages may be damaged too.
        write_page(&folder.file(), offset, &page);
        errors.push(corrupt(store.insert(job("alpha", HOUR)).await));
        assert!(errors.iter().all(|error| *error == first), "{table}: {errors:#?}");

        drop(store);
        let store = SqliteStore::open(folder.file()).await.expect("the page was restored");
        let stats = store.stats(&StatsQuery::default()).await.expect("the page was restored");
        let counts = [JobStatus::Queued, JobStatus::InProgress].map(|status| stats.types[0].count(status));
        assert_eq!(counts, [1, 1], "{table}: the failed calls changed nothing");
    }
}

#[tokio::test]
async fn read_of_a_damaged_page_stops_writes() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    store.claim(&claim(1)).await.expect("the file is intact");
    damage(&folder.file(), "attempts");
    store.probe().await.expect("a probe does not read the page");
    let first = corrupt(store.get(kept.id).await);
    assert_eq!(corrupt(store.insert(job("alpha", HOUR)).await), first);
}

/// As after a disk that dropped a write it had confirmed.
#[tokio::test]
async fn index_entry_without_a_row_stops_the_store() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    insert(&store, &job("alpha", HOUR)).await;
    let (offset, page) = root_page(&folder.file(), "jobs");
    insert(&store, &job("alpha", HOUR)).await;
    root_page(&folder.file(), "jobs");
    write_page(&folder.file(), offset, &page);
    let list = ListFilter { status: Some(JobStatus::Queued), ..ListFilter::default() };
    let listed = fresh(&folder).await.list(&list, &Page { cursor: None, limit: 9 }).await;
    assert!(listed.expect_err("a row is missing").to_string().contains("jobs.db is damaged"));
    let error = store.claim(&claim(9)).await.expect_err("a row is missing");
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("jobs.db is damaged")), "{error}");
    assert_eq!(store.probe().await.expect_err("the store has stopped").to_string(), error.to_string());
}

#[tokio::test]
async fn open_of_a_damaged_file_fails() {
    let folder = Folder::new();
    drop(fresh(&folder).await);
    damage(&folder.file(), "meta");
    let refused = SqliteStore::open(folder.file()).await.expect_err("the file is damaged");
    assert!(!refused.is_transient() && refused.to_string().contains("jobs.db is damaged"), "{refused}");
}
