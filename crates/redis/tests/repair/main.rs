//! Keys lost, changed and replaced under a store: nobody else is held up, mending puts everything readable back where it
//! belongs, and what cannot be read is put aside.

// Helpers are no tests to this lint.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, SharedState as _, StoreError,
    store::{Fenced, JobLookup, NewJob, Outcome, PutOutcome, Reclaimed, Report, RetryAs, Role, Settled, StatsQuery},
};
use async_endpoints_redis::Options;
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job, line},
    server::RedisServer,
};
use common::{HOUR, in_order, insert, open, sweep, take};
use rand::Rng as _;
use world::{LEASE, META, NUMBERS, World};

fn seed() -> u64 {
    let asked = std::env::var("TESTKIT_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| rand::rng().random_range(0..1_000_000))
}

async fn damaged(seed: u64) -> World {
    println!("TESTKIT_SEED={seed}");
    let mut world = World::new(seed).await;
    world.work().await;
    in_order(&world.store).await;
    for _ in 0..20 {
        let what = world.damage();
        println!("{what}");
    }
    world
}

#[tokio::test]
async fn mending_puts_everything_right() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        world.survey().await;
        let repaired = world.store.repair().await.unwrap();
        println!("{repaired:?}");
        in_order(&world.store).await;
        world.check().await;
        world.survey().await;
        world.drain().await;
        world.ended().await;
        in_order(&world.store).await;
        world.clock.advance(HOUR * 3);
        world.store.prune(100).await.unwrap();
        in_order(&world.store).await;
    }
}

#[tokio::test]
async fn without_mending_nobody_is_held_up_either() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        world.survey().await;
        world.drain().await;
        world.survey().await;
        // All others ended, and new ones run.
        let new = insert(&world.store).await.unwrap();
        let taken = take(&world.store, 9).await;
        assert!(taken.iter().any(|one| one.lease.job == new.id), "{taken:?}");
        world.clock.advance(HOUR * 3);
        for _ in 0..3 {
            world.store.prune(100).await.expect("pruning");
        }
        world.survey().await;
        world.store.repair().await.unwrap();
        in_order(&world.store).await;
    }
}

/// Keys that many jobs share, and what was written there by somebody else.
const SHARED: [&str; 16] = [
    "queued:alpha",
    "scheduled:alpha",
    "delayed:alpha",
    "running:alpha",
    "completed:alpha",
    "failed:alpha",
    "canceled:alpha",
    "accepted:alpha",
    "completed:beta",
    "leased",
    "types",
    "meta",
    "heartbeats",
    "workers",
    "quarantine",
    "minute",
];

fn overwrite(world: &World, place: &str) {
    let minute = world.cli(&["KEYS", &world.key("minute:*")]);
    let key = if place == "minute" { minute.lines().next().unwrap().to_owned() } else { world.key(place) };
    world.cli(&["DEL", &key]);
    world.cli(&["SET", &key, "somebody's"]);
}

#[tokio::test]
async fn what_stands_in_a_shared_keys_place_is_put_aside() {
    let mut world = World::new(1).await;
    world.work().await;
    SHARED.iter().for_each(|place| overwrite(&world, place));
    let found = world.store.stats(&StatsQuery::default()).await.expect_err("it is told");
    assert!(matches!(found, StoreError::Corrupt(_)), "{found}");
    assert!(world.store.repair().await.unwrap().repaired > 0);
    assert_eq!(world.cli(&["GET", &world.key("replaced:leased")]), "somebody's");
    in_order(&world.store).await;
    world.check().await;
    world.drain().await;
    world.ended().await;
}

/// Everything that is stored, in a few letters.
fn digest(world: &World) -> String {
    const SCRIPT: &str = "local keys, all = redis.call('KEYS', ARGV[1]), {} table.sort(keys) \
        for at, key in ipairs(keys) do all[at] = key .. redis.call('DUMP', key) end \
        return redis.sha1hex(table.concat(all))";
    world.cli(&["EVAL", SCRIPT, "0", &world.key("*")])
}

/// Refused as a whole, if it is.
async fn whole<T>(world: &World, place: &str, call: impl Future<Output = Result<T, StoreError>>) -> bool {
    overwrite(world, place);
    let before = digest(world);
    let done = call.await;
    assert!(done.is_ok() || digest(world) == before, "{place}: {:?}", done.err());
    done.is_ok()
}

#[tokio::test]
async fn no_call_leaves_a_half_when_a_shared_key_is_of_another_type() {
    for place in SHARED {
        let mut world = World::new(2).await;
        world.work().await;
        let (world, store, claim) = (&world, &world.store, common::claim_of("alpha", 3));
        let taken = store.claim(&claim).await.unwrap().attempts;
        let failed = Outcome::Failed { error: error("F") };
        let ends = [common::settlement(taken[0].lease, completed("1")), common::settlement(taken[1].lease, failed)];
        let retry = RetryAs { id: JobId::random(), trace: None };
        let waits = insert(store).await.unwrap();
        // Those that go on, whatever happens.
        let insert = async |delay| store.insert(NewJob { delay, ..job("alpha", HOUR) }).await;
        let inserts = async { tokio::try_join!(insert(Duration::ZERO), insert(HOUR)) };
        assert!(whole(world, place, inserts).await, "{place}");
        assert!(whole(world, place, store.settle(&ends)).await, "{place}");
        // And those that may be refused.
        whole(world, place, store.cancel(waits.id, &error("C"))).await;
        whole(world, place, store.claim(&claim)).await;
        whole(world, place, store.retry(taken[1].lease.job, &retry)).await;
        whole(world, place, store.reclaim(&sweep(LEASE))).await;
        whole(world, place, store.prune(9)).await;
        store.repair().await.unwrap();
        in_order(store).await;
    }
}

#[tokio::test]
async fn no_call_fails_or_leaves_a_half_over_a_shared_number() {
    for value in NUMBERS {
        let mut world = World::new(5).await;
        world.work().await;
        let (world, store, claim) = (&world, &world.store, common::claim_of("alpha", 4));
        let spoil = || {
            world.miscount(value);
            META.iter().for_each(|field| drop(world.cli(&["HSET", &world.key("meta"), field, value])));
        };
        let waits = insert(store).await.unwrap().id;
        spoil();
        store.insert(NewJob { delay: HOUR, ..job("alpha", HOUR) }).await.expect(value);
        let again = insert(store).await.expect(value).id;
        spoil();
        store.cancel(waits, &error("C")).await.expect(value);
        spoil();
        let taken = store.claim(&claim).await.expect(value).attempts;
        spoil();
        let failed = Outcome::Failed { error: error("F") };
        let later = Outcome::Retry { delay: HOUR, error: error("R") };
        let ends = [completed("1"), failed, later];
        let ends: Vec<_> = taken.iter().zip(ends).map(|(one, end)| common::settlement(one.lease, end)).collect();
        store.settle(&ends).await.expect(value);
        spoil();
        store.retry(taken[1].lease.job, &RetryAs { id: JobId::random(), trace: None }).await.expect(value);
        spoil();
        store.reclaim(&sweep(LEASE)).await.expect(value);
        spoil();
        world.cli(&["ZADD", &world.key("completed:alpha"), "0", &again.to_string()]);
        store.prune(9).await.expect(value);
        in_order(store).await;
        let stats = store.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await.expect(value);
        // A lowest count is a number, and counts on.
        assert!(value.starts_with('-') || stats.repaired == 2, "{value}: {}", stats.repaired);
        world.survey().await;
    }
}

/// What a call answered, if it did; a script that failed has left everything as it was.
async fn done<T>(world: &World, what: &str, call: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    let before = digest(world);
    match call.await {
        Ok(done) => Some(done),
        Err(error) => {
            let is_scripts = error.to_string().contains("script:");
            assert!(!is_scripts || digest(world) == before, "{what} left a half: {error}");
            None
        }
    }
}

#[tokio::test]
async fn whatever_is_damaged_work_goes_on_and_what_fails_leaves_no_half() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        let mut leases = Vec::new();
        for _ in 0..6 {
            let place = SHARED[world.rng.random_range(0..SHARED.len())];
            overwrite(&world, place);
            println!("{place}, {}, {}", world.damage(), world.damage());
            world.clock.advance(Duration::from_secs(7));
            let some = world.jobs[world.rng.random_range(0..world.jobs.len())].id;
            let store = &world.store;
            let keyed = world.jobs.iter().find(|job| job.id == some).unwrap().clone();
            let insert = async |delay| store.insert(NewJob { delay, ..job("alpha", HOUR) }).await;
            done(&world, "insert", insert(Duration::ZERO)).await.expect("accepted");
            done(&world, "insert", insert(LEASE)).await.expect("accepted");
            done(&world, "insert", store.insert(keyed)).await;
            let mut claim = common::claim_of("alpha", 3);
            claim.quotas.extend(common::claim_of("beta", 3).quotas);
            let taken = done(&world, "claim", store.claim(&claim)).await.expect("claimed").attempts;
            leases.extend(taken.iter().map(|one| one.lease));
            let report = |lease| Report { lease, progress: None, logs: vec![line("one")] };
            let reports: Vec<_> = leases.iter().rev().take(9).copied().map(report).collect();
            done(&world, "report", store.report(&reports)).await.expect("reported");
            let outcomes = [completed("1"), Outcome::Released, Outcome::Failed { error: error("F") }];
            let ends = leases.iter().rev().take(9).zip(outcomes.iter().cycle());
            let ends: Vec<_> = ends.map(|(lease, end)| common::settlement(*lease, end.clone())).collect();
            done(&world, "settle", store.settle(&ends)).await.expect("settled");
            done(&world, "cancel", store.cancel(some, &error("C"))).await;
            done(&world, "retry", store.retry(some, &RetryAs { id: JobId::random(), trace: None })).await;
            done(&world, "reclaim", store.reclaim(&sweep(LEASE))).await.expect("swept");
            done(&world, "prune", store.prune(9)).await;
        }
        world.store.repair().await.expect("repaired");
        in_order(&world.store).await;
    }
}

/// A script is not rolled back: what it stumbles over must be found before its first write.
#[tokio::test]
async fn a_job_that_cannot_be_read_leaves_no_half_of_the_others() {
    for value in ["nan", "inf", "1e999", "1.5"] {
        let world = World::new(4).await;
        let store = &world.store;
        let break_it =
            |id: JobId, field: &str| world.cli(&["HSET", &world.key(format_args!("job:{id}")), field, value]);
        insert(store).await.unwrap();
        insert(store).await.unwrap();
        let attempts = take(store, 2).await;
        break_it(attempts[1].lease.job, "n");
        let ends = [0, 1].map(|at| common::settlement(attempts[at].lease, completed("1")));
        let answers = store.settle(&ends).await.unwrap();
        assert_eq!(answers[0], Settled::Settled(JobStatus::Completed), "{value}");
        let JobLookup::Found(job) = store.get(ends[0].lease.job).await.unwrap() else { panic!("it is there") };
        assert_eq!(job.result.as_deref(), Some(b"1".as_slice()), "{value}");
        for field in ["n", "a", "rs"] {
            let (broken, fine) = (insert(store).await.unwrap().id, insert(store).await.unwrap().id);
            break_it(broken, field);
            if field != "n" {
                // Without a version nothing happened to it yet.
                world.cli(&["HSET", &world.key(format_args!("job:{broken}")), "n", "1"]);
            }
            let taken = take(store, 9).await;
            assert_eq!(taken.iter().map(|attempt| attempt.lease.job).collect::<Vec<_>>(), [fine], "{field} {value}");
        }
        let waits = insert(store).await.unwrap().id;
        break_it(waits, "w");
        let before = digest(&world);
        store.cancel(waits, &error("C")).await.expect_err("it cannot be read");
        assert_eq!(digest(&world), before, "and is as it was");
        store.repair().await.unwrap();
        in_order(store).await;
    }
}

/// What an attempt led to is asked for again, and cannot be read: lost, and nobody else's matter.
#[tokio::test]
async fn a_settlement_that_cannot_be_read_any_more_is_lost() {
    let world = World::new(6).await;
    let store = &world.store;
    for value in ["?", "7", "nan", "-1", "11", ""] {
        let released = insert(store).await.unwrap().id;
        let field = |field: &str| world.cli(&["HSET", &world.key(format_args!("job:{released}")), field, value]);
        let first = take(store, 1).await.remove(0).lease;
        common::settle(store, first, Outcome::Released).await;
        let ask = async || {
            let other = insert(store).await.unwrap().id;
            let taken = take(store, 9).await;
            let lease = taken.iter().find(|one| one.lease.job == other).unwrap().lease;
            let asked = [common::settlement(first, completed("1")), common::settlement(lease, completed("1"))];
            assert_eq!(
                store.settle(&asked).await.expect(value),
                [Settled::Lost, Settled::Settled(JobStatus::Completed)],
                "{value}"
            );
        };
        // Before another claim of it, and after.
        field("sd");
        let asked = [common::settlement(first, completed("1"))];
        assert_eq!(store.settle(&asked).await.expect(value), [Settled::Lost], "{value}");
        ask().await;
        world.cli(&["HSET", &world.key(format_args!("job:{released}")), "lt", &first.token.0.to_string()]);
        field("ls");
        ask().await;
        world.cli(&["HDEL", &world.key(format_args!("job:{released}")), "ls"]);
        ask().await;
    }
}

#[tokio::test]
async fn terms_with_numbers_beyond_all_measure_are_no_terms() {
    let world = World::new(7).await;
    let store = &world.store;
    for long in 1..5 {
        let mut words = ["1", "1795000000000000", "4", "3", "5", "3600000000", "7", "0"];
        words[[1, 3, 4, 5, 6][long]] = "99999999999999999";
        let id = insert(store).await.unwrap().id;
        world.cli(&["HSET", &world.key(format_args!("job:{id}")), "w", &words.join(" ")]);
        let before = digest(&world);
        let refused = store.cancel(id, &error("C")).await.expect_err("it cannot be read");
        assert!(matches!(refused, StoreError::Corrupt(_)) && digest(&world) == before, "{refused}");
        assert!(take(store, 9).await.is_empty());
        let why = world.cli(&["HGET", &world.key("quarantine"), &id.to_string()]);
        assert!(why.ends_with("queued:alpha a field cannot be read"), "{why}");
    }
    in_order(store).await;
}

#[tokio::test]
async fn lines_go_on_where_their_number_cannot_be_read() {
    let world = World::new(8).await;
    let store = &world.store;
    insert(store).await.unwrap();
    let lease = take(store, 1).await.remove(0).lease;
    for value in ["?", "nan", "inf", "1e999", "-3"] {
        for field in ["ll", "lb", "lg"] {
            world.cli(&["HSET", &world.key(format_args!("job:{}", lease.job)), field, value]);
            store.logs(lease.job, 0, 9).await.expect(value);
            let report = Report { lease, progress: None, logs: vec![line("one")] };
            assert_eq!(store.report(&[report]).await.expect(value), [Fenced::Applied]);
            assert!(store.logs(lease.job, 0, 99).await.expect(value).iter().all(|line| line.message == "one"));
        }
    }
}

/// A lease that ran out is taken away, whatever else the job says.
#[tokio::test]
async fn a_sweep_passes_over_what_nobody_can_be_told() {
    let world = World::new(9).await;
    let store = &world.store;
    store.reclaim(&sweep(LEASE)).await.unwrap();
    let (strange, fine) = (insert(store).await.unwrap().id, insert(store).await.unwrap().id);
    let claim = async_endpoints_core::store::Claim { lease: LEASE, ..common::claim_of("alpha", 9) };
    assert_eq!(store.claim(&claim).await.unwrap().attempts.len(), 2);
    world.cli(&["HSET", &world.key(format_args!("job:{strange}")), "a", "9999999999"]);
    for _ in 0..3 {
        world.clock.advance(LEASE / 2 + Duration::from_secs(1));
        if let Reclaimed::Done { recovered, .. } = store.reclaim(&sweep(LEASE)).await.expect("a sweep") {
            assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [fine]);
            return;
        }
    }
    panic!("nothing is taken away");
}

#[tokio::test]
async fn a_role_and_a_document_that_cannot_be_read_begin_anew() {
    let world = World::new(10).await;
    let store = &world.store;
    let (role, document) = (world.key("role:r"), world.key("document:d"));
    let holder = uuid::Uuid::new_v4();
    for value in ["?", "nan", "inf", "", "99999999999999999999"] {
        let Role::Held(token) = store.role("r", holder, HOUR).await.unwrap() else { panic!("it is free") };
        world.cli(&["HSET", &role, "until", value]);
        let put = store.put_document("d", None, "1".into(), Some(("r", token))).await.expect(value);
        assert_eq!(put, PutOutcome::Fenced, "{value}");
        assert!(matches!(store.role("r", uuid::Uuid::new_v4(), HOUR).await.expect(value), Role::Held(_)), "{value}");
        world.cli(&["DEL", &role]);
    }
    world.cli(&["SADD", &role, "somebody's"]);
    world.cli(&["SADD", &document, "somebody's"]);
    let Role::Held(token) = store.role("r", holder, HOUR).await.unwrap() else { panic!("it is free") };
    assert!(matches!(
        store.put_document("d", None, "1".into(), Some(("r", token))).await.unwrap(),
        PutOutcome::Stored(_)
    ));
    assert_eq!(world.cli(&["SMEMBERS", &world.key("replaced:role:r")]), "somebody's");
}

/// One type's index holds up no other type's jobs.
#[tokio::test]
async fn a_claim_goes_on_past_an_index_of_another_type() {
    for place in ["queued:beta", "scheduled:beta"] {
        let world = World::new(11).await;
        let store = &world.store;
        let due = NewJob { delay: LEASE, ..job("alpha", HOUR) };
        store.insert(due.clone()).await.unwrap();
        world.clock.advance(LEASE * 2);
        overwrite(&world, place);
        let mut claim = common::claim_of("alpha", 3);
        claim.quotas.extend(common::claim_of("beta", 3).quotas);
        let taken = store.claim(&claim).await.expect(place).attempts;
        assert_eq!(taken.iter().map(|one| one.lease.job).collect::<Vec<_>>(), [due.id], "{place}");
        assert_eq!(world.cli(&["GET", &world.key(format_args!("replaced:{place}"))]), "somebody's");
        in_order(store).await;
    }
}

#[tokio::test]
async fn pruning_drops_what_does_not_belong_and_puts_aside_what_cannot_be_read() {
    let world = World::new(3).await;
    let store = &world.store;
    for value in ["nan", "inf", "1.5"] {
        let id = insert(store).await.unwrap().id;
        common::settle(store, take(store, 1).await[0].lease, completed("1")).await;
        let job = world.key(format_args!("job:{id}"));
        world.cli(&["HSET", &job, "en", value]);
        assert_eq!(store.prune(9).await.expect(value), 1);
        assert_eq!(world.cli(&["HMGET", &job, "s", "en"]), format!("9\n{value}"));
    }
    let [queued, unreadable, ended] =
        [insert(store).await.unwrap(), insert(store).await.unwrap(), insert(store).await.unwrap()].map(|job| job.id);
    for attempt in take(store, 3).await {
        let outcome = if attempt.lease.job == queued { Outcome::Released } else { completed("1") };
        common::settle(store, attempt.lease, outcome).await;
    }
    world.cli(&["ZADD", &world.key("completed:alpha"), "1", &queued.to_string()]);
    world.cli(&["ZADD", &world.key("failed:alpha"), "1", &ended.to_string()]);
    world.cli(&["HSET", &world.key(format_args!("job:{unreadable}")), "en", "?"]);
    world.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(store.prune(9).await.unwrap(), 4, "each entry is dealt with once");
    assert_eq!(store.prune(9).await.unwrap(), 0);
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.repaired, stats.quarantined), (2, 4));
    let why = world.cli(&["HGET", &world.key("quarantine"), &unreadable.to_string()]);
    assert!(why.ends_with("completed:alpha a field cannot be read"), "{why}");
    assert!(matches!(store.get(ended).await.unwrap(), JobLookup::Gone { .. }));
    in_order(store).await;
    assert_eq!(take(store, 9).await[0].lease.job, queued);
}

#[tokio::test]
async fn it_mends_by_itself_and_goes_on_where_another_process_came_to() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let options = || Options::new().prefix(prefix.clone()).check_every(Duration::from_millis(20));
    let [mut one, two] = [open(&server, options()).await, open(&server, options()).await];
    for round in 1..4 {
        let job = insert(&one).await.unwrap();
        server.cli(&["ZREM", &format!("{{{prefix}}}:queued:alpha"), &job.id.to_string()]);
        let began = std::time::Instant::now();
        while two.stats(&StatsQuery::default()).await.unwrap().repaired < round {
            assert!(began.elapsed() < common::SOON, "nobody mends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(take(&two, 9).await[0].lease.job, job.id);
        // One of them looks, the other waits; if that one ends, the other goes on.
        let role = format!("{{{prefix}}}:role:repair");
        assert_eq!(server.cli(&["HEXISTS", &role, "place"]), "1");
        one = open(&server, options()).await;
        server.cli(&["HSET", &role, "until", "1"]);
    }
}

/// Where the last look came to, in words that no look can go on from.
#[tokio::test]
async fn it_mends_by_itself_from_the_beginning_if_its_place_cannot_be_read() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let role = format!("{{{prefix}}}:role:repair");
    server.cli(&["HSET", &role, "place", "99999999999999999999999 2 job:"]);
    let store = open(&server, Options::new().prefix(prefix.clone()).check_every(Duration::from_millis(20))).await;
    let job = insert(&store).await.unwrap();
    server.cli(&["ZREM", &format!("{{{prefix}}}:queued:alpha"), &job.id.to_string()]);
    let began = std::time::Instant::now();
    while store.stats(&StatsQuery::default()).await.unwrap().repaired == 0 {
        assert!(began.elapsed() < common::SOON, "nobody mends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(take(&store, 9).await[0].lease.job, job.id);
}

/// Scores of all priorities stay apart, and exact.
#[tokio::test]
async fn an_order_beyond_all_times_begins_anew() {
    let world = World::new(12).await;
    let store = &world.store;
    let first = insert(store).await.unwrap().id;
    world.cli(&["HSET", &world.key("meta"), "order", "9007199254740990"]);
    let second = insert(store).await.unwrap().id;
    let order = |id| world.cli(&["HGET", &world.key(format_args!("job:{id}")), "d"]).parse::<u64>().unwrap();
    assert!(order(first) <= order(second) && order(second) < order(first) + 256_000_000, "{}", order(second));
}

#[tokio::test]
async fn a_lease_that_nobody_knows_of_is_taken_up_again() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let clock = ManualClock::new();
    let store = open(&server, Options::new().prefix(prefix.clone()).clock(clock.clone())).await;
    store.reclaim(&sweep(LEASE)).await.unwrap();
    let job = insert(&store).await.unwrap();
    take(&store, 1).await;
    server.cli(&["DEL", &format!("{{{prefix}}}:leased")]);
    assert_eq!(store.repair().await.unwrap().repaired, 1);
    let mut recovered = Vec::new();
    for _ in 0..4 {
        clock.advance(LEASE / 2);
        if let Reclaimed::Done { recovered: some, .. } = store.reclaim(&sweep(LEASE)).await.unwrap() {
            recovered.extend(some);
        }
    }
    assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [job.id]);
}
