//! Users and passwords: the least that a user needs, and that nothing shows a password.

use std::time::Duration;

use async_endpoints_core::{
    JobStore as _, SharedState as _,
    store::{Hint, ListFilter, Page, Report, ReportedProgress, RetryAs, StatsQuery},
};
use async_endpoints_redis::{OpenError, Options, RedisStore};
use async_endpoints_testkit::{
    jobs::{completed, error, job, line},
    server::RedisServer,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use uuid::Uuid;

use crate::common::{HOUR, in_order, insert, options, settle, sweep, take};

const SECRET: &str = "hunter2-never-shown";

fn shows_nothing(shown: impl std::fmt::Display + std::fmt::Debug) {
    let text = format!("{shown} {shown:?} {shown:#?}");
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_never_shown() {
    let server = RedisServer::with(&[("requirepass", "right")]);
    let host = format!("127.0.0.1:{}", server.port());
    for address in
        [format!("redis://:{SECRET}@{host}"), format!("redis://nobody:{SECRET}@{host}"), format!("redis://{host}")]
    {
        let refused = options().open(&address).await.expect_err("it is wrong");
        assert!(matches!(&refused, OpenError::Refused(why) if why.contains("user or the password")), "{refused:?}");
        let shown = refused.to_string();
        assert!(shown.contains(&host), "{shown}");
        shows_nothing(refused);
    }
}

#[tokio::test]
async fn a_password_is_in_nothing_that_can_be_shown() {
    let server = RedisServer::with(&[("requirepass", SECRET)]);
    let options = options();
    let store = options.clone().open(server.url()).await.unwrap();
    shows_nothing(format!("{options:?} {store:?}"));
    server.kill();
    let error = insert(&store).await.expect_err("it is gone");
    shows_nothing(format!("{error} {error:?}"));
    shows_nothing(options.open(server.url()).await.expect_err("it is gone"));
}

/// The rights that `docs/redis.md` names, as one line of `redis-cli`.
fn rights() -> Vec<String> {
    let docs = include_str!("../../../../docs/redis.md");
    let begin = docs.find("ACL SETUSER").expect("the docs have it");
    let end = begin + docs[begin..].find("```").expect("the block ends");
    docs[begin..end].replace('\\', " ").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_rights_in_the_docs_are_enough() {
    let server = RedisServer::start();
    let words = rights();
    assert_eq!(server.cli(&words.iter().map(String::as_str).collect::<Vec<_>>()), "OK", "{words:?}");
    let url = format!("redis://{}:{}@127.0.0.1:{}", words[2], words[4].trim_start_matches('>'), server.port());
    let store = Options::new().open(&url).await.unwrap();
    assert_eq!(store.volatile(), None);
    let mut hints = store.hints();
    all_calls(&store).await;
    let told = async { hints.by_ref().filter(|hint| std::future::ready(matches!(hint, Hint::Jobs(_)))).next().await };
    assert!(tokio::time::timeout(Duration::from_secs(5), told).await.is_ok(), "it may listen");
    let denied = server.cli(&["ACL", "LOG"]);
    assert_eq!(denied, "", "something was denied");
    // And no more: another service's keys are not its own.
    let other = options().open(&url).await;
    assert!(other.is_err(), "{other:?}");
    assert!(server.cli(&["ACL", "LOG"]).contains("key"));
}

async fn all_calls(store: &RedisStore) {
    let keyed = async_endpoints_core::store::NewJob {
        key: Some(async_endpoints_testkit::jobs::key("k")),
        delay: Duration::from_millis(1),
        ..job("alpha", Duration::from_millis(1))
    };
    store.insert(keyed.clone()).await.unwrap();
    store.insert(keyed).await.unwrap();
    insert(store).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let taken = take(store, 9).await;
    let progress = ReportedProgress { completed: 1, total: None, percent: None, message: None };
    let report = Report { lease: taken[0].lease, progress: Some(progress), logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    settle(store, taken[0].lease, completed("1")).await;
    settle(store, taken[1].lease, async_endpoints_core::store::Outcome::Failed { error: error("F") }).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.prune(9).await.unwrap(), 1);
    let failed = taken.iter().map(|one| one.lease.job);
    for id in failed {
        store.retry(id, &RetryAs { id: async_endpoints_core::JobId::random(), trace: None }).await.unwrap();
        store.logs(id, 0, 9).await.unwrap();
    }
    let again = take(store, 1).await;
    let beat = async_endpoints_core::store::Heartbeat {
        worker: async_endpoints_core::store::WorkerId(Uuid::new_v4()),
        types: Vec::new(),
        slots: async_endpoints_core::store::WorkerSlots::default(),
        ttl: Duration::from_millis(1),
    };
    store.renew(&beat, &[again[0].lease], Duration::from_millis(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.renew(&beat, &[], HOUR).await.unwrap();
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
