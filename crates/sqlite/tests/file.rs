//! The file: closed and opened again, of another version or program, read-only, locked.

mod common;

use std::{path::Path, time::Duration};

use async_endpoints_core::{
    JobStore as _, SharedState as _, StoreError, SystemClock,
    store::{
        InsertOutcome, JobLookup, Lease, LeaseToken, NewJob, Outcome, PutOutcome, Report, Settled, Settlement,
        StatsQuery,
    },
};
use async_endpoints_sqlite::{OpenError, SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::{completed, error, job, key, line};
use bytes::Bytes;
use common::{Folder, HOUR, by_hand, claim, durable, end, in_a_process, insert, number, open};
use rusqlite::Connection;

#[tokio::test]
async fn reopened_file_has_all_data() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let ended = job("alpha", HOUR).key(key("k"));
    insert(&store, &ended).await;
    let taken = store.claim(&claim(1)).await.unwrap().attempts.remove(0);
    let report = Report { lease: taken.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    let settle = end(&taken, completed("{\"b\":2}"));
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

/// What a later version does to a file: a new schema version, for which programs of `min_version` are enough.
fn upgrade(folder: &Folder, min_version: u32) {
    by_hand(
        &folder.file(),
        &format!(
            "BEGIN; ALTER TABLE jobs ADD COLUMN later TEXT; UPDATE meta SET min_version = {min_version};
             PRAGMA user_version = 7; COMMIT;"
        ),
    );
}

#[tokio::test]
async fn schema_that_needs_a_newer_program_is_refused() {
    let folder = Folder::new();
    drop(durable(&folder).await);
    upgrade(&folder, 4);
    let refused = SqliteStore::open(folder.file()).await.expect_err("the schema is newer");
    assert!(matches!(&refused, OpenError::Newer { found: 7, needed: 4, known: 3, .. }), "{refused:?}");
    assert!(!refused.is_transient(), "a restart does not help");
    let text = refused.to_string();
    for part in ["jobs.db has schema version 7", "needs a program of version 4", "up to 3"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn running_store_stops_after_a_breaking_upgrade() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    insert(&store, &job("alpha", HOUR)).await;
    upgrade(&folder, 4);
    for _ in 0..2 {
        let refused = store.insert(job("alpha", HOUR)).await.expect_err("the schema is newer");
        assert!(refused.is_transient() && refused.to_string().contains("version 4 or later"), "{refused}");
    }
    by_hand(&folder.file(), "UPDATE meta SET min_version = 1");
    insert(&store, &job("alpha", HOUR)).await;
}

/// An added column stops neither a running store nor a store that is opened later.
#[tokio::test]
async fn compatible_upgrade_stops_no_older_program() {
    let folder = Folder::new();
    let running = durable(&folder).await;
    upgrade(&folder, 1);
    let opened = durable(&folder).await;
    for store in [&running, &opened] {
        insert(store, &job("alpha", HOUR)).await;
        let attempt = store.claim(&claim(1)).await.unwrap().attempts.remove(0);
        store.settle(&[end(&attempt, completed("1"))]).await.unwrap();
        assert!(matches!(store.get(attempt.lease.job).await.unwrap(), JobLookup::Found(_)));
    }
    let version = |conn: Connection| number(&conn, "PRAGMA user_version");
    assert_eq!(version(Connection::open(folder.file()).unwrap()), 7, "an older program keeps the version");
}

#[tokio::test]
async fn attempts_of_schema_1_have_no_worker() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    insert(&store, &job("alpha", HOUR)).await;
    let released = store.claim(&claim(1)).await.unwrap().attempts.remove(0);
    store.settle(&[end(&released, Outcome::Released)]).await.unwrap();
    store.claim(&claim(1)).await.unwrap();
    drop(store);
    by_hand(
        &folder.file(),
        "DROP INDEX jobs_by_owner; ALTER TABLE jobs DROP COLUMN owner_label; ALTER TABLE jobs DROP COLUMN worker;
         ALTER TABLE attempts DROP COLUMN worker; PRAGMA user_version = 1;",
    );
    let store = durable(&folder).await;
    let JobLookup::Found(job) = store.get(released.lease.job).await.unwrap() else { panic!("the job is kept") };
    assert_eq!(job.attempts.iter().map(|attempt| attempt.worker).collect::<Vec<_>>(), [None, None]);
}

#[tokio::test]
async fn file_of_another_program_is_refused() {
    let folder = Folder::new();
    by_hand(&folder.file(), "CREATE TABLE contacts (name TEXT)");
    let refused = SqliteStore::open(folder.file()).await.expect_err("another program made it");
    assert!(matches!(refused, OpenError::Foreign { .. }) && !refused.is_transient(), "{refused:?}");
    std::fs::write(folder.file(), "this is no database, but long enough to be read as if it were one").unwrap();
    let refused = SqliteStore::open(folder.file()).await.expect_err("a text file");
    assert!(matches!(refused, OpenError::Store(StoreError::Corrupt(_))) && !refused.is_transient(), "{refused:?}");
}

#[tokio::test]
async fn missing_folder_and_lock_are_transient() {
    let folder = Folder::new();
    let missing = folder.file().with_extension("folder");
    let nowhere = SqliteStore::open(missing.join("jobs.db")).await.expect_err("its folder is missing");
    assert!(nowhere.is_transient(), "{nowhere:?}");
    std::fs::create_dir(&missing).unwrap();
    drop(SqliteStore::open(missing.join("jobs.db")).await.expect("the folder exists now"));
    let below =
        SqliteStore::open(missing.join("jobs.db").join("below-a-file")).await.expect_err("its parent is a file");
    assert!(matches!(below, OpenError::Store(StoreError::Unavailable(_))), "{below:?}");

    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("PRAGMA journal_mode = WAL; BEGIN EXCLUSIVE").unwrap();
    let locked = SqliteStore::open(folder.file()).await.expect_err("the file is locked");
    assert!(locked.is_transient() && locked.to_string().contains("locked"), "{locked:?}");
    other.execute_batch("ROLLBACK").unwrap();
    drop(SqliteStore::open(folder.file()).await.expect("the lock is free now"));
}

#[tokio::test]
async fn folder_is_refused() {
    let folder = Folder::new();
    let refused = SqliteStore::open(folder.file().parent().unwrap()).await.expect_err("a folder");
    assert!(matches!(refused, OpenError::Folder { .. }) && !refused.is_transient(), "{refused:?}");
}

/// Runs as an unprivileged user, since root ignores permissions.
#[cfg(unix)]
#[tokio::test]
async fn read_only_file_is_unavailable_until_writable() {
    use std::os::unix::{fs::chown, process::CommandExt as _};
    const UNPRIVILEGED: u32 = 65534;
    let given = std::env::var_os("READ_ONLY").map(std::path::PathBuf::from);
    let own = given.is_none().then(Folder::new);
    let file = given.or_else(|| own.as_ref().map(Folder::file)).unwrap();
    std::fs::write(&file, "").unwrap();
    let may = |mode| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    may(0o444);
    if std::fs::File::options().write(true).open(&file).is_ok() {
        std::fs::remove_file(&file).unwrap();
        // In a folder that other users can enter, unlike perhaps the build folder.
        let folder = std::env::temp_dir().join(format!("sqlite-read-only-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        chown(&folder, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        in_a_process(&program, "read_only_file_is_unavailable_until_writable", |command| {
            command.env("READ_ONLY", folder.join("jobs.db")).current_dir(&folder).uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        });
        std::fs::remove_dir_all(folder).unwrap();
        return;
    }
    let refused = || async {
        let refused = SqliteStore::open(&file).await.expect_err("the file is read-only");
        assert!(refused.is_transient() && refused.to_string().contains("read-only"), "{refused:?}");
    };
    refused().await;
    may(0o644);
    let store = SqliteStore::open(&file).await.expect("the file is writable");
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    drop(store);
    may(0o444);
    refused().await;
    may(0o644);
    assert_eq!(SqliteStore::open(&file).await.unwrap().versions(&[kept.id]).await.unwrap(), [Some(1)]);
}

/// Makes files immutable until it is dropped: even open handles cannot write them.
#[cfg(target_os = "linux")]
struct Immutable(Vec<std::path::PathBuf>);

#[cfg(target_os = "linux")]
impl Immutable {
    /// Fails if that is not possible here: it needs root, `chattr` and a file system that supports it.
    fn make(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|path| Self::chattr("+i", path))
    }

    fn chattr(flag: &str, path: &Path) -> Result<(), String> {
        let ran = std::process::Command::new("chattr").arg(flag).arg(path).output();
        let ran = ran.map_err(|error| format!("chattr, on Debian in e2fsprogs: {error}"))?;
        let stderr = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() { Ok(()) } else { Err(stderr.trim().to_owned()) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Immutable {
    fn drop(&mut self) {
        for path in &self.0 {
            // Fails for a file that never became immutable.
            Self::chattr("-i", path).ok();
        }
    }
}

/// As when a disk refuses writes for a while. Prints a note where files cannot be made immutable. The writer's unit tests
/// cover such errors everywhere.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn immutable_file_is_unavailable_until_writable() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let kept = job("alpha", HOUR);
    insert(&store, &kept).await;
    // Not the shared memory: the kernel kills a process that writes to an immutable mapping.
    let files = ["db", "db-wal"].map(|ending| folder.file().with_extension(ending));
    let immutable = Immutable(files.into());
    if let Err(why) = immutable.make() {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "skipped, as no file can be made immutable here: {why}").unwrap();
        return;
    }
    let lost = job("alpha", HOUR);
    for _ in 0..3 {
        let refused = store.insert(lost.clone()).await.expect_err("the file is immutable");
        assert!(refused.is_transient() && refused.to_string().contains("writing the file failed"), "{refused}");
        assert!(store.claim(&claim(1)).await.is_err());
        assert_eq!(store.versions(&[kept.id, lost.id]).await.expect("reads go on"), [Some(1), None]);
    }
    drop(immutable);
    insert(&store, &lost).await;
    assert_eq!(store.claim(&claim(9)).await.unwrap().attempts.len(), 2);
}

#[cfg(unix)]
#[tokio::test]
async fn symbolic_link_opens_its_target() {
    let folder = Folder::new();
    drop(durable(&folder).await);
    let link = folder.file().with_file_name("link.db");
    std::os::unix::fs::symlink(folder.file(), &link).unwrap();
    let store = SqliteStore::open(link).await.expect("the file opens");
    insert(&store, &job("alpha", HOUR)).await;
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [1, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn new_file_is_opened_by_many_at_once() {
    let folder = Folder::new();
    let opened = futures_util::future::join_all((0..6).map(|_| SqliteStore::open(folder.file()))).await;
    for store in opened {
        store.expect("the file opens").probe().await.expect("the store answers");
    }
}

#[tokio::test]
async fn locked_file_is_unavailable_until_unlocked() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    let refused = store.insert(job("alpha", HOUR)).await.expect_err("the file is locked");
    assert!(refused.is_transient() && began.elapsed() < Duration::from_secs(8), "{refused}");
    // Far more calls than share a transaction: none of them waits for the lock more than once.
    let began = std::time::Instant::now();
    let crowd = futures_util::future::join_all((0..2000).map(|_| store.insert(job("alpha", HOUR)))).await;
    assert!(crowd.iter().all(Result::is_err) && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types, [], "reads go on");
    other.execute_batch("ROLLBACK").unwrap();
    insert(&store, &job("alpha", HOUR)).await;
}

#[tokio::test]
async fn call_for_an_unknown_job_is_not_found() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Normal, SystemClock::default()).await;
    assert_eq!(store.get(job("alpha", HOUR).id).await.unwrap(), JobLookup::NotFound);
    let lease = Lease { job: job("alpha", HOUR).id, token: LeaseToken::random() };
    let settle = Settlement::new(lease, Outcome::Released, error("X"));
    assert_eq!(store.settle(&[settle]).await.unwrap(), [Settled::Lost]);
}

#[tokio::test]
async fn refused_job_creates_no_type() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Normal, SystemClock::default()).await;
    let full = job("alpha", HOUR).queue_limit(0);
    assert_eq!(store.insert(full).await.unwrap(), InsertOutcome::Full);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types, []);
    let first = job("alpha", HOUR);
    insert(&store, &first).await;
    let other = NewJob { id: first.id, fingerprint: async_endpoints_core::job::Digest([9; 32]), ..job("beta", HOUR) };
    assert_eq!(store.insert(other).await.unwrap(), InsertOutcome::Conflict);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types.len(), 1);
}
