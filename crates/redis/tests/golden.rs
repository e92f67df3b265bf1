//! What the first format's jobs look like, kept for ever: every later version reads them, works on with them, and leaves
//! alone what it does not know.

// Helpers are no tests to this lint.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, SharedState as _,
    job::{AttemptOutcome, Digest, TraceContext},
    store::{
        Insert, Lease, LeaseToken, ListFilter, Lookup, NewJob, Outcome, Page, Reclaimed, Report, ReportedProgress,
        Retry, RetryAs, Role, Settled, StatsQuery,
    },
};
use async_endpoints_redis::{Options, RedisStore};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, digest, error, job, key, line},
    server::RedisServer,
};
use bytes::Bytes;
use common::{HOUR, in_order, open, settle, sweep};
use uuid::Uuid;

const PREFIX: &str = "golden";
const LEASE: Duration = Duration::from_secs(30);

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1.txt")
}

/// Jobs are told apart by a number in their ids.
fn id(number: u128) -> JobId {
    JobId(Uuid::from_u128(0x01a2_0000_0000_7000_8000_0000_0000_0000 + number))
}

fn token(number: u128) -> LeaseToken {
    LeaseToken(Uuid::from_u128(number))
}

fn holder() -> Uuid {
    Uuid::from_u128(77)
}

fn new(number: u128) -> NewJob {
    NewJob {
        id: id(number),
        key: Some(key(&format!("key-{number}"))),
        owner: Some(Digest([9; 32])),
        fingerprint: digest(7),
        trace: Some(TraceContext {
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: Some("a=b".to_owned()),
        }),
        ..job("alpha", HOUR)
    }
}

/// A clock, a moment after the last job was stored.
fn later() -> ManualClock {
    let clock = ManualClock::new();
    clock.advance(HOUR * 2 - Duration::from_secs(5));
    clock
}

async fn take(store: &RedisStore, number: u128) -> Lease {
    let claim =
        async_endpoints_core::store::Claim { token: token(number), lease: LEASE, ..common::claim_of("alpha", 1) };
    store.claim(&claim).await.unwrap().attempts.remove(0).lease
}

/// Makes what the file holds: one job of each kind.
async fn make(store: &RedisStore, clock: &ManualClock) {
    let insert = async |new: NewJob| assert!(matches!(store.insert(new).await.unwrap(), Insert::Inserted { .. }));
    // Long ago: a tombstone.
    insert(new(1)).await;
    settle(store, take(store, 1).await, completed("1")).await;
    clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(store.prune(9).await.unwrap(), 1);
    clock.advance(HOUR - Duration::from_secs(60));
    store.reclaim(&sweep(LEASE)).await.unwrap();

    // Completed at its first attempt.
    insert(new(2)).await;
    let lease = take(store, 2).await;
    store.report(&[Report { lease, progress: None, logs: vec![line("one"), line("two")] }]).await.unwrap();
    let span = async_endpoints_core::store::Settle {
        span: Some("00-span".to_owned()),
        ..common::settlement(lease, completed("{\"b\":2}"))
    };
    store.settle(&[span]).await.unwrap();
    // Failed, and repeated: canceled by its operator.
    insert(new(3)).await;
    settle(store, take(store, 3).await, Outcome::Failed { error: error("F") }).await;
    assert!(matches!(store.retry(id(3), &RetryAs { id: id(4), trace: None }).await.unwrap(), Retry::Created(_)));
    store.cancel(id(4), &error("C")).await.unwrap();
    // Scheduled for its second attempt; lost once before.
    insert(new(5)).await;
    take(store, 50).await;
    for _ in 0..3 {
        clock.advance(LEASE / 2 + Duration::from_secs(1));
        store.reclaim(&sweep(LEASE)).await.unwrap();
    }
    settle(store, take(store, 51).await, Outcome::Retry { delay: HOUR / 2, error: error("R") }).await;
    // Running its second attempt after it was released, asked to cancel, with progress.
    insert(new(6)).await;
    settle(store, take(store, 60).await, Outcome::Released).await;
    let lease = take(store, 61).await;
    let progress =
        ReportedProgress { completed: 3, total: Some(9), percent: Some(33.5), message: Some("ünïcode".to_owned()) };
    store.report(&[Report { lease, progress: Some(progress), logs: vec![line("three")] }]).await.unwrap();
    store.cancel(id(6), &error("C")).await.unwrap();
    // Never started: delayed, and queued without anything that may be left out.
    insert(NewJob { delay: HOUR / 2, ..new(7) }).await;
    insert(NewJob { id: id(8), id_chosen: false, payload: Bytes::from_static(b"\x00\xff\r\n"), ..job("beta", HOUR) })
        .await;

    let Role::Held(held) = store.role("leader", holder(), HOUR).await.unwrap() else { panic!("it is free") };
    store.put_document("d", None, Bytes::from_static(b"doc\x00\xff"), Some(("leader", held))).await.unwrap();
}

/// A line for each command that makes a key anew, with what is not printable as `redis-cli` takes it.
fn dump(server: &RedisServer) -> String {
    const SCRIPT: &str = r#"
        local out = {}
        local function word(text)
          return '"' .. tostring(text):gsub('[^%w .,:;{}|=/+_-]', function(c) return string.format('\\x%02x', c:byte()) end) .. '"'
        end
        local function line(...)
          local words = {}
          for _, one in ipairs({...}) do words[#words + 1] = word(one) end
          out[#out + 1] = table.concat(words, ' ')
        end
        local keys = redis.call('KEYS', ARGV[1])
        table.sort(keys)
        for _, key in ipairs(keys) do
          local kind = redis.call('TYPE', key).ok
          if kind == 'string' then line('SET', key, redis.call('GET', key)) end
          if kind == 'hash' then line('HSET', key, unpack(redis.call('HGETALL', key))) end
          if kind == 'list' then line('RPUSH', key, unpack(redis.call('LRANGE', key, 0, -1))) end
          if kind == 'set' then line('SADD', key, unpack(redis.call('SMEMBERS', key))) end
          if kind == 'zset' then
            local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
            for at = 1, #all, 2 do line('ZADD', key, all[at + 1], all[at]) end
          end
        end
        return table.concat(out, '\n')"#;
    server.cli(&["EVAL", SCRIPT, "0", &format!("{{{PREFIX}}}:*")])
}

/// Gives the server what the file holds: each line is a command as a client may type it.
fn load(server: &RedisServer) {
    use std::io::{Read as _, Write as _};
    let text = std::fs::read_to_string(file()).expect("the first format's jobs");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let commands = text.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |mut all, line| {
        write!(all, "{line}\r\n").unwrap();
        all
    });
    stream.write_all(format!("{commands}QUIT\r\n").as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(!said.contains("-ERR"), "{said}");
}

async fn found(store: &RedisStore, number: u128) -> async_endpoints_core::JobView {
    match store.get(id(number)).await.unwrap() {
        Lookup::Found(view) => *view,
        other => panic!("{number}: {other:?}"),
    }
}

/// `UPDATE_GOLDEN=1` makes the file: once, before the first release.
#[tokio::test]
async fn jobs_of_the_first_format_are_read_and_go_on() {
    let options = |clock: ManualClock| Options::new().prefix(PREFIX).clock(clock);
    if std::env::var_os("UPDATE_GOLDEN").is_some() && env!("CARGO_PKG_VERSION") == "0.1.0" {
        let (server, clock) = (RedisServer::start(), ManualClock::new());
        make(&open(&server, options(clock.clone())).await, &clock).await;
        let head = "# Jobs in the first format, one of each kind: see tests/golden.rs. Never changed after the first release.\n";
        std::fs::write(file(), head.to_owned() + &dump(&server) + "\n").unwrap();
    }
    let (server, clock) = (RedisServer::start(), later());
    load(&server);
    let store = open(&server, options(clock.clone())).await;
    in_order(&store).await;
    read(&store).await;
    for number in 1..=8 {
        server.cli(&["HSET", &format!("{{{PREFIX}}}:job:{}", id(number)), "zz", "of a later version"]);
    }
    read(&store).await;
    go_on(&store, &clock).await;
    for number in 2..=8 {
        let kept = server.cli(&["HGET", &format!("{{{PREFIX}}}:job:{}", id(number)), "zz"]);
        assert_eq!(kept, "of a later version", "{number}");
    }
    in_order(&store).await;
    clock.advance(HOUR * 2);
    assert_eq!(store.prune(99).await.unwrap(), 7);
    in_order(&store).await;
}

async fn read(store: &RedisStore) {
    let owner = Some(Digest([9; 32]));
    assert_eq!(store.get(id(1)).await.unwrap(), Lookup::Gone { owner });
    assert_eq!(store.insert(new(1)).await.unwrap(), Insert::Existing(Lookup::Gone { owner }));

    let done = found(store, 2).await;
    assert_eq!((done.status, done.owner, done.trace.clone()), (JobStatus::Completed, owner, new(2).trace));
    assert_eq!(done.result.as_deref(), Some(&b"{\"b\":2}"[..]));
    let outcomes =
        |view: &async_endpoints_core::JobView| view.attempts.iter().map(|one| one.outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(&done), [Some(AttemptOutcome::Completed)]);
    assert!(done.expires_at == done.completed_at.map(|end| end + HOUR) && done.started_at.is_some());
    let logs = store.logs(id(2), 0, 9).await.unwrap();
    assert_eq!(
        logs.iter().map(|line| (line.line, line.message.as_str())).collect::<Vec<_>>(),
        [(1, "one"), (2, "two")]
    );
    assert_eq!(store.insert(new(2)).await.unwrap(), Insert::Existing(Lookup::Found(Box::new(done))));
    let other = NewJob { fingerprint: digest(8), ..new(2) };
    assert_eq!(store.insert(other).await.unwrap(), Insert::Conflict);

    let (failed, again) = (found(store, 3).await, found(store, 4).await);
    assert_eq!(
        (failed.status, failed.error.clone(), failed.retried_by),
        (JobStatus::Failed, Some(error("F")), Some(id(4)))
    );
    assert_eq!((again.status, again.error, again.retry_of), (JobStatus::Canceled, Some(error("C")), Some(id(3))));
    let waits = found(store, 5).await;
    assert_eq!((waits.status, waits.attempt, waits.loss_count, waits.retry_count), (JobStatus::Scheduled, 2, 1, 1));
    assert_eq!(outcomes(&waits), [Some(AttemptOutcome::Lost), Some(AttemptOutcome::Retried)]);
    assert_eq!((waits.error, waits.max_retries), (Some(error("R")), 3));

    let runs = found(store, 6).await;
    assert_eq!((runs.status, runs.attempt, runs.release_count), (JobStatus::InProgress, 2, 1));
    assert!(runs.cancel_requested_at.is_some());
    assert_eq!(outcomes(&runs), [Some(AttemptOutcome::Released), None]);
    let progress = runs.progress.unwrap();
    assert_eq!((progress.completed, progress.total, progress.percent), (3, Some(9), Some(33.5)));
    assert_eq!(progress.message.as_deref(), Some("ünïcode"));
    assert_eq!(found(store, 7).await.status, JobStatus::Scheduled);
    let queued = found(store, 8).await;
    assert_eq!(
        (queued.status, queued.ahead, queued.priority.get(), queued.owner),
        (JobStatus::Queued, Some(0), 4, None)
    );

    let page = store.list(&ListFilter::default(), &Page { cursor: None, limit: 50 }).await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [8, 7, 6, 5, 4, 3, 2].map(id));
    let stats = store.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await.unwrap();
    assert_eq!(stats.types.iter().map(|of| of.counts).collect::<Vec<_>>(), [[0, 2, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]]);
    assert_eq!((stats.types[0].never_started, stats.quarantined, stats.mended), (1, 0, 0));
    let ended = |at: usize| stats.slots.iter().map(|slot| slot.ended[at]).sum::<u64>();
    assert_eq!([ended(0), ended(1), ended(2)], [2, 1, 1]);
    let document = store.document("d").await.unwrap().unwrap();
    assert_eq!(document.bytes, Bytes::from_static(b"doc\x00\xff"));
    assert!(matches!(store.role("leader", Uuid::from_u128(1), HOUR).await.unwrap(), Role::Other(_)));
    assert!(matches!(store.role("leader", holder(), HOUR).await.unwrap(), Role::Held(_)));
}

async fn go_on(store: &RedisStore, clock: &ManualClock) {
    let failed = Outcome::Failed { error: error("F") };
    let lease = Lease { job: id(6), token: token(61) };
    assert_eq!(settle(store, lease, failed.clone()).await, Settled::Settled(JobStatus::Canceled));
    assert_eq!(settle(store, lease, failed).await, Settled::Settled(JobStatus::Canceled), "a repeat");
    // A repeat that comes late, by the claim before.
    let released = settle(store, Lease { job: id(6), token: token(60) }, Outcome::Released).await;
    assert_eq!(released, Settled::Settled(JobStatus::Queued));
    let taken = store.claim(&common::claim_of("beta", 9)).await.unwrap().attempts.remove(0);
    assert_eq!((taken.lease.job, &taken.payload[..]), (id(8), &b"\x00\xff\r\n"[..]));
    settle(store, taken.lease, completed("1")).await;
    clock.advance(HOUR / 2 + Duration::from_secs(60));
    let taken = store.claim(&common::claim_of("alpha", 9)).await.unwrap().attempts;
    assert_eq!(taken.iter().map(|one| (one.lease.job, one.attempt)).collect::<Vec<_>>(), [(id(5), 3), (id(7), 1)]);
    for one in &taken {
        assert_eq!(one.payload, new(5).payload);
        assert_eq!(settle(store, one.lease, completed("1")).await, Settled::Settled(JobStatus::Completed));
    }
    assert!(matches!(store.reclaim(&sweep(LEASE)).await.unwrap(), Reclaimed::Waiting(_)));
}
