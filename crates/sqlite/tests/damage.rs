//! Pages of the file that hold nonsense: whoever needs one is told, or its jobs are put aside, and all others go on.

mod common;

use std::{collections::BTreeSet, path::Path, time::Duration};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, StoreError,
    store::{Attempt, Hint, JobLookup, ListFilter, NewJob, Outcome, Page, Reclaimed, Renewed, Report, StatsQuery},
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job, key, line, name},
};
use common::{
    Folder, HOUR, aside, beat, by_hand, claim, end, fresh, insert, is_corrupt, number, open, status, sweep, waiting,
};
use futures_util::StreamExt as _;
use rusqlite::Connection;

/// Writes nonsense over the first page of a table, and says to all that there is something new. The page as it was.
fn damage(path: &Path, table: &str) -> (u64, Vec<u8>) {
    let (at, page) = root_page(path, table);
    write_at(path, at, &turned(&page));
    (at, page)
}

/// Where the first page of a table is, and what it holds.
fn root_page(path: &Path, table: &str) -> (u64, Vec<u8>) {
    let conn = Connection::open(path).expect("it opens");
    let page = number(&conn, &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'"));
    read_page(path, &conn, page)
}

fn turned(page: &[u8]) -> Vec<u8> {
    page.iter().map(|byte| !byte).collect()
}

/// The same with the page that a row is on, counted from the first.
fn damage_row(path: &Path, table: &str, row: u64) {
    let conn = Connection::open(path).expect("it opens");
    let sql = "SELECT pageno FROM (SELECT pageno, sum(ncell) OVER (ORDER BY path) AS until FROM dbstat";
    let page =
        number(&conn, &format!("{sql} WHERE name = '{table}' AND pagetype = 'leaf') WHERE until > {row} LIMIT 1"));
    let (at, page) = read_page(path, &conn, page);
    write_at(path, at, &turned(&page));
}

fn read_page(path: &Path, conn: &Connection, page: u64) -> (u64, Vec<u8>) {
    assert_eq!(number(conn, "PRAGMA wal_checkpoint(TRUNCATE)"), 0, "nobody reads");
    let size = number(conn, "PRAGMA page_size");
    let at = (page - 1) * size;
    let all = std::fs::read(path).expect("it is read");
    (at, all[at as usize..(at + size) as usize].to_vec())
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek as _, Write as _};
    let mut file = std::fs::File::options().write(true).open(path).expect("it opens");
    file.seek(std::io::SeekFrom::Start(at)).expect("it is written");
    file.write_all(bytes).expect("it is written");
    by_hand(path, "INSERT OR REPLACE INTO documents VALUES ('a change', x'00', randomblob(9))");
}

/// What every transaction needs, and no call asked for: all are told what is wrong, and go on when it is mended.
#[tokio::test]
async fn damage_beside_the_jobs_is_told_as_what_it_is() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    let (at, page) = damage(&folder.file(), "meta");
    let told = |refused: StoreError| {
        let text = refused.to_string();
        assert!(matches!(refused, StoreError::Corrupt(_)) && text.matches("jobs.db").count() == 1, "{text}");
    };
    for _ in 0..2 {
        told(store.insert(job("alpha", HOUR)).await.expect_err("it is damaged"));
        told(store.get(kept.id).await.expect_err("it is damaged"));
        told(store.probe().await.expect_err("it is damaged"));
    }
    let refused = SqliteStore::open(folder.file()).await.expect_err("it is damaged");
    assert!(!refused.is_transient(), "{refused:?}");
    write_at(&folder.file(), at, &page);
    insert(&store, &job("alpha", HOUR)).await;
    assert_eq!(store.versions(&[kept.id]).await.unwrap(), [Some(1)]);
}

/// A page in the middle: whoever needs it is told, all others go on.
#[tokio::test]
async fn a_damaged_page_is_in_the_way_of_what_is_on_it_only() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    let taken = store.claim(&claim(1)).await.unwrap().attempts.remove(0);
    let report = Report { lease: taken.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    let (at, page) = damage(&folder.file(), "logs");
    for _ in 0..2 {
        let logs = store.logs(kept.id, 0, 9).await;
        assert!(matches!(&logs, Err(StoreError::Corrupt(why)) if why.contains("malformed")), "{logs:?}");
        store.probe().await.expect("the rest is fine");
        insert(&store, &job("alpha", HOUR)).await;
        assert!(matches!(store.get(kept.id).await.unwrap(), JobLookup::Found(_)));
        assert_eq!(store.claim(&claim(1)).await.unwrap().attempts.len(), 1);
    }
    write_at(&folder.file(), at, &page);
    assert_eq!(store.logs(kept.id, 0, 9).await.unwrap().len(), 1);
}

/// A store with 200 jobs.
struct Many {
    folder: Folder,
    clock: ManualClock,
    store: SqliteStore,
    jobs: Vec<NewJob>,
    running: Vec<Attempt>,
}

impl Many {
    /// They all wait, and can be started after that time.
    async fn waiting(delay: Duration) -> Self {
        let (folder, clock) = (Folder::new(), ManualClock::new());
        let store = open(&folder, Synchronous::Off, clock.clone()).await;
        let new = |_| NewJob { payload: vec![7; 300].into(), delay, ..job("alpha", HOUR) };
        let jobs: Vec<NewJob> = (0..200).map(new).collect();
        for job in &jobs {
            insert(&store, job).await;
        }
        Self { folder, clock, store, jobs, running: Vec::new() }
    }

    /// In three states: the first 20 failed, the next 40 run, the rest wait.
    async fn new() -> Self {
        let mut many = Self::waiting(Duration::ZERO).await;
        let store = &many.store;
        let first = store.claim(&claim(20)).await.expect("it answers").attempts;
        let fails: Vec<_> = first.iter().map(|one| end(one, Outcome::Failed { error: error("F") })).collect();
        store.settle(&fails).await.expect("it answers");
        many.running = store.claim(&claim(40)).await.expect("it answers").attempts;
        store.reclaim(&sweep(HOUR)).await.expect("it answers");
        many
    }

    /// All that wait now, and can be started.
    async fn started(&self) -> BTreeSet<JobId> {
        let mut started = BTreeSet::new();
        loop {
            let claimed = self.store.claim(&claim(64)).await.expect("others are started");
            if claimed.attempts.is_empty() {
                assert_eq!(claimed.next_claim, None, "nothing is left that anybody would ask for again and again");
                return started;
            }
            started.extend(claimed.attempts.iter().map(|attempt| attempt.lease.job));
        }
    }

    async fn put_aside(&self) -> usize {
        self.store.stats(&StatsQuery::default()).await.expect("others are counted").quarantined as usize
    }
}

/// More than stand on a page.
const PAGE: usize = 25;

/// Whatever state its jobs are in, and whichever table the page is of: whoever is not put aside goes on.
async fn others_go_on(table: &str, row: u64) {
    let many = Many::new().await;
    let store = &many.store;
    damage_row(&many.folder.file(), table, row);

    let leases: Vec<_> = many.running.iter().map(|attempt| attempt.lease).collect();
    let renewed = store.renew(&beat(), &leases, HOUR).await.expect("others are renewed");
    let lost = renewed.iter().filter(|renewed| **renewed == Renewed::Lost).count();
    assert!(renewed.len() == 40 && lost < PAGE, "{lost} on one page");

    // One by one, as a worker does what it was told of together that it cannot be done.
    let mut settled = 0;
    for attempt in &many.running[..30] {
        let answer = store.settle(&[end(attempt, completed("1"))]).await;
        assert!(answer.is_ok() || is_corrupt(&answer), "{answer:?}");
        settled += usize::from(answer.is_ok());
    }
    let started = many.started().await.len();
    assert!(started + many.put_aside().await >= 140, "{started} were started");

    many.clock.advance(HOUR + Duration::from_secs(1));
    while let Reclaimed::Done { more: true, .. } = store.reclaim(&sweep(HOUR * 9)).await.expect("others are recovered")
    {
    }
    let again = many.started().await.len();
    assert!(again + many.put_aside().await >= 180 - settled, "{again} were started again");

    many.clock.advance(HOUR * 9);
    let mut cut = 0;
    while let some @ 1.. = store.prune(100).await.expect("others are cut") {
        cut += some as usize;
    }
    let aside = many.put_aside().await;
    assert!(cut + aside >= 20 + settled, "{cut} were cut");

    // It, and those beside it that cannot grow or shrink without it.
    assert!((1..3 * PAGE).contains(&aside), "{aside} were put aside");
    let mut unreadable = 0;
    for job in &many.jobs {
        let got = store.get(job.id).await;
        assert!(got.is_ok() || is_corrupt(&got), "{got:?}");
        unreadable += usize::from(got.is_err());
    }
    assert!(unreadable <= aside, "{unreadable} cannot be read, {aside} were put aside");
    let ids: Vec<JobId> = many.jobs.iter().map(|job| job.id).collect();
    store.versions(&ids).await.expect("others are told");
    for status in [JobStatus::Queued, JobStatus::InProgress, JobStatus::Failed] {
        let filter = ListFilter { status: Some(status), ..ListFilter::default() };
        store.list(&filter, &Page { cursor: None, limit: 200 }).await.expect("others are listed");
    }
    let new = job("alpha", HOUR);
    insert(store, &new).await;
    assert_eq!(many.started().await, BTreeSet::from([new.id]));
}

#[tokio::test]
async fn others_go_on_past_a_damaged_page_of_jobs() {
    for row in [10, 40, 120] {
        others_go_on("jobs", row).await;
    }
}

#[tokio::test]
async fn others_go_on_past_a_damaged_page_of_payloads() {
    for row in [10, 40, 120] {
        others_go_on("payloads", row).await;
    }
}

/// They are promoted by the claim that meets the damage, which is then taken back: in the file they are still delayed.
#[tokio::test]
async fn delayed_jobs_are_started_past_a_damaged_page() {
    for table in ["jobs", "payloads"] {
        let many = Many::waiting(HOUR).await;
        damage_row(&many.folder.file(), table, 100);
        many.clock.advance(HOUR);
        let (started, aside) = (many.started().await.len(), many.put_aside().await);
        assert_eq!(started + aside, 200, "{table}: {aside} were put aside");
        assert!((1..3 * PAGE).contains(&aside), "{table}: {aside} were put aside");
    }
}

/// Whichever of them stand on a damaged page of the order that they would come into, the others come into theirs.
#[tokio::test]
async fn delayed_jobs_come_due_past_a_damaged_page() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    for priority in [9, 5, 0] {
        waiting(&store, 200, priority, Duration::ZERO).await;
    }
    // So that no page beside the damaged one becomes too full or too empty.
    waiting(&store, 200, 0, HOUR * 9).await;
    let fine = waiting(&store, 3, 9, HOUR).await;
    let stuck = waiting(&store, 3, 5, HOUR).await;
    // The last of the middle priority.
    damage_row(&folder.file(), "jobs_by_state", 400);
    clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(store.claim(&claim(64)).await.expect("others are started").attempts.len(), 64);
    assert_eq!(aside(&folder.file()), 3);
    for id in fine {
        assert_eq!(status(&store, id).await.unwrap(), JobStatus::Queued);
    }
    for id in stuck {
        assert!(is_corrupt(&status(&store, id).await));
    }
}

/// All need it who would run: some are put aside as if it were theirs, then whoever asks is told.
#[tokio::test]
async fn damage_that_is_in_the_way_of_all_puts_a_bounded_number_aside() {
    const ASIDE: u64 = 200;
    let folder = Folder::new();
    let store = fresh(&folder).await;
    waiting(&store, ASIDE as usize + 50, 5, Duration::ZERO).await;
    let (at, page) = damage(&folder.file(), "jobs_leased");
    for _ in 0..2 {
        let claimed = store.claim(&claim(64)).await;
        assert!(is_corrupt(&claimed), "{claimed:?}");
        assert_eq!(aside(&folder.file()), ASIDE);
    }
    write_at(&folder.file(), at, &page);
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.quarantined, stats.types[0].count(JobStatus::Queued)), (ASIDE, 50));
    assert_eq!(store.claim(&claim(64)).await.expect("it is mended").attempts.len(), 50);
}

/// Leases that stand on other pages go on. Sweeps begin with the damaged one, and say so.
#[tokio::test]
async fn a_damaged_page_of_leases_stops_only_what_is_on_it_and_the_sweeps() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    waiting(&store, 640, 5, Duration::ZERO).await;
    let mut running = Vec::new();
    for _ in 0..9 {
        running.extend(store.claim(&claim(64)).await.expect("it is whole").attempts);
        clock.advance(Duration::from_secs(1));
    }
    store.reclaim(&sweep(HOUR)).await.expect("it is whole");
    damage_row(&folder.file(), "jobs_leased", 0);
    // The last ones stand on the last page.
    let newest = &running[512..];
    let leases: Vec<_> = newest.iter().map(|attempt| attempt.lease).collect();
    let renewed = store.renew(&beat(), &leases, HOUR).await.expect("they are renewed");
    assert!(renewed.iter().all(|renewed| *renewed == Renewed::Held), "{renewed:?}");
    let first = running[0].lease;
    assert_eq!(store.renew(&beat(), &[first], HOUR).await.expect("it answers"), [Renewed::Lost]);
    assert!(is_corrupt(&store.settle(&[end(&running[0], completed("1"))]).await));
    for attempt in newest {
        store.settle(&[end(attempt, completed("1"))]).await.expect("they end");
    }
    assert_eq!(store.claim(&claim(64)).await.expect("others are started").attempts.len(), 64);
    assert_eq!(aside(&folder.file()), 0);
    clock.advance(HOUR * 2);
    assert!(is_corrupt(&store.reclaim(&sweep(HOUR * 9)).await));
    insert(&store, &job("alpha", HOUR)).await;
    assert_eq!(store.claim(&claim(64)).await.expect("others are started").attempts.len(), 1);
}

/// What tells of ends is damaged: jobs that never ran are listed.
#[tokio::test]
async fn a_damaged_page_of_attempts_is_left_out_of_lists() {
    let many = Many::new().await;
    damage(&many.folder.file(), "attempts");
    let list = |status| {
        let filter = ListFilter { status, ..ListFilter::default() };
        let store = &many.store;
        async move { store.list(&filter, &Page { cursor: None, limit: 200 }).await.expect("others are listed").jobs.len() }
    };
    assert_eq!(list(Some(JobStatus::Failed)).await, 0);
    assert_eq!(list(None).await, 140);
}

#[tokio::test]
async fn every_list_leaves_out_what_is_on_a_damaged_page() {
    let many = Many::waiting(Duration::ZERO).await;
    damage_row(&many.folder.file(), "jobs", 120);
    let of_type = ListFilter { name: Some(name("alpha")), ..ListFilter::default() };
    let of_state = ListFilter { status: Some(JobStatus::Queued), ..ListFilter::default() };
    for filter in [ListFilter::default(), of_type, of_state] {
        let (mut listed, mut page) = (0, Page { cursor: None, limit: 60 });
        loop {
            let some = many.store.list(&filter, &page).await.expect("others are listed");
            listed += some.jobs.len();
            page.cursor = some.next;
            if page.cursor.is_none() {
                break;
            }
        }
        assert!((200 - PAGE..200).contains(&listed), "{listed} of {filter:?}");
    }
}

/// Puts a page back as it was, as a disk does that never wrote what it said it had.
fn forget_writes(path: &Path, at: u64, page: &[u8]) {
    let conn = Connection::open(path).expect("it opens");
    assert_eq!(number(&conn, "PRAGMA wal_checkpoint(TRUNCATE)"), 0, "nobody reads");
    write_at(path, at, page);
}

/// The orders name jobs whose rows were never written: they are in nobody's way.
#[tokio::test]
async fn jobs_that_the_disk_forgot_are_passed_by() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    waiting(&store, 5, 5, Duration::ZERO).await;
    let (at, page) = root_page(&folder.file(), "jobs");
    waiting(&store, 3, 9, Duration::ZERO).await;
    forget_writes(&folder.file(), at, &page);
    let page = Page { cursor: None, limit: 200 };
    let filter = ListFilter { status: Some(JobStatus::Queued), ..ListFilter::default() };
    assert_eq!(store.list(&filter, &page).await.expect("others are listed").jobs.len(), 5);
    let claimed = store.claim(&claim(64)).await.expect("others are started");
    assert_eq!((claimed.attempts.len(), claimed.next_claim), (5, None));
    assert_eq!(aside(&folder.file()), 3);
}

/// Rows and the order of states say different things: nobody runs again, and others go on.
#[tokio::test]
async fn jobs_of_which_the_disk_forgot_the_end_are_passed_by() {
    for table in ["jobs", "jobs_by_state", "jobs_leased"] {
        let (folder, clock) = (Folder::new(), ManualClock::new());
        let store = open(&folder, Synchronous::Off, clock.clone()).await;
        store.reclaim(&sweep(HOUR)).await.expect("it is whole");
        waiting(&store, 3, 5, Duration::ZERO).await;
        let (mut at, mut page) = root_page(&folder.file(), table);
        let first = store.claim(&claim(64)).await.expect("it is whole").attempts;
        if table == "jobs_leased" {
            (at, page) = root_page(&folder.file(), table);
        }
        for attempt in &first {
            store.settle(&[end(attempt, completed("1"))]).await.expect("it is whole");
        }
        forget_writes(&folder.file(), at, &page);
        waiting(&store, 2, 5, Duration::ZERO).await;
        let claimed = store.claim(&claim(64)).await.expect("others are started");
        let started: BTreeSet<_> = claimed.attempts.iter().map(|attempt| attempt.lease.job).collect();
        assert!(first.iter().all(|attempt| !started.contains(&attempt.lease.job)), "{table}: it ran already");
        assert_eq!((started.len(), claimed.next_claim), (2, None), "{table}");
        clock.advance(HOUR + Duration::from_secs(1));
        match store.reclaim(&sweep(HOUR * 9)).await.expect("others are recovered") {
            Reclaimed::Done { recovered, more: false } => assert_eq!(recovered.len(), 2, "{table}"),
            other => panic!("{table}: {other:?}"),
        }
        for attempt in store.claim(&claim(64)).await.expect("others are started again").attempts {
            store.settle(&[end(&attempt, completed("1"))]).await.expect("others end");
        }
        clock.advance(HOUR + Duration::from_secs(1));
        store.prune(100).await.expect("others are cut");
        let conn = Connection::open(folder.file()).expect("it opens");
        assert_eq!(number(&conn, "SELECT count(*) FROM tombstones"), 2, "{table}");
    }
}

/// A worker waits to be told of work. Jobs that are passed by stay counted, which must not keep that from it.
#[tokio::test]
async fn work_is_told_of_beside_jobs_that_are_passed_by() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    let (at, page) = root_page(&folder.file(), "jobs");
    waiting(&store, 3, 9, Duration::ZERO).await;
    forget_writes(&folder.file(), at, &page);
    assert_eq!(store.claim(&claim(64)).await.expect("it answers").next_claim, None);
    assert_eq!(aside(&folder.file()), 3);
    let mut hints = store.hints();
    for _ in 0..2 {
        insert(&store, &job("alpha", HOUR)).await;
        let told = tokio::time::timeout(Duration::from_secs(10), hints.next()).await.expect("it is told of work");
        assert_eq!(told, Some(Hint::Work(name("alpha"))));
        assert_eq!(store.claim(&claim(64)).await.expect("it is started").attempts.len(), 1);
        // Of the job that runs now.
        assert!(matches!(hints.next().await, Some(Hint::Jobs(_))));
    }
}

/// What is told of workers, and counts by minute, are not worth a job.
#[tokio::test]
async fn jobs_go_on_past_damaged_figures() {
    let folder = Folder::new();
    let store = fresh(&folder).await;
    waiting(&store, 3, 5, Duration::ZERO).await;
    let first = store.claim(&claim(1)).await.expect("it is whole").attempts.remove(0);
    store.renew(&beat(), &[first.lease], HOUR).await.expect("it is whole");
    let (at, page) = damage(&folder.file(), "beats");
    damage(&folder.file(), "slots");
    for _ in 0..2 {
        let held = store.renew(&beat(), &[first.lease], HOUR).await;
        assert_eq!(held.expect("leases are renewed"), [Renewed::Held]);
        assert!(is_corrupt(&store.renew(&beat(), &[], HOUR).await), "nothing else was asked");
        let next = store.claim(&claim(1)).await.expect("others are started").attempts.remove(0);
        store.settle(&[end(&next, completed("1"))]).await.expect("others end");
    }
    write_at(&folder.file(), at, &page);
    let stats = store.stats(&StatsQuery::default()).await.expect("they need no minutes");
    assert_eq!(stats.types[0].counts, [0, 0, 1, 2, 0, 0]);
    let query = StatsQuery { since_minute: Some(0), ..StatsQuery::default() };
    assert!(is_corrupt(&store.stats(&query).await));
}

/// What is left of jobs cannot be forgotten: others are cut, and whoever has nothing to cut is told.
#[tokio::test]
async fn others_are_cut_past_what_cannot_be_forgotten() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    let end = |key| {
        let store = &store;
        let new = NewJob { key, ..job("alpha", HOUR) };
        async move {
            insert(store, &new).await;
            store.cancel(new.id, &error("C")).await.expect("it answers");
        }
    };
    end(Some(key("one"))).await;
    clock.advance(HOUR * 2);
    assert_eq!(store.prune(9).await.expect("it is whole"), 1);
    clock.advance(HOUR * 30);
    end(None).await;
    clock.advance(HOUR * 2);
    damage(&folder.file(), "keys");
    assert_eq!(store.prune(9).await.expect("others are cut"), 1);
    assert!(is_corrupt(&store.prune(9).await), "nothing else is to be cut");
}
