//! Users and passwords: the documented permissions suffice, and no error shows a password.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStore as _, SharedState as _,
    store::{
        Heartbeat, Hint, JobLookup, ListFilter, Outcome, Page, Report, ReportedProgress, RetryAs, StatsQuery, WorkerId,
    },
};
use async_endpoints_redis::{OpenError, Options, RedisStore};
use async_endpoints_testkit::{
    jobs::{completed, error, job, key, line, worker},
    server::RedisServer,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use uuid::Uuid;

use crate::common::{HOUR, in_order, insert, options, settle, sweep, take};

const SECRET: &str = "hunter2-never-shown";

fn assert_secret_is_hidden(shown: impl std::fmt::Display + std::fmt::Debug) {
    let text = format!("{shown} {shown:?} {shown:#?}");
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn wrong_password_is_refused_and_not_shown() {
    let server = RedisServer::with(&[("requirepass", "right")]);
    let host = format!("127.0.0.1:{}", server.port());
    for address in
        [format!("redis://:{SECRET}@{host}"), format!("redis://unknown:{SECRET}@{host}"), format!("redis://{host}")]
    {
        let refused = options().open(&address).await.expect_err("the password is wrong");
        assert!(matches!(&refused, OpenError::Refused(why) if why.contains("user or the password")), "{refused:?}");
        let shown = refused.to_string();
        assert!(shown.contains(&host), "{shown}");
        assert_secret_is_hidden(refused);
    }
}

#[tokio::test]
async fn errors_and_debug_hide_the_password() {
    let server = RedisServer::with(&[("requirepass", SECRET)]);
    let options = options();
    let store = options.clone().open(server.url()).await.unwrap();
    assert_secret_is_hidden(format!("{options:?} {store:?}"));
    server.kill();
    let error = insert(&store).await.expect_err("the server is killed");
    assert_secret_is_hidden(format!("{error} {error:?}"));
    assert_secret_is_hidden(options.open(server.url()).await.expect_err("the server is killed"));
}

#[tokio::test]
async fn client_of_the_application_brings_user_and_database() {
    let server = RedisServer::with(&[("requirepass", SECRET)]);
    let address = format!("redis://:{SECRET}@127.0.0.1:{}/3", server.port());
    let client = redis::Client::open(address.as_str()).unwrap();
    let options = options();
    let store = options.clone().open_client(&client).await.unwrap();
    let id = insert(&store).await.unwrap().id;
    let other = options.open(&address).await.unwrap();
    assert!(matches!(other.get(id).await.unwrap(), JobLookup::Found(_)), "both use database 3");
}

/// The `ACL SETUSER` command of `docs/redis.md`.
fn acl() -> Vec<String> {
    let docs = include_str!("../../../../docs/redis.md");
    let begin = docs.find("ACL SETUSER").expect("a block with ACL SETUSER");
    let end = begin + docs[begin..].find("```").expect("the end of the block");
    docs[begin..end].replace('\\', " ").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn documented_permissions_suffice() {
    let server = RedisServer::start();
    let words = acl();
    assert_eq!(server.cli(&words.iter().map(String::as_str).collect::<Vec<_>>()), "OK", "{words:?}");
    let url = format!("redis://{}:{}@127.0.0.1:{}", words[2], words[4].trim_start_matches('>'), server.port());
    let store = Options::new().open(&url).await.unwrap();
    assert_eq!(store.volatile(), None);
    let mut hints = store.hints();
    all_calls(&store).await;
    let heard = async { hints.by_ref().filter(|hint| std::future::ready(matches!(hint, Hint::Jobs(_)))).next().await };
    assert!(tokio::time::timeout(Duration::from_secs(5), heard).await.is_ok(), "the user may subscribe");
    let denied = server.cli(&["ACL", "LOG"]);
    assert_eq!(denied, "", "denied commands");
    // Keys of another prefix are denied.
    let other = options().open(&url).await;
    assert!(other.is_err(), "{other:?}");
    assert!(server.cli(&["ACL", "LOG"]).contains("key"));
}

#[tokio::test]
async fn missing_right_is_refused() {
    let server = RedisServer::start();
    let words = acl();
    let url = format!("redis://jobs:{}@127.0.0.1:{}/0", words[4].trim_start_matches('>'), server.port());
    for (right, without, why) in [
        ("+hget", "-hget", "HGET"),
        ("+ltrim", "-ltrim", "LTRIM"),
        ("+evalsha", "-evalsha", "permission"),
        ("+subscribe", "-subscribe", "permission"),
        ("&{ae}:hints", "resetchannels", "PUBLISH"),
        ("~{ae}:*", "resetkeys", "permission"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).chain([without]).collect();
        assert_eq!(server.cli(&words), "OK", "{words:?}");
        let refused = Options::new().open(&url).await.expect_err(right);
        assert!(matches!(&refused, OpenError::Refused(text) if text.contains(why)), "{right}: {refused:?}");
    }
}

#[tokio::test]
async fn database_out_of_range_is_refused() {
    let server = RedisServer::start();
    for database in ["99", "-1"] {
        let url = format!("redis://127.0.0.1:{}/{database}", server.port());
        let refused = options().open(&url).await.expect_err(database);
        assert!(matches!(&refused, OpenError::Refused(_)), "{refused:?}");
    }
}

async fn all_calls(store: &RedisStore) {
    let short = Duration::from_millis(1);
    let keyed = job("alpha", short).key(key("k")).delay(short);
    for _ in 0..2 {
        store.insert(keyed.clone()).await.unwrap();
    }
    insert(store).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let taken = take(store, 9).await;
    let progress = ReportedProgress { completed: 1, total: None, percent: None, message: None };
    let report = Report { lease: taken[0].lease, progress: Some(progress), logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    for attempt in &taken {
        let failed = Outcome::Failed { error: error("F") };
        let outcome = if attempt.lease.job == keyed.id { completed("1") } else { failed };
        settle(store, attempt.lease, outcome).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.prune(9).await.unwrap(), 1);
    let failed = taken.iter().map(|one| one.lease.job);
    for id in failed {
        store.retry(id, &RetryAs { id: JobId::random(), trace: None }).await.unwrap();
        store.logs(id, 0, 9).await.unwrap();
    }
    let again = take(store, 1).await;
    let heartbeat = Heartbeat { worker: worker(WorkerId(Uuid::new_v4())), ttl: Duration::from_millis(1) };
    store.renew(&heartbeat, &[again[0].lease], Duration::from_millis(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.renew(&heartbeat, &[], HOUR).await.unwrap();
    for _ in 0..3 {
        store.reclaim(&sweep(Duration::from_millis(5))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    store.cancel(again[0].lease.job, &error("C")).await.unwrap();
    store.list(&ListFilter::default(), &Page { cursor: None, limit: 9 }).await.unwrap();
    store.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await.unwrap();
    store.probe().await.unwrap();
    let holder = Uuid::new_v4();
    store.role("r", holder, HOUR).await.unwrap();
    store.put_document("d", None, Bytes::from_static(b"x"), None).await.unwrap();
    store.document("d").await.unwrap();
    store.role("r", holder, Duration::ZERO).await.unwrap();
    in_order(store).await;
}
