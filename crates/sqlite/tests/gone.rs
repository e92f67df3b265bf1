//! The file or a companion is deleted or replaced under a running store: no job is accepted into it.

mod common;

use std::{path::Path, time::Duration};

use async_endpoints_core::{JobStore as _, StoreError, store::StatsQuery};
use async_endpoints_sqlite::SqliteStore;
use async_endpoints_testkit::jobs::job;
use common::{Folder, HOUR, by_hand, claim, durable, insert};

#[tokio::test]
async fn call_on_a_deleted_file_is_unavailable() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    let away = folder.file().with_extension("away");
    std::fs::rename(folder.file(), &away).unwrap();
    let gone = |answer: &StoreError| matches!(answer, StoreError::Unavailable(why) if why.contains("jobs.db"));
    assert!(gone(&store.insert(job("alpha", HOUR)).await.expect_err("the file is gone")));
    assert!(gone(&store.get(kept.id).await.expect_err("the file is gone")));
    assert!(gone(&store.probe().await.expect_err("the file is gone")));
    std::fs::write(folder.file(), "").unwrap();
    let replaced = store.insert(job("alpha", HOUR)).await.expect_err("the file was replaced");
    assert!(replaced.to_string().contains("replaced"), "{replaced}");
    std::fs::rename(&away, folder.file()).unwrap();
    insert(&store, &job("alpha", HOUR)).await;
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [2, 0, 0, 0, 0, 0]);
}

/// Commits are in the log before they are in the file.
#[cfg(unix)]
#[tokio::test]
async fn call_on_a_deleted_or_replaced_log_is_unavailable() {
    for ending in ["db-wal", "db-shm"] {
        let folder = Folder::new();
        let store = durable(&folder).await;
        let kept = job("alpha", HOUR);
        insert(&store, &kept).await;
        let (part, away) = (folder.file().with_extension(ending), folder.file().with_extension("away"));
        std::fs::rename(&part, &away).unwrap();
        let gone = store.insert(job("alpha", HOUR)).await.expect_err("the log is gone");
        assert!(gone.is_transient() && gone.to_string().contains(&format!("jobs.{ending} is gone")), "{gone}");
        assert!(store.get(kept.id).await.is_err() && store.probe().await.is_err());
        std::fs::write(&part, "").unwrap();
        let replaced = store.insert(job("alpha", HOUR)).await.expect_err("the log was replaced");
        assert!(replaced.to_string().contains(&format!("jobs.{ending} was replaced")), "{replaced}");
        std::fs::rename(&away, &part).unwrap();
        insert(&store, &job("alpha", HOUR)).await;
        assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [2, 0, 0, 0, 0, 0]);
    }
}

/// Follows `docs/sqlite.md` to replace the file: nothing is written to the new file before all processes have stopped.
#[tokio::test]
async fn replacement_file_is_used_after_a_restart() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let before = job("alpha", HOUR);
    insert(&store, &before).await;
    let copy = folder.file().with_extension("copy");
    by_hand(&folder.file(), &format!("VACUUM INTO '{}'", copy.display()));
    let after = job("alpha", HOUR);
    insert(&store, &after).await;
    let old = folder.file().with_extension("old");
    std::fs::rename(folder.file(), &old).unwrap();
    std::fs::rename(&copy, folder.file()).unwrap();
    for _ in 0..2 {
        let refused = store.insert(job("alpha", HOUR)).await.expect_err("the file was replaced");
        assert!(refused.is_transient() && refused.to_string().contains("replaced"), "{refused}");
        assert!(store.get(before.id).await.is_err() && store.claim(&claim(1)).await.is_err());
    }
    let bytes = std::fs::read(folder.file()).unwrap();
    drop(store);
    assert_eq!(std::fs::read(folder.file()).unwrap(), bytes, "nothing was copied into the new file");
    // The log that is left belongs to the old file.
    std::fs::rename(folder.file().with_extension("db-wal"), old.with_extension("old-wal")).unwrap();
    std::fs::remove_file(folder.file().with_extension("db-shm")).unwrap();
    let store = durable(&folder).await;
    assert_eq!(store.versions(&[before.id, after.id]).await.unwrap(), [Some(1), None]);
    insert(&store, &after).await;
    assert_eq!(store.claim(&claim(9)).await.unwrap().attempts.len(), 2);
    drop(store);
    // With its log beside it, the old file has lost nothing.
    assert_eq!(SqliteStore::open(&old).await.unwrap().versions(&[before.id, after.id]).await.unwrap(), [Some(1); 2]);
}

/// Whether this process has the file open.
#[cfg(target_os = "linux")]
fn is_open(path: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").expect("open files are listed").flatten();
    open.filter_map(|open| std::fs::read_link(open.path()).ok()).any(|open| open == path)
}

/// A process that stops in order still copies its log into the file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn orderly_stop_saves_a_deleted_log() {
    for ending in ["db-wal", "db-shm"] {
        let folder = Folder::new();
        let store = durable(&folder).await;
        let kept = job("alpha", HOUR);
        insert(&store, &kept).await;
        std::fs::remove_file(folder.file().with_extension(ending)).unwrap();
        assert!(store.insert(job("alpha", HOUR)).await.is_err());
        drop(store);
        let began = std::time::Instant::now();
        while is_open(&folder.file()) {
            assert!(began.elapsed() < Duration::from_secs(10), "its threads end in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let types = durable(&folder).await.stats(&StatsQuery::default()).await.unwrap().types;
        let counts = types.first().map(|of| of.counts);
        assert_eq!(counts, Some([1, 0, 0, 0, 0, 0]), "{ending}");
    }
}
