//! Stores that are unavailable at start, later, or permanently.

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use async_endpoints_testkit::server::{PostgresServer, RedisServer, psql};
use reqwest::StatusCode;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time, until};
use tokio::time::sleep;

const SLEEP: &str = "/api/sleep";

/// Checks that a submission is rejected with 503 in time.
async fn expect_unavailable(demo: &Demo) {
    let began = Instant::now();
    let answer = demo.posting(SLEEP, &json!({ "seconds": 0 })).header("idempotency-key", "k").send();
    let answer = in_time("an answer", answer).await.expect("an answer");
    let problem = (answer.status(), answer.headers().contains_key("retry-after"));
    assert_eq!(problem, (StatusCode::SERVICE_UNAVAILABLE, true));
    assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], "STORE_UNAVAILABLE");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Repeats the submission until it is accepted, and waits for the job's end.
async fn expect_available(demo: &Demo) {
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

/// Creates a database of another program.
fn foreign(path: &Path) {
    let other = Connection::open(path).expect("a file");
    other.execute_batch("CREATE TABLE birds (name TEXT)").expect("a table");
}

/// Creates a store that needs a newer program.
fn newer(path: &Path) {
    let other = Connection::open(path).expect("a file");
    let header = "CREATE TABLE meta (min_version INTEGER); INSERT INTO meta VALUES (9999);
                  PRAGMA application_id = 1095060017; PRAGMA user_version = 9999";
    other.execute_batch(header).expect("a table");
}

/// Checks that the last line names the variable, its value, the problem and the expected value.
fn expect_invalid_store(stderr: &str, value: &str, why: &str) {
    let line = stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with(&format!("invalid AE_STORE {value:?}: ")), "{stderr}");
    assert!(line.contains(why) && line.contains("; expected ") && line.contains("sqlite:PATH"), "{stderr}");
}

#[tokio::test]
async fn demo_waits_for_a_missing_folder() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:later/jobs.db")]).await;
    expect_unavailable(&demo).await;
    assert_eq!(demo.get("/jobs").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    fs::create_dir(folder.join("later")).expect("a folder");
    expect_available(&demo).await;
    until("the line of an open store", || demo.log().contains("the store is open")).await;
    assert!(demo.stop().await.expect("an exit").success());
}

#[tokio::test]
async fn stop_without_a_store_is_clean() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:never/jobs.db")]).await;
    expect_unavailable(&demo).await;
    let began = Instant::now();
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn demo_waits_for_a_locked_file() {
    let folder = Folder::new();
    let other = Connection::open(folder.join("jobs.db")).expect("a file");
    other.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:jobs.db")]).await;
    expect_unavailable(&demo).await;
    other.execute_batch("ROLLBACK").expect("a rollback");
    expect_available(&demo).await;
}

#[tokio::test]
async fn unusable_file_is_one_line_and_exit_code_2() {
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
        assert!(out.stdout.is_empty(), "the demo printed an address");
        expect_invalid_store(&stderr, &value, why);
    }
}

#[tokio::test]
async fn unusable_file_found_later_is_exit_code_2() {
    let folder = Folder::new();
    fs::create_dir(folder.join("made")).expect("a folder");
    newer(&folder.join("made/jobs.db"));
    let mut demo = Demo::start(&folder, &[("AE_STORE", "sqlite:later/jobs.db")]).await;
    expect_unavailable(&demo).await;
    let began = Instant::now();
    fs::rename(folder.join("made"), folder.join("later")).expect("a rename");
    assert_eq!(demo.exited().await.expect("an exit").code(), Some(2));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    expect_invalid_store(&demo.log(), "sqlite:later/jobs.db", "version 9999");
}

#[tokio::test]
async fn demo_recovers_when_its_file_is_restored() {
    let folder = Folder::new();
    let (file, away) = (folder.join("jobs.db"), folder.join("away.db"));
    let demo = Demo::start(&folder, &[("AE_STORE", "sqlite:jobs.db")]).await;
    let before = demo.finish(SLEEP, &json!({ "seconds": 0 })).await;
    let path = before["links"]["self"].as_str().expect("a link");
    fs::rename(&file, &away).expect("a rename");
    expect_unavailable(&demo).await;
    assert_eq!(demo.get(path).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    fs::rename(&away, &file).expect("a rename");
    expect_available(&demo).await;
    assert_eq!(demo.get(path).await.json::<Value>().await.expect("a job"), before);
    let listed: Value = demo.get("/jobs").await.json().await.expect("a page");
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(2), "a rejected submission created a job: {listed}");
}

#[tokio::test]
async fn unreadable_job_is_500_and_other_jobs_are_readable() {
    let (folder, redis) = (Folder::new(), RedisServer::start());
    for store in ["sqlite:jobs.db", &redis.url()] {
        let demo = Demo::start(&folder, &[("AE_STORE", store), ("AE_ROLE", "api")]).await;
        let (job, other) =
            (demo.submit(SLEEP, &json!({ "seconds": 0 })).await, demo.submit(SLEEP, &json!({ "seconds": 0 })).await);
        let id = job.trim_start_matches("/jobs/");
        if store.starts_with("sqlite") {
            let file = Connection::open(folder.join("jobs.db")).expect("a file");
            let damage = format!("UPDATE jobs SET priority = 77 WHERE id = x'{}'", id.replace('-', ""));
            assert_eq!(file.execute(&damage, []).expect("an update"), 1);
        } else {
            let set = ["HSET", &format!("{{ae}}:job:{id}"), "t", "no name"];
            redis.cli(&set);
        }
        for answer in [demo.get(&job).await, demo.post(&format!("{job}/retry"), &Value::Null).await] {
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{store}");
            assert!(!answer.headers().contains_key("retry-after"), "a repeat does not help");
            assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], "JOB_UNREADABLE", "{store}");
        }
        assert_eq!(demo.get(&other).await.status(), StatusCode::OK);
    }
}

/// After the last process has stopped, the file contains everything and has no log or index beside it.
#[tokio::test]
async fn stop_leaves_one_file() {
    let folder = Folder::new();
    let vars = [("AE_STORE", "sqlite:jobs.db"), ("AE_SHUTDOWN_SECONDS", "0.1")];
    for _restart in 0..5 {
        let (one, other) = (Demo::start(&folder, &vars).await, Demo::start(&folder, &vars).await);
        one.finish(SLEEP, &json!({ "seconds": 0 })).await;
        let long = other.submit(SLEEP, &json!({ "seconds": 3600 })).await;
        one.job_when(&long, |job| job["status"] == "InProgress").await;
        assert!(one.stop().await.expect("an exit").success());
        assert!(folder.join("jobs.db-wal").exists(), "the other process has the file open");
        assert!(other.stop().await.expect("an exit").success());
        for file in ["jobs.db-wal", "jobs.db-shm"] {
            assert!(!folder.join(file).exists(), "{file} is left");
        }
    }
    let rows = |sql: &str| {
        let file = Connection::open(folder.join("jobs.db")).expect("a file");
        file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number")
    };
    assert_eq!((rows("SELECT completed FROM types"), rows("SELECT queued FROM types")), (5, 5));
}

#[tokio::test]
async fn demo_waits_for_a_redis_server() {
    let (folder, redis) = (Folder::new(), RedisServer::start());
    redis.kill();
    let demo = Demo::start(&folder, &[("AE_STORE", &redis.url())]).await;
    expect_unavailable(&demo).await;
    redis.restart();
    expect_available(&demo).await;
    assert!(demo.stop().await.expect("an exit").success());
}

#[tokio::test]
async fn demo_waits_for_a_postgresql_server() {
    let (folder, postgres) = (Folder::new(), PostgresServer::start());
    let url = postgres.database();
    postgres.stop();
    let demo = Demo::start(&folder, &[("AE_STORE", &url)]).await;
    expect_unavailable(&demo).await;
    postgres.restart();
    expect_available(&demo).await;
    assert_eq!(demo.finish(SLEEP, &json!({ "seconds": 0 })).await["status"], "Completed");
    let healthy = async {
        loop {
            let report: Value = demo.get("/health").await.json().await.expect("a report");
            let check = report["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "postgres");
            let check = check.expect("a check of the store");
            assert_eq!(check["tags"], json!(["ready"]), "{check}");
            if check["status"] == "Healthy" {
                break;
            }
            // Results of checks are kept for some seconds.
            sleep(Duration::from_millis(100)).await;
        }
    };
    in_time("a healthy store", healthy).await;
    let metrics = demo.get("/metrics").await.text().await.expect("metrics");
    assert!(metrics.contains("store=\"postgres\""), "{metrics}");
    assert!(demo.stop().await.expect("an exit").success());
}

/// Jobs that a SQL transaction creates start as soon as it commits.
#[tokio::test]
async fn job_from_psql_starts_within_250_ms() {
    let (folder, postgres) = (Folder::new(), PostgresServer::shared());
    let url = postgres.database();
    let demo = Demo::start(&folder, &[("AE_STORE", &url)]).await;
    expect_available(&demo).await;
    let head = json!({ "name": "Sleep" });
    let request = json!({ "v": 1, "body": { "seconds": 0 } });
    let sql = format!("SELECT ae.enqueue_v1('{head}', convert_to('{request}', 'UTF8'))::json->>'id'");
    let mut best = jiff::SignedDuration::MAX;
    // One quick start is enough, as other processes may slow down the machine.
    for _ in 0..10 {
        let id = psql(&url, &sql);
        let job = demo.ended(&format!("/jobs/{id}")).await;
        assert_eq!(job["status"], "Completed", "{job}");
        let time = |field: &str| job[field].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
        best = best.min(time("startedAt").duration_since(time("createdAt")));
    }
    assert!(best < jiff::SignedDuration::from_millis(250), "{best:?}");
}

#[tokio::test]
async fn unknown_postgresql_database_is_exit_code_2() {
    let (folder, postgres) = (Folder::new(), PostgresServer::shared());
    let url = format!("postgres://postgres:s3cret@127.0.0.1:{}/nowhere", postgres.port());
    let out = folder.run(&[("AE_STORE", &url), ("RUST_LOG", "off")]).await;
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(!stderr.contains("s3cret"), "{stderr}");
    expect_invalid_store(&stderr, "postgres:…", "\"nowhere\" does not exist");
}

#[tokio::test]
async fn postgresql_server_without_fsync_needs_allow_volatile() {
    let (folder, postgres) = (Folder::new(), PostgresServer::with(&[("fsync", "off")]));
    let url = postgres.url();
    let out = folder.run(&[("AE_STORE", &url), ("RUST_LOG", "off")]).await;
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    expect_invalid_store(&stderr, "postgres:…", "fsync is off");
    let demo = Demo::start(&folder, &[("AE_STORE", &url), ("AE_ALLOW_VOLATILE", "true")]).await;
    expect_available(&demo).await;
    assert!(demo.log().contains("can lose jobs"), "{}", demo.log());
}

#[tokio::test]
async fn unknown_redis_database_is_exit_code_2() {
    let (folder, redis) = (Folder::new(), RedisServer::start());
    for database in ["99", "-1"] {
        let url = format!("redis://127.0.0.1:{}/{database}", redis.port());
        let out = folder.run(&[("AE_STORE", &url), ("RUST_LOG", "off")]).await;
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        expect_invalid_store(&stderr, "redis:…", "database");
    }
}

#[tokio::test]
async fn evicting_server_needs_allow_volatile() {
    let folder = Folder::new();
    let redis = RedisServer::with(&[("maxmemory-policy", "allkeys-lru"), ("requirepass", "s3cret")]);
    let url = redis.url();
    let out = folder.run(&[("AE_STORE", &url), ("RUST_LOG", "off")]).await;
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(out.stdout.is_empty() && !stderr.contains("s3cret"), "{stderr}");
    expect_invalid_store(&stderr, "redis:…", "noeviction");
    let demo = Demo::start(&folder, &[("AE_STORE", &url), ("AE_ALLOW_VOLATILE", "true")]).await;
    expect_available(&demo).await;
    let log = demo.log();
    assert!(log.contains("can lose jobs") && !log.contains("s3cret"), "{log}");
}
