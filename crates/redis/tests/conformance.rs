//! The Redis store against the whole contract, on a real server: alone, behind a store that could fail, while it does, as
//! two processes, and as two processes of different versions.

mod common;

use std::time::Duration;

use async_endpoints_redis::{Options, RedisStore};
use async_endpoints_testkit::{
    Fixture, FlakyStore, ManualClock, Retrying, Turns, check_faults, check_model, conformance, server::RedisServer,
};
use common::{open, options, shared};

/// On a clock that tests move, in place of the server's.
async fn timed() -> Fixture {
    let (server, clock) = (RedisServer::shared(), ManualClock::new());
    let store = open(&server, options().clock(clock.clone())).await;
    Fixture::manual(store, clock).keep(server)
}

async fn two(first: impl Fn(Options) -> Options, second: impl Fn(Options) -> Options) -> Fixture {
    let (server, clock) = (RedisServer::shared(), ManualClock::new());
    let options = options().clock(clock.clone());
    let stores: [RedisStore; 2] = [open(&server, first(options.clone())).await, open(&server, second(options)).await];
    Fixture::manual(Turns::new(stores), clock).keep(server)
}

/// What one process did, the other knows.
async fn two_processes() -> Fixture {
    two(|options| options, |options| options).await
}

/// One of them runs the scripts of the first release, as they were then; the other those of a later one, which writes more
/// than the first one knows.
async fn two_versions() -> Fixture {
    let first = |options: Options| options.edit_scripts(|name, _| first_release(name));
    let later = |options: Options| options.edit_scripts(later_release);
    two(first, later).await
}

/// Today's script, and beside what it writes what a later one may: another field of a job, a word more of its terms, hints of
/// another kind.
fn later_release(name: &str, text: &str) -> String {
    let replace = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{name} has no {from}");
        text.replace(from, to)
    };
    let text = text.to_owned() + "-- Of a later release.\n";
    let text = match name {
        "insert" => {
            let text = replace(text, "accepted .. words", "accepted .. words .. ' more'");
            replace(text, "{'t', name,", "{'zz', 'of a later release', 't', name,")
        }
        "claim" => replace(text, "call('HSET', job, 's', '2',", "call('HSET', job, 'zz', token, 's', '2',"),
        "retry" => replace(text, "size, 0}, ' ')", "size, 0, 'more'}, ' ')"),
        _ => text,
    };
    let tells = "if woken[1] then";
    if text.contains(tells) {
        text.replace(tells, "woken[#woken + 1] = 'x of a later release'\n  if woken[1] then")
    } else {
        text
    }
}

fn first_release(name: &str) -> String {
    let path = format!("{}/tests/golden/scripts-1/{name}.lua", env!("CARGO_MANIFEST_DIR"));
    // A script that the first release did not have is this version's alone.
    std::fs::read_to_string(&path).unwrap_or_else(|_| "return redis.error_reply('not in the first release')".to_owned())
}

/// As it is used: the server's clock decides.
async fn real() -> Fixture {
    let (server, store) = shared().await;
    Fixture::real_time(store, Duration::from_millis(50)).keep(server)
}

conformance!(plain, timed());
conformance!(behind_flaky, async { timed().await.wrap(FlakyStore::new) });
conformance!(behind_delays, async {
    timed().await.wrap(|store| FlakyStore::new(store).delays(Duration::from_micros(300)))
});
conformance!(behind_retries, async {
    timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(11, 0.2, 0.0)))
});
conformance!(as_two_processes, two_processes());
conformance!(as_two_versions, two_versions());

conformance!(real_time, real());

#[test]
fn it_answers_as_the_model_does() {
    check_model(timed, 96);
}

#[test]
fn it_answers_as_the_model_does_when_calls_are_repeated() {
    check_model(async || timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(7, 0.2, 0.0))), 48);
}

#[test]
fn two_processes_answer_as_the_model_does() {
    check_model(two_processes, 48);
}

#[test]
fn two_versions_answer_as_the_model_does() {
    check_model(two_versions, 48);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_calls_fail() {
    check_faults(timed, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_two_processes_while_calls_fail() {
    check_faults(two_processes, 10).await;
}
