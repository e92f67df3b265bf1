//! What happens to the file: closed and opened again, of another version, deleted or replaced under the store.

mod common;

use std::{path::Path, time::Duration};

use async_endpoints_core::{
    JobStatus, JobStore as _, SharedState as _, StoreError, SystemClock,
    store::{Insert, LeaseToken, Lookup, NewJob, Outcome, Put, Reclaim, Settle, StatsQuery},
};
use async_endpoints_sqlite::{OpenError, SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job, key, line},
};
use bytes::Bytes;
use common::{Folder, HOUR, by_hand, claim, insert, open};
use rusqlite::Connection;

async fn durable(folder: &Folder) -> SqliteStore {
    SqliteStore::open(folder.file()).await.expect("it opens")
}

#[tokio::test]
async fn everything_is_there_after_it_was_closed() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let ended = NewJob { key: Some(key("k")), ..job("alpha", HOUR) };
    insert(&store, &ended).await;
    let taken = store.claim(&claim(1)).await.unwrap().attempts.remove(0);
    let report = async_endpoints_core::store::Report { lease: taken.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    let settle = Settle {
        lease: taken.lease,
        outcome: completed("{\"b\":2}"),
        if_canceled: error("X"),
        slow: false,
        span: None,
    };
    store.settle(std::slice::from_ref(&settle)).await.unwrap();
    let waiting = job("alpha", HOUR);
    insert(&store, &waiting).await;
    let put = store.put_document("d", None, Bytes::from_static(b"doc"), None).await.unwrap();
    let query = StatsQuery { since_minute: Some(0), cutoffs: Vec::new() };
    let (seen, stats) = (store.get(ended.id).await.unwrap(), store.stats(&query).await.unwrap());
    drop(store);

    let store = durable(&folder).await;
    assert_eq!(store.get(ended.id).await.unwrap(), seen);
    let again = store.stats(&query).await.unwrap();
    assert_eq!((again.types, again.slots), (stats.types, stats.slots));
    assert_eq!(store.logs(ended.id, 0, 9).await.unwrap()[0].message, "one");
    assert_eq!(store.insert(ended.clone()).await.unwrap(), Insert::Existing(seen));
    assert_eq!(store.settle(&[settle]).await.unwrap().len(), 1);
    let document = store.document("d").await.unwrap().expect("it was written");
    assert_eq!((put, document.bytes), (Put::Stored(document.version), Bytes::from_static(b"doc")));
    let taken = store.claim(&claim(9)).await.unwrap().attempts;
    assert_eq!(
        taken.iter().map(|one| (one.lease.job, one.payload.clone())).collect::<Vec<_>>(),
        [(waiting.id, waiting.payload)]
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    let folder = Folder::new();
    drop(durable(&folder).await);
    by_hand(&folder.file(), "PRAGMA user_version = 7");
    let refused = SqliteStore::open(folder.file()).await.expect_err("it is newer");
    assert!(matches!(&refused, OpenError::Newer { found: 7, known: 1, .. }), "{refused:?}");
    assert!(!refused.is_transient(), "it stays newer");
    let text = refused.to_string();
    assert!(text.contains("jobs.db") && text.contains("version 7") && text.contains("up to 1"), "{text}");
}

#[tokio::test]
async fn a_schema_that_a_newer_program_changed_meanwhile_is_not_written() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    insert(&store, &job("alpha", HOUR)).await;
    by_hand(&folder.file(), "PRAGMA user_version = 2");
    for _ in 0..2 {
        let refused = store.insert(job("alpha", HOUR)).await.expect_err("it is newer now");
        assert!(refused.is_transient() && refused.to_string().contains("version 2"), "{refused}");
    }
    by_hand(&folder.file(), "PRAGMA user_version = 1");
    insert(&store, &job("alpha", HOUR)).await;
}

#[tokio::test]
async fn the_file_of_another_program_is_refused() {
    let folder = Folder::new();
    by_hand(&folder.file(), "CREATE TABLE contacts (name TEXT)");
    let refused = SqliteStore::open(folder.file()).await.expect_err("it is not ours");
    assert!(matches!(refused, OpenError::Foreign { .. }) && !refused.is_transient(), "{refused:?}");
    std::fs::write(folder.file(), "this is no database, but long enough to be looked at as if it were one").unwrap();
    let refused = SqliteStore::open(folder.file()).await.expect_err("it is no database");
    assert!(matches!(refused, OpenError::Store(StoreError::Corrupt(_))) && !refused.is_transient(), "{refused:?}");
}

/// Whoever starts before its disk is there, or while another keeps the file, may wait.
#[tokio::test]
async fn what_may_mend_itself_is_transient() {
    let folder = Folder::new();
    let missing = folder.file().with_extension("folder");
    let nowhere = SqliteStore::open(missing.join("jobs.db")).await.expect_err("its folder is missing");
    assert!(nowhere.is_transient(), "{nowhere:?}");
    std::fs::create_dir(&missing).unwrap();
    drop(SqliteStore::open(missing.join("jobs.db")).await.expect("it is there now"));
    let below = SqliteStore::open(missing.join("jobs.db").join("below-a-file")).await.expect_err("no folder");
    assert!(matches!(below, OpenError::Store(StoreError::Unavailable(_))), "{below:?}");

    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("PRAGMA journal_mode = WAL; BEGIN EXCLUSIVE").unwrap();
    let locked = SqliteStore::open(folder.file()).await.expect_err("it is locked");
    assert!(locked.is_transient() && locked.to_string().contains("locked"), "{locked:?}");
    other.execute_batch("ROLLBACK").unwrap();
    drop(SqliteStore::open(folder.file()).await.expect("it is free now"));
}

#[tokio::test]
async fn a_folder_is_no_file() {
    let folder = Folder::new();
    let refused = SqliteStore::open(folder.file().parent().unwrap()).await.expect_err("it is a folder");
    assert!(matches!(refused, OpenError::Folder { .. }) && !refused.is_transient(), "{refused:?}");
}

/// Runs one test of such a program as this in a process of its own.
#[cfg(unix)]
fn in_a_process(program: &std::path::Path, test: &str, set_up: impl FnOnce(&mut std::process::Command)) {
    let mut command = std::process::Command::new(program);
    command.args([test, "--exact"]);
    set_up(&mut command);
    let ran = command.output().expect("it starts");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// As a user who is held by permissions: root is not.
#[cfg(unix)]
#[tokio::test]
async fn a_read_only_file_is_unavailable_until_it_can_be_written() {
    use std::os::unix::{fs::chown, process::CommandExt as _};
    const NOBODY: u32 = 65534;
    let given = std::env::var_os("READ_ONLY").map(std::path::PathBuf::from);
    let own = given.is_none().then(Folder::new);
    let file = given.or_else(|| own.as_ref().map(Folder::file)).unwrap();
    std::fs::write(&file, "").unwrap();
    let may = |mode| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    may(0o444);
    if std::fs::File::options().write(true).open(&file).is_ok() {
        std::fs::remove_file(&file).unwrap();
        // Where other users are let in, which they may not be where this was built.
        let folder = std::env::temp_dir().join(format!("sqlite-read-only-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        in_a_process(&program, "a_read_only_file_is_unavailable_until_it_can_be_written", |command| {
            command.env("READ_ONLY", folder.join("jobs.db")).current_dir(&folder).uid(NOBODY).gid(NOBODY);
        });
        std::fs::remove_dir_all(folder).unwrap();
        return;
    }
    let refused = || async {
        let refused = SqliteStore::open(&file).await.expect_err("it is read-only");
        assert!(refused.is_transient() && refused.to_string().contains("read-only"), "{refused:?}");
    };
    refused().await;
    may(0o644);
    let store = SqliteStore::open(&file).await.expect("it may be written");
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    drop(store);
    may(0o444);
    refused().await;
    may(0o644);
    assert_eq!(SqliteStore::open(&file).await.unwrap().versions(&[kept.id]).await.unwrap(), [Some(1)]);
}

/// Files that nobody can write, not even who has them open, until it is dropped.
#[cfg(target_os = "linux")]
struct Immutable(Vec<std::path::PathBuf>);

#[cfg(target_os = "linux")]
impl Immutable {
    /// Why that cannot be done here, if it cannot: only root may, with a tool, and not on every file system.
    fn make(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|path| Self::chattr("+i", path))
    }

    fn chattr(how: &str, path: &Path) -> Result<(), String> {
        let ran = std::process::Command::new("chattr").arg(how).arg(path).output();
        let ran = ran.map_err(|error| format!("chattr, on Debian in e2fsprogs: {error}"))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Immutable {
    fn drop(&mut self) {
        for path in &self.0 {
            // One that never became so stays as it is.
            Self::chattr("-i", path).ok();
        }
    }
}

/// As when a disk refuses writes for a while. Where that cannot be had, this says so, past what a test that passes prints to
/// nobody. Unit tests of the writer run everywhere: `a_file_that_turns_read_only_is_unavailable` has SQLite say that it is,
/// and `a_full_disk_is_unavailable_until_there_is_room` has it come back.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_cannot_be_written_for_a_while_is_unavailable_and_comes_back() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    // Not its shared memory: the kernel ends a process that writes to such without a word.
    let files = ["db", "db-wal"].map(|ending| folder.file().with_extension(ending));
    let immutable = Immutable(files.into());
    if let Err(why) = immutable.make() {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "not tried, as no file can be made immutable here: {why}").unwrap();
        return;
    }
    let lost = job("alpha", HOUR);
    for _ in 0..3 {
        let refused = store.insert(lost.clone()).await.expect_err("it cannot be written");
        assert!(refused.is_transient() && refused.to_string().contains("writing the file failed"), "{refused}");
        assert!(store.claim(&claim(1)).await.is_err());
        assert_eq!(store.versions(&[kept.id, lost.id]).await.expect("readers are not held up"), [Some(1), None]);
    }
    drop(immutable);
    insert(&store, &lost).await;
    assert_eq!(store.claim(&claim(9)).await.unwrap().attempts.len(), 2);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_leads_to_its_file() {
    let folder = Folder::new();
    drop(durable(&folder).await);
    let link = folder.file().with_file_name("link.db");
    std::os::unix::fs::symlink(folder.file(), &link).unwrap();
    let store = SqliteStore::open(link).await.expect("it opens");
    insert(&store, &job("alpha", HOUR)).await;
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [1, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn many_that_open_a_fresh_file_at_once_all_do() {
    let folder = Folder::new();
    let opened = futures_util::future::join_all((0..6).map(|_| SqliteStore::open(folder.file()))).await;
    for store in opened {
        store.expect("it opens").probe().await.expect("it answers");
    }
}

#[tokio::test]
async fn nothing_is_accepted_into_a_file_that_was_deleted() {
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
    let replaced = store.insert(job("alpha", HOUR)).await.expect_err("it is another file");
    assert!(replaced.to_string().contains("replaced"), "{replaced}");
    std::fs::rename(&away, folder.file()).unwrap();
    insert(&store, &job("alpha", HOUR)).await;
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [2, 0, 0, 0, 0, 0]);
}

/// The log and its index are as much the store's as the file: commits are in them before they are in the file.
#[cfg(unix)]
#[tokio::test]
async fn nothing_is_accepted_into_a_log_that_was_deleted_or_replaced() {
    for ending in ["db-wal", "db-shm"] {
        let folder = Folder::new();
        let store = durable(&folder).await;
        let kept = job("alpha", HOUR);
        insert(&store, &kept).await;
        let (part, away) = (folder.file().with_extension(ending), folder.file().with_extension("away"));
        std::fs::rename(&part, &away).unwrap();
        let gone = store.insert(job("alpha", HOUR)).await.expect_err("it is gone");
        assert!(gone.is_transient() && gone.to_string().contains(&format!("jobs.{ending} is gone")), "{gone}");
        assert!(store.get(kept.id).await.is_err() && store.probe().await.is_err());
        std::fs::write(&part, "").unwrap();
        let replaced = store.insert(job("alpha", HOUR)).await.expect_err("it is another");
        assert!(replaced.to_string().contains(&format!("jobs.{ending} was replaced")), "{replaced}");
        std::fs::rename(&away, &part).unwrap();
        insert(&store, &job("alpha", HOUR)).await;
        assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [2, 0, 0, 0, 0, 0]);
    }
}

/// What `docs/sqlite.md` says about another file in the place of the one that is used, done: nothing goes into it before all
/// have stopped, and then it is used as it is.
#[tokio::test]
async fn a_file_that_replaced_another_is_used_after_a_restart() {
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
        let refused = store.insert(job("alpha", HOUR)).await.expect_err("it is another file");
        assert!(refused.is_transient() && refused.to_string().contains("replaced"), "{refused}");
        assert!(store.get(before.id).await.is_err() && store.claim(&claim(1)).await.is_err());
    }
    let bytes = std::fs::read(folder.file()).unwrap();
    drop(store);
    assert_eq!(std::fs::read(folder.file()).unwrap(), bytes, "nothing was copied into the new one");
    // The log that is left is the old one's.
    std::fs::rename(folder.file().with_extension("db-wal"), old.with_extension("old-wal")).unwrap();
    std::fs::remove_file(folder.file().with_extension("db-shm")).unwrap();
    let store = durable(&folder).await;
    assert_eq!(store.versions(&[before.id, after.id]).await.unwrap(), [Some(1), None]);
    insert(&store, &after).await;
    assert_eq!(store.claim(&claim(9)).await.unwrap().attempts.len(), 2);
    drop(store);
    // Which has lost nothing, with its log beside it.
    assert_eq!(SqliteStore::open(&old).await.unwrap().versions(&[before.id, after.id]).await.unwrap(), [Some(1); 2]);
}

/// Nobody waits for what would be done: so nobody waits for the lock either.
#[tokio::test]
async fn a_store_that_is_dropped_waits_for_no_lock() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(50), store.insert(job("alpha", HOUR))).await;
    assert!(waits.is_err(), "it waits for the lock");
    let began = std::time::Instant::now();
    drop(store);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Whether this process has the file open.
#[cfg(target_os = "linux")]
fn is_open(path: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").expect("open files are listed").flatten();
    open.filter_map(|open| std::fs::read_link(open.path()).ok()).any(|open| open == path)
}

/// A process that stops in order copies back what it has, although nobody else would find it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_was_accepted_outlives_a_deleted_log_if_the_process_stops_in_order() {
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
            assert!(began.elapsed() < Duration::from_secs(10), "its threads end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let types = durable(&folder).await.stats(&StatsQuery::default()).await.unwrap().types;
        let counts = types.first().map(|kind| kind.counts);
        assert_eq!(counts, Some([1, 0, 0, 0, 0, 0]), "{ending}");
    }
}

#[tokio::test]
async fn a_locked_file_is_unavailable_and_comes_back() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    let refused = store.insert(job("alpha", HOUR)).await.expect_err("it is locked");
    assert!(refused.is_transient() && began.elapsed() < Duration::from_secs(8), "{refused}");
    // Far more than share a transaction: none of them waits for the lock more than once.
    let began = std::time::Instant::now();
    let crowd = futures_util::future::join_all((0..2000).map(|_| store.insert(job("alpha", HOUR)))).await;
    assert!(crowd.iter().all(Result::is_err) && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types, [], "readers are not held up");
    other.execute_batch("ROLLBACK").unwrap();
    insert(&store, &job("alpha", HOUR)).await;
}

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
    assert!(matches!(store.get(second.id).await.unwrap(), Lookup::Gone { .. }), "it was cut");
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.quarantined, stats.types[0].counts[5]), (6, 0));
}

/// The process is killed, without a word, while it inserts: whatever it had an answer for is there.
#[cfg(unix)]
#[tokio::test]
async fn what_was_answered_outlives_a_killed_process() {
    use std::io::{BufRead as _, BufReader};
    if let Some(path) = std::env::var_os("INSERT_INTO") {
        let store = std::sync::Arc::new(SqliteStore::open(path).await.unwrap());
        loop {
            let jobs: Vec<NewJob> = (0..8).map(|_| job("alpha", HOUR)).collect();
            futures_util::future::join_all(jobs.iter().map(|job| insert(&store, job))).await;
            jobs.iter().for_each(|job| println!("accepted {}", job.id));
        }
    }
    let folder = Folder::new();
    let this = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(this)
        .args(["what_was_answered_outlives_a_killed_process", "--exact", "--nocapture"])
        .env("INSERT_INTO", folder.file())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut accepted: Vec<String> = lines.by_ref().take(400).collect::<Result<_, _>>().unwrap();
    child.kill().unwrap();
    accepted.extend(lines.map_while(Result::ok));
    child.wait().unwrap();
    let ids: Vec<async_endpoints_core::JobId> =
        accepted.iter().filter_map(|line| line.split_once("accepted ")?.1.get(..36)?.parse().ok()).collect();
    assert!(ids.len() > 300, "{}", ids.len());
    let store = durable(&folder).await;
    assert!(store.versions(&ids).await.unwrap().iter().all(Option::is_some), "nothing is lost");
    let counted = store.stats(&StatsQuery::default()).await.unwrap().types[0].count(JobStatus::Queued);
    let mut taken = 0;
    while let some @ 1.. = store.claim(&claim(64)).await.unwrap().attempts.len() {
        taken += some as u64;
    }
    assert_eq!(taken, counted, "counts are what the jobs say");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_breaks_nothing() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    for _ in 0..50 {
        let waiting: Vec<_> = (0..8).map(|_| store.insert(job("alpha", HOUR))).collect();
        drop(tokio::time::timeout(Duration::from_micros(300), futures_util::future::join_all(waiting)).await);
    }
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    let queued = stats.types.first().map_or(0, |kind| kind.count(JobStatus::Queued));
    let mut taken = 0;
    loop {
        match store.claim(&claim(64)).await.unwrap().attempts.len() {
            0 => break,
            some => taken += some as u64,
        }
    }
    assert!(taken >= queued, "{taken} of {queued}");
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!(stats.types[0].count(JobStatus::InProgress), taken, "counts are what the jobs say");
}

/// Threads of this process whose name says that they are a store's.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads are listed").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("sqlite-")).count()
}

/// In a process of its own: tests beside it have stores too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn threads_end_with_the_last_handle() {
    if std::env::var_os("ALONE").is_none() {
        in_a_process(&std::env::current_exe().unwrap(), "threads_end_with_the_last_handle", |command| {
            command.env("ALONE", "1");
        });
        return;
    }
    let folder = Folder::new();
    for _ in 0..5 {
        let store = durable(&folder).await;
        let hints = store.hints();
        insert(&store, &job("alpha", HOUR)).await;
        assert!(threads() >= 3, "{}", threads());
        drop(store);
        drop(hints);
    }
    for _ in 0..500 {
        if threads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} threads are left", threads());
}

#[tokio::test]
async fn who_closes_the_file_last_leaves_no_log() {
    let folder = Folder::new();
    let (one, other) = (durable(&folder).await, durable(&folder).await);
    let kept = job("alpha", HOUR);
    insert(&one, &kept).await;
    let (log, index) = (folder.file().with_extension("db-wal"), folder.file().with_extension("db-shm"));
    drop(one);
    assert!(log.exists() && index.exists(), "the other has it open");
    drop(other);
    assert!(!log.exists() && !index.exists(), "nobody has");
    assert_eq!(durable(&folder).await.versions(&[kept.id]).await.unwrap(), [Some(1)]);
}

#[tokio::test]
async fn a_stream_of_hints_ends_with_its_store() {
    use futures_util::StreamExt as _;
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Off, SystemClock::default()).await;
    let mut hints = store.hints();
    drop(store);
    let ended = tokio::time::timeout(Duration::from_secs(10), hints.next()).await;
    assert_eq!(ended, Ok(None));
}

#[tokio::test]
async fn an_unknown_job_stays_unknown() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Normal, SystemClock::default()).await;
    assert_eq!(store.get(job("alpha", HOUR).id).await.unwrap(), Lookup::NotFound);
    let lease = async_endpoints_core::store::Lease { job: job("alpha", HOUR).id, token: LeaseToken::random() };
    let settle = Settle { lease, outcome: Outcome::Released, if_canceled: error("X"), slow: false, span: None };
    assert_eq!(store.settle(&[settle]).await.unwrap(), [async_endpoints_core::store::Settled::Lost]);
}

/// Types stay for ever: one that a refused job names is not made.
#[tokio::test]
async fn a_refused_job_leaves_no_type_behind() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Normal, SystemClock::default()).await;
    let full = NewJob { queue_limit: Some(0), ..job("alpha", HOUR) };
    assert_eq!(store.insert(full).await.unwrap(), Insert::Full);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types, []);
    let first = job("alpha", HOUR);
    insert(&store, &first).await;
    let other = NewJob { id: first.id, fingerprint: async_endpoints_core::job::Digest([9; 32]), ..job("beta", HOUR) };
    assert_eq!(store.insert(other).await.unwrap(), Insert::Conflict);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types.len(), 1);
}
