//! Unreadable rows are quarantined or left out, and do not affect other jobs.

mod common;

use std::time::Duration;

use async_endpoints_core::{
    JobStatus, JobStore as _, SharedState as _, StoreError,
    store::{JobLookup, ListFilter, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Report, Role, StatsQuery},
};
use async_endpoints_sqlite::Synchronous;
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job, line},
};
use bytes::Bytes;
use common::{
    Folder, HOUR, by_hand, claim, end, fresh, heartbeat, insert, insert_many, is_unreadable, number, open, quarantined,
    status, sweep,
};
use rusqlite::Connection;
use uuid::Uuid;

#[tokio::test]
async fn unreadable_job_is_quarantined() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    let jobs: Vec<NewJob> = (0..6).map(|_| job("alpha", HOUR)).collect();
    for job in &jobs {
        insert(&store, job).await;
    }
    let id = |at: usize| format!("x'{}'", jobs[at].id.0.simple());
    for (at, damage) in [(0, "priority = 77"), (1, "error = '{'"), (2, "fingerprint = x'00'")] {
        by_hand(&folder.file(), &format!("UPDATE jobs SET {damage} WHERE id = {}", id(at)));
    }
    let payload = format!("UPDATE payloads SET format = 9 WHERE seq = (SELECT seq FROM jobs WHERE id = {})", id(3));
    by_hand(&folder.file(), &payload);
    let taken = store.claim(&claim(64)).await.unwrap();
    assert_eq!(taken.attempts.iter().map(|one| one.lease.job).collect::<Vec<_>>(), [jobs[4].id, jobs[5].id]);
    assert_eq!(taken.next_claim, None);
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.quarantined, stats.types[0].counts), (4, [0, 0, 2, 0, 0, 0]));
    assert!(matches!(store.get(jobs[0].id).await, Err(StoreError::Unreadable(_))));
    let negative = "SELECT count(*) FROM types WHERE min(queued_0, queued_1, queued_2, queued_3, queued_4, queued_5, \
        queued_6, queued_7, queued_8, queued_9) < 0";
    let conn = Connection::open(folder.file()).unwrap();
    assert_eq!(number(&conn, negative), 0, "a quarantined job leaves the count of its priority");

    // An unreadable running job does not stop the sweep.
    by_hand(&folder.file(), &format!("UPDATE jobs SET progress = '[' WHERE id = {}", id(4)));
    let sweep = Reclaim { limit: 9, lease: HOUR, lost: error("L"), canceled: error("C") };
    store.reclaim(&sweep).await.unwrap();
    clock.advance(HOUR + Duration::from_secs(1));
    let swept = Reclaim { lease: HOUR * 9, ..sweep };
    match store.reclaim(&swept).await.unwrap() {
        Reclaimed::Done { recovered, more: false } => {
            assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [jobs[5].id]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().quarantined, 5);

    // An ended job without its time does not stop the prune of later jobs.
    let [first, second] = [job("alpha", HOUR), job("alpha", HOUR)];
    for ended in [&first, &second] {
        insert(&store, ended).await;
        store.cancel(ended.id, &error("C")).await.unwrap();
    }
    by_hand(&folder.file(), &format!("UPDATE jobs SET ended_at = NULL WHERE id = x'{}'", first.id.0.simple()));
    clock.advance(HOUR + Duration::from_secs(1));
    store.prune(9).await.unwrap();
    assert!(matches!(store.get(second.id).await.unwrap(), JobLookup::Gone { .. }), "it was pruned");
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.quarantined, stats.types[0].counts[5]), (6, 0));
}

#[tokio::test]
async fn job_of_an_unknown_type_is_quarantined() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    store.reclaim(&sweep(HOUR)).await.expect("the rows are readable");
    insert_many(&store, 4, 5, Duration::ZERO).await;
    let running = store.claim(&claim(64)).await.expect("the rows are readable").attempts;
    by_hand(&folder.file(), "UPDATE jobs SET type_id = 99 WHERE seq = (SELECT min(seq) FROM jobs)");
    by_hand(&folder.file(), "UPDATE jobs SET type_id = 99, error = '{' WHERE seq = (SELECT max(seq) FROM jobs)");
    assert!(is_unreadable(&status(&store, running[0].lease.job).await));
    let all = store.list(&ListFilter::default(), &Page { cursor: None, limit: 200 }).await;
    assert_eq!(all.expect("others are listed").jobs.len(), 2);
    clock.advance(HOUR + Duration::from_secs(1));
    match store.reclaim(&sweep(HOUR * 9)).await.expect("others are recovered") {
        Reclaimed::Done { recovered, more: false } => assert_eq!(recovered.len(), 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(quarantined(&folder.file()), 2);
}

/// Records that are no text, or have numbers too large to add to.
#[tokio::test]
async fn unreadable_statistics_and_logs_are_left_out() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    insert_many(&store, 3, 5, Duration::ZERO).await;
    let first = store.claim(&claim(1)).await.expect("the rows are readable").attempts.remove(0);
    store.renew(&heartbeat(), &[first.lease], HOUR).await.expect("the rows are readable");
    let report = Report { lease: first.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.expect("the rows are readable");
    let max = u64::MAX;
    let minute = format!(
        r#"{{"arrivals":{max},"attempts":[{max}],"ended":[{max}],"slow":{max},
            "queue":{{"sum":{max},"buckets":[{max},{max}]}},"run":{{"sum":{max},"buckets":[{max},{max}]}}}}"#
    );
    for record in [format!("'{minute}'"), "CAST(x'ff' AS TEXT)".to_owned()] {
        for table in ["minutes", "heartbeats", "logs"] {
            by_hand(&folder.file(), &format!("UPDATE {table} SET record = {record}"));
        }
        let query = StatsQuery { since_minute: Some(0), ..StatsQuery::default() };
        let workers = store.stats(&query).await.expect("the other statistics").workers;
        assert!(workers.is_empty(), "{workers:?}");
        let lines = store.logs(first.lease.job, 0, 9).await.expect("the other lines");
        assert!(lines[0].message.contains("cannot be read"), "{lines:?}");
        let next = store.claim(&claim(1)).await.expect("others are started").attempts.remove(0);
        store.settle(&[end(&next, completed("1"))]).await.expect("others end");
        assert_ne!(store.stats(&query).await.expect("the statistics").minutes, [], "counting starts anew");
    }
}

/// An id of the wrong length, and numbers too large to add to: one job in each status.
#[tokio::test]
async fn job_with_an_invalid_id_or_number_is_quarantined() {
    let (max, max_small) = (i64::MAX.to_string(), u32::MAX.to_string());
    let mut all = vec![("id", "randomblob(3)"), ("order_number", "-1")];
    all.extend(["order_number", "version", "log_lines", "log_bytes"].map(|column| (column, max.as_str())));
    all.extend(["attempt", "retries", "losses", "releases"].map(|column| (column, max_small.as_str())));
    for (column, value) in all {
        let (folder, clock) = (Folder::new(), ManualClock::new());
        let store = open(&folder, Synchronous::Off, clock.clone()).await;
        store.reclaim(&sweep(HOUR)).await.expect("the rows are readable");
        let change = |status: JobStatus| {
            let of_state = format!("SELECT min(seq) FROM jobs WHERE status = {}", status as i64);
            by_hand(&folder.file(), &format!("UPDATE jobs SET {column} = {value} WHERE seq = ({of_state})"));
        };
        insert_many(&store, 2, 5, HOUR).await;
        let queued = insert_many(&store, 5, 5, Duration::ZERO).await;
        store.cancel(queued[4], &error("C")).await.expect("the rows are readable");
        change(JobStatus::Scheduled);
        change(JobStatus::Queued);
        clock.advance(HOUR);
        assert_eq!(store.claim(&claim(3)).await.expect("others are started").attempts.len(), 2, "{column}");
        assert_eq!(quarantined(&folder.file()), 2, "{column}");
        change(JobStatus::InProgress);
        change(JobStatus::Canceled);
        clock.advance(HOUR + Duration::from_secs(1));
        match store.reclaim(&sweep(HOUR * 9)).await.expect("others are recovered") {
            Reclaimed::Done { recovered, more: false } => assert_eq!(recovered.len(), 1, "{column}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.prune(9).await.expect("the store answers"), 1, "{column}");
        assert_eq!(quarantined(&folder.file()), 4, "{column}");
        let page = Page { cursor: None, limit: 200 };
        let listed = store.list(&ListFilter::default(), &page).await.expect("others are listed").jobs;
        assert_eq!(listed.len(), 3, "{column}");
    }
}

#[tokio::test]
async fn tombstone_with_an_invalid_id_is_pruned() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    by_hand(&folder.file(), "INSERT INTO tombstones VALUES (x'00', NULL, x'00', 0, 0, 1, NULL)");
    assert_eq!(store.prune(9).await.expect("the store answers"), 1);
}

/// The holder of an unreadable row could never resign.
#[tokio::test]
async fn role_with_an_unreadable_holder_is_free() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    let [old, new] = [1, 2].map(Uuid::from_u128);
    let Role::Held(fenced) = store.role("one", old, HOUR).await.expect("the store answers") else {
        panic!("the role is free")
    };
    by_hand(&folder.file(), "UPDATE roles SET holder = x'00'");
    let put = |token| store.put_document("kept", None, Bytes::new(), Some(("one", token)));
    assert_eq!(put(fenced).await.expect("the store answers"), PutOutcome::Fenced);
    let Role::Held(token) = store.role("one", new, HOUR).await.expect("the store answers") else {
        panic!("the role is free")
    };
    assert!(matches!(store.role("one", old, HOUR).await.expect("the store answers"), Role::Other(_)));
    assert_eq!(put(fenced).await.expect("the store answers"), PutOutcome::Fenced);
    assert!(matches!(put(token).await.expect("the store answers"), PutOutcome::Stored(_)));
}
