//! A store that is not there: when the demo starts, later, and for good.

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use async_endpoints_testkit::server::RedisServer;
use reqwest::StatusCode;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time};
use tokio::time::sleep;

const SLEEP: &str = "/api/sleep";

/// Submits what must be refused for now, and in time.
async fn refused(demo: &Demo) {
    let began = Instant::now();
    let answer = demo.posting(SLEEP, &json!({ "seconds": 0 })).header("idempotency-key", "k").send();
    let answer = in_time("an answer", answer).await.expect("an answer");
    let problem = (answer.status(), answer.headers().contains_key("retry-after"));
    assert_eq!(problem, (StatusCode::SERVICE_UNAVAILABLE, true));
    assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], "STORE_UNAVAILABLE");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Submits the same until it is accepted, and follows it to its end.
async fn works(demo: &Demo) {
    let accepted = async {
        loop {
            let request = demo.posting(SLEEP, &json!({ "seconds": 0 })).header("idempotency-key", "k");
            let answer = request.send().await.expect("an answer");
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                break answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = in_time("a store", accepted).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let ended = demo.ended(answer.headers()["location"].to_str().expect("text")).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("Completed"), &json!(1)), "{ended}");
}

/// Somebody else's database.
fn foreign(path: &Path) {
    let other = Connection::open(path).expect("a file");
    other.execute_batch("CREATE TABLE birds (name TEXT)").expect("a table");
}

/// One of a later version.
fn newer(path: &Path) {
    let other = Connection::open(path).expect("a file");
    let header = "CREATE TABLE jobs (id TEXT); PRAGMA application_id = 1095060017; PRAGMA user_version = 9999";
    other.execute_batch(header).expect("a table");
}

/// The last line says which variable is set to what, what is wrong, and what to set.
fn tells(stderr: &str, value: &str, why: &str) {
    let line = stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with(&format!("AE_STORE is set to {value:?}: ")), "{stderr}");
    assert!(line.contains(why) && line.contains("; set ") && line.contains("sqlite:PATH"), "{stderr}");
}

#[tokio::test]
async fn it_waits_for_a_folder_to_be_made() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:later/jobs.db")]).await;
    refused(&demo).await;
    assert_eq!(demo.get("/jobs").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    fs::create_dir(folder.join("later")).expect("a folder");
    works(&demo).await;
    assert!(demo.log().contains("the store is open"), "{}", demo.log());
    assert!(demo.stop().await.expect("it ends").success());
}

#[tokio::test]
async fn it_stops_cleanly_while_it_waits() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:never/jobs.db")]).await;
    refused(&demo).await;
    let began = Instant::now();
    assert_eq!(demo.stop().await.expect("it ends").code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn it_waits_for_a_lock_to_be_given_up() {
    let folder = Folder::new();
    let other = Connection::open(folder.join("jobs.db")).expect("a file");
    other.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:jobs.db")]).await;
    refused(&demo).await;
    other.execute_batch("ROLLBACK").expect("it is given up");
    works(&demo).await;
}

#[tokio::test]
async fn a_file_that_will_never_do_is_one_line_and_exit_code_2() {
    let folder = Folder::new();
    foreign(&folder.join("foreign.db"));
    newer(&folder.join("newer.db"));
    fs::write(folder.join("text.db"), "this is no database, and never was one of any kind\n".repeat(100))
        .expect("a file");
    fs::create_dir(folder.join("folder.db")).expect("a folder");
    let bad = [
        ("foreign", "another program"),
        ("newer", "version 9999"),
        ("text", "not a database"),
        ("folder", "folder.db is a folder"),
    ];
    for (file, why) in bad {
        let value = format!("sqlite:{file}.db");
        let out = folder.run(&[("AE_STORE", &value), ("RUST_LOG", "off")]).await;
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(out.stdout.is_empty(), "it never listened");
        tells(&stderr, &value, why);
    }
}

#[tokio::test]
async fn what_will_never_do_may_be_found_out_later() {
    let folder = Folder::new();
    fs::create_dir(folder.join("made")).expect("a folder");
    newer(&folder.join("made/jobs.db"));
    let mut demo = Demo::start(&folder, &[("AE_STORE", "sqlite:later/jobs.db")]).await;
    refused(&demo).await;
    let began = Instant::now();
    fs::rename(folder.join("made"), folder.join("later")).expect("it has its name");
    assert_eq!(demo.gone().await.expect("it ends").code(), Some(2));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    tells(&demo.log(), "sqlite:later/jobs.db", "version 9999");
}

#[tokio::test]
async fn it_goes_on_when_its_file_is_back() {
    let folder = Folder::new();
    let (file, away) = (folder.join("jobs.db"), folder.join("away.db"));
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:jobs.db")]).await;
    let before = demo.finish(SLEEP, &json!({ "seconds": 0 })).await;
    let path = before["links"]["self"].as_str().expect("a link");
    fs::rename(&file, &away).expect("it is there");
    refused(&demo).await;
    assert_eq!(demo.get(path).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    fs::rename(&away, &file).expect("it is there");
    works(&demo).await;
    assert_eq!(demo.get(path).await.json::<Value>().await.expect("a job"), before);
    let listed: Value = demo.get("/jobs").await.json().await.expect("a page");
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(2), "what was refused left nothing: {listed}");
}

/// The processes of a file stop in order: all that was written is in it, and nothing lies beside it.
#[tokio::test]
async fn a_stop_leaves_one_file() {
    let folder = Folder::new();
    let vars = [("AE_STORE", "sqlite:jobs.db"), ("AE_SHUTDOWN_SECONDS", "0.1")];
    for _restart in 0..5 {
        let (one, other) = (Demo::start(&folder, &vars).await, Demo::start(&folder, &vars).await);
        one.finish(SLEEP, &json!({ "seconds": 0 })).await;
        let long = other.submit(SLEEP, &json!({ "seconds": 3600 })).await;
        one.job_when(&long, |job| job["status"] == "InProgress").await;
        assert!(one.stop().await.expect("it ends").success());
        assert!(folder.join("jobs.db-wal").exists(), "the other still has it open");
        assert!(other.stop().await.expect("it ends").success());
        for beside in ["jobs.db-wal", "jobs.db-shm"] {
            assert!(!folder.join(beside).exists(), "{beside} is left");
        }
    }
    let rows = |sql: &str| {
        let file = Connection::open(folder.join("jobs.db")).expect("a file");
        file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number")
    };
    assert_eq!((rows("SELECT completed FROM types"), rows("SELECT queued FROM types")), (5, 5));
}

#[tokio::test]
async fn it_waits_for_a_server_to_be_started() {
    let (folder, redis) = (Folder::new(), RedisServer::start());
    redis.kill();
    let demo = Demo::start(&folder, &[("AE_STORE", &redis.url())]).await;
    refused(&demo).await;
    redis.restart();
    works(&demo).await;
    assert!(demo.stop().await.expect("it ends").success());
}

#[tokio::test]
async fn a_server_that_evicts_jobs_is_one_line_and_exit_code_2_unless_it_may() {
    let folder = Folder::new();
    let redis = RedisServer::with(&[("maxmemory-policy", "allkeys-lru"), ("requirepass", "s3cret")]);
    let url = redis.url();
    let out = folder.run(&[("AE_STORE", &url), ("RUST_LOG", "off")]).await;
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(out.stdout.is_empty() && !stderr.contains("s3cret"), "{stderr}");
    tells(&stderr, "redis:…", "noeviction");
    let demo = Demo::start(&folder, &[("AE_STORE", &url), ("AE_ALLOW_VOLATILE", "true")]).await;
    works(&demo).await;
    let log = demo.log();
    assert!(log.contains("can lose jobs") && !log.contains("s3cret"), "{log}");
}
