//! Rows that hold what nobody wrote: they are put aside or left out, and all others go on.

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
    Folder, HOUR, aside, beat, by_hand, claim, end, fresh, insert, is_corrupt, number, open, status, sweep, waiting,
};
use rusqlite::Connection;
use uuid::Uuid;

#[tokio::test]
async fn what_cannot_be_read_is_put_aside_and_never_in_the_way() {
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
    assert!(matches!(store.get(jobs[0].id).await, Err(StoreError::Corrupt(_))));
    let negative = "SELECT count(*) FROM types WHERE min(queued_0, queued_1, queued_2, queued_3, queued_4, queued_5, \
        queued_6, queued_7, queued_8, queued_9) < 0";
    let conn = Connection::open(folder.file()).unwrap();
    assert_eq!(number(&conn, negative), 0, "it is counted out of the priority that it was counted in");

    // A damaged lease does not stop the sweep.
    by_hand(&folder.file(), &format!("UPDATE jobs SET progress = '[' WHERE id = {}", id(4)));
    let sweep = Reclaim { limit: 9, lease: HOUR, lost: error("L"), canceled: error("C") };
    store.reclaim(&sweep).await.unwrap();
    clock.advance(HOUR + Duration::from_secs(1));
    let swept = Reclaim { lease: HOUR * 9, ..sweep };
    match store.reclaim(&swept).await.unwrap() {
        async_endpoints_core::store::Reclaimed::Done { recovered, more: false } => {
            assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [jobs[5].id]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().quarantined, 5);

    // Nor does one without an end stop the prune of those behind it.
    let [first, second] = [job("alpha", HOUR), job("alpha", HOUR)];
    for ended in [&first, &second] {
        insert(&store, ended).await;
        store.cancel(ended.id, &error("C")).await.unwrap();
    }
    by_hand(&folder.file(), &format!("UPDATE jobs SET ended_at = NULL WHERE id = x'{}'", first.id.0.simple()));
    clock.advance(HOUR + Duration::from_secs(1));
    store.prune(9).await.unwrap();
    assert!(matches!(store.get(second.id).await.unwrap(), JobLookup::Gone { .. }), "it was cut");
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.quarantined, stats.types[0].counts[5]), (6, 0));
}

/// It can neither be counted out of its type nor ended: it is passed by, and all others go on.
#[tokio::test]
async fn a_job_of_a_type_that_is_not_there_is_passed_by() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    store.reclaim(&sweep(HOUR)).await.expect("it is whole");
    waiting(&store, 4, 5, Duration::ZERO).await;
    let running = store.claim(&claim(64)).await.expect("it is whole").attempts;
    by_hand(&folder.file(), "UPDATE jobs SET type = 99 WHERE seq = (SELECT min(seq) FROM jobs)");
    by_hand(&folder.file(), "UPDATE jobs SET type = 99, error = '{' WHERE seq = (SELECT max(seq) FROM jobs)");
    assert!(is_corrupt(&status(&store, running[0].lease.job).await));
    let all = store.list(&ListFilter::default(), &Page { cursor: None, limit: 200 }).await;
    assert_eq!(all.expect("others are listed").jobs.len(), 2);
    clock.advance(HOUR + Duration::from_secs(1));
    match store.reclaim(&sweep(HOUR * 9)).await.expect("others are recovered") {
        Reclaimed::Done { recovered, more: false } => assert_eq!(recovered.len(), 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(aside(&folder.file()), 2);
}

/// No text, or numbers that nobody counted.
#[tokio::test]
async fn figures_and_lines_that_cannot_be_read_hold_up_nothing() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    waiting(&store, 3, 5, Duration::ZERO).await;
    let first = store.claim(&claim(1)).await.expect("it is whole").attempts.remove(0);
    store.renew(&beat(), &[first.lease], HOUR).await.expect("it is whole");
    let report = Report { lease: first.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.expect("it is whole");
    let most = u64::MAX;
    let slot = format!(
        r#"{{"attempts":[{most}],"ended":[{most}],"slow":{most},
            "queue":{{"buckets":[{most}],"sum":{most}}},"run":{{"buckets":[{most}],"sum":{most}}}}}"#
    );
    for record in [format!("'{slot}'"), "CAST(x'ff' AS TEXT)".to_owned()] {
        for table in ["slots", "beats", "logs"] {
            by_hand(&folder.file(), &format!("UPDATE {table} SET record = {record}"));
        }
        let query = StatsQuery { since_minute: Some(0), ..StatsQuery::default() };
        let beats = store.stats(&query).await.expect("the rest is told").workers;
        assert!(beats.is_empty(), "{beats:?}");
        let lines = store.logs(first.lease.job, 0, 9).await.expect("others are told");
        assert!(lines[0].message.contains("cannot be read"), "{lines:?}");
        let next = store.claim(&claim(1)).await.expect("others are started").attempts.remove(0);
        store.settle(&[end(&next, completed("1"))]).await.expect("others end");
        assert_ne!(store.stats(&query).await.expect("all is told").minutes, [], "they are counted anew");
    }
}

/// Numbers that no more can be added to, and an id that is none: one job in every state.
#[tokio::test]
async fn ids_and_numbers_that_nobody_wrote_hold_up_nothing() {
    let (most, small) = (i64::MAX.to_string(), u32::MAX.to_string());
    let mut all = vec![("id", "randomblob(3)"), ("ord", "-1")];
    all.extend(["ord", "version", "log_lines", "log_bytes"].map(|column| (column, most.as_str())));
    all.extend(["attempt", "retries", "losses", "releases"].map(|column| (column, small.as_str())));
    for (column, value) in all {
        let (folder, clock) = (Folder::new(), ManualClock::new());
        let store = open(&folder, Synchronous::Off, clock.clone()).await;
        store.reclaim(&sweep(HOUR)).await.expect("it is whole");
        let damage = |status: JobStatus| {
            let of_state = format!("SELECT min(seq) FROM jobs WHERE status = {}", status as i64);
            by_hand(&folder.file(), &format!("UPDATE jobs SET {column} = {value} WHERE seq = ({of_state})"));
        };
        waiting(&store, 2, 5, HOUR).await;
        let waiting = waiting(&store, 5, 5, Duration::ZERO).await;
        store.cancel(waiting[4], &error("C")).await.expect("it is whole");
        damage(JobStatus::Scheduled);
        damage(JobStatus::Queued);
        clock.advance(HOUR);
        assert_eq!(store.claim(&claim(3)).await.expect("others are started").attempts.len(), 2, "{column}");
        assert_eq!(aside(&folder.file()), 2, "{column}");
        damage(JobStatus::InProgress);
        damage(JobStatus::Canceled);
        clock.advance(HOUR + Duration::from_secs(1));
        match store.reclaim(&sweep(HOUR * 9)).await.expect("others are recovered") {
            Reclaimed::Done { recovered, more: false } => assert_eq!(recovered.len(), 1, "{column}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.prune(9).await.expect("it answers"), 1, "{column}");
        assert_eq!(aside(&folder.file()), 4, "{column}");
        let page = Page { cursor: None, limit: 200 };
        let listed = store.list(&ListFilter::default(), &page).await.expect("others are listed").jobs;
        assert_eq!(listed.len(), 3, "{column}");
    }
}

/// What is left of a job whose id is none is forgotten like any other.
#[tokio::test]
async fn what_is_left_without_an_id_is_forgotten() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    by_hand(&folder.file(), "INSERT INTO tombstones VALUES (x'00', NULL, x'00', 0, 0, 1, NULL)");
    assert_eq!(store.prune(9).await.expect("it answers"), 1);
}

/// Its holder would never let go of it.
#[tokio::test]
async fn a_role_whose_holder_cannot_be_read_is_free() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    let [old, new] = [1, 2].map(Uuid::from_u128);
    let Role::Held(fenced) = store.role("one", old, HOUR).await.expect("it answers") else { panic!("it is free") };
    by_hand(&folder.file(), "UPDATE roles SET holder = x'00'");
    let put = |token| store.put_document("kept", None, Bytes::new(), Some(("one", token)));
    assert_eq!(put(fenced).await.expect("it answers"), PutOutcome::Fenced);
    let Role::Held(token) = store.role("one", new, HOUR).await.expect("it answers") else { panic!("it is free") };
    assert!(matches!(store.role("one", old, HOUR).await.expect("it answers"), Role::Other(_)));
    assert_eq!(put(fenced).await.expect("it answers"), PutOutcome::Fenced);
    assert!(matches!(put(token).await.expect("it answers"), PutOutcome::Stored(_)));
}
