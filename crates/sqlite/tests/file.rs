//! What happens to the file: closed and opened again, of another version or program, read-only, locked.

mod common;

use std::{path::Path, time::Duration};

use async_endpoints_core::{
    JobStore as _, SharedState as _, StoreError, SystemClock,
    store::{InsertOutcome, JobLookup, LeaseToken, NewJob, Outcome, PutOutcome, Settlement, StatsQuery},
};
use async_endpoints_sqlite::{OpenError, SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::{completed, error, job, key, line};
use bytes::Bytes;
use common::{Folder, HOUR, by_hand, claim, durable, in_a_process, insert, open};
use rusqlite::Connection;

#[tokio::test]
async fn everything_is_there_after_it_was_closed() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let ended = NewJob { key: Some(key("k")), ..job("alpha", HOUR) };
    insert(&store, &ended).await;
    let taken = store.claim(&claim(1)).await.unwrap().attempts.remove(0);
    let report = async_endpoints_core::store::Report { lease: taken.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    let settle = Settlement::new(taken.lease, completed("{\"b\":2}"), error("X"));
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
    assert_eq!((again.types, again.minutes), (stats.types, stats.minutes));
    assert_eq!(store.logs(ended.id, 0, 9).await.unwrap()[0].message, "one");
    assert_eq!(store.insert(ended.clone()).await.unwrap(), InsertOutcome::Existing(seen));
    assert_eq!(store.settle(&[settle]).await.unwrap().len(), 1);
    let document = store.document("d").await.unwrap().expect("it was written");
    assert_eq!((put, document.bytes), (PutOutcome::Stored(document.version), Bytes::from_static(b"doc")));
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
async fn an_unknown_job_stays_unknown() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Normal, SystemClock::default()).await;
    assert_eq!(store.get(job("alpha", HOUR).id).await.unwrap(), JobLookup::NotFound);
    let lease = async_endpoints_core::store::Lease { job: job("alpha", HOUR).id, token: LeaseToken::random() };
    let settle = Settlement::new(lease, Outcome::Released, error("X"));
    assert_eq!(store.settle(&[settle]).await.unwrap(), [async_endpoints_core::store::Settled::Lost]);
}

/// Types stay for ever: one that a refused job names is not made.
#[tokio::test]
async fn a_refused_job_leaves_no_type_behind() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Normal, SystemClock::default()).await;
    let full = NewJob { queue_limit: Some(0), ..job("alpha", HOUR) };
    assert_eq!(store.insert(full).await.unwrap(), InsertOutcome::Full);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types, []);
    let first = job("alpha", HOUR);
    insert(&store, &first).await;
    let other = NewJob { id: first.id, fingerprint: async_endpoints_core::job::Digest([9; 32]), ..job("beta", HOUR) };
    assert_eq!(store.insert(other).await.unwrap(), InsertOutcome::Conflict);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types.len(), 1);
}
