//! Each built-in rule on both sides of its default threshold.

mod burn_rate;
#[cfg(feature = "sqlite")]
mod restart;

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    Clock as _, JobName, MemoryStore, Timestamp,
    store::{MinuteStats, Stats, TypeCutoffs, TypeStats},
};
use async_endpoints_testkit::{FlakyStore, ManualClock};
use serde_json::{Value, json};

use super::{
    instances::{InstanceValue, MEMORY, STORE_ERRORS},
    rule::{Reading, Rule, RuleContext, RuleSettings},
    rules::defaults,
    state::{Input, Limits},
};
use crate::{
    AsyncEndpoints, JobContext, JobType, Options,
    types::{Controls, TypePause},
};

const NOW: Timestamp = Timestamp::from_minute(100);
/// Default of [`Alerts::min_count`](super::Alerts::min_count).
const MIN_COUNT: u64 = 20;

fn name() -> JobName {
    JobName::new("A").expect("a valid name")
}

fn of_type() -> TypeStats {
    TypeStats {
        name: name(),
        counts: [0; 6],
        never_started: 0,
        oldest_runnable: None,
        oldest_running: None,
        slow: 0,
        overdue: 0,
        stale: 0,
        unrecovered: 0,
    }
}

fn context(of_type: TypeStats, minutes: Vec<MinuteStats>, instances: Vec<InstanceValue>) -> RuleContext {
    let minute = Duration::from_secs(60);
    let cutoffs = TypeCutoffs { name: name(), slow_after: minute, overdue_after: minute, stuck_after: minute * 10 };
    RuleContext {
        store: Arc::new(MemoryStore::new()),
        stats: Arc::new(Stats { now: NOW, types: vec![of_type], minutes, ..Stats::default() }),
        cutoffs: [cutoffs].into(),
        controls: Arc::default(),
        declared: [name()].into(),
        instances: instances.into(),
        window: minute * 60,
        min_count: MIN_COUNT,
        muted_at: None,
        memory: Value::Null,
    }
}

fn rule(of: &str) -> Rule {
    defaults().into_iter().find(|(name, _)| name == of).expect("a built-in rule").1
}

async fn read(of: &str, context: &RuleContext) -> Reading {
    rule(of).rule.evaluate(context).await.expect("a reading")
}

/// Whether the rule's value is above its threshold, with enough events.
async fn fires(of: &str, context: &RuleContext) -> bool {
    input(&rule(of), &read(of, context).await) == Input::Breach
}

/// A reading, compared with the thresholds of its rule.
fn input(rule: &Rule, reading: &Reading) -> Input {
    let RuleSettings { threshold, clear_below, min_count, .. } = rule.settings;
    let limits = Limits { threshold, clear_below, min_count: min_count.unwrap_or(MIN_COUNT) };
    Input::of(reading.value, reading.count, &limits)
}

fn ended(minute: i64, completed: u64, failed: u64) -> MinuteStats {
    let mut stats = MinuteStats::new(minute, name());
    stats.ended = [completed, failed, 0];
    stats
}

#[tokio::test]
async fn failure_rate_fires_above_ten_percent_of_twenty_jobs() {
    for (minutes, expected) in [
        (vec![ended(100, 18, 2)], false),
        (vec![ended(100, 17, 3)], true),
        (vec![ended(100, 0, 19)], false),
        (vec![ended(100, 0, 20)], true),
        // The window is an hour.
        (vec![ended(39, 0, 20)], false),
        (vec![ended(40, 0, 20)], true),
        (vec![], false),
    ] {
        let context = context(of_type(), minutes.clone(), vec![]);
        assert_eq!(fires("failure_rate", &context).await, expected, "{minutes:?}");
    }
    assert_eq!(rule("failure_rate").settings.clear_below, Some(5.0));
}

#[tokio::test]
async fn type_that_fails_is_not_hidden_by_others() {
    let mut other = ended(100, 1_000, 0);
    other.name = JobName::new("B").expect("a valid name");
    let reading = read("failure_rate", &context(of_type(), vec![other, ended(100, 10, 10)], vec![])).await;
    assert_eq!((reading.value, reading.count), (Some(50.0), Some(20)));
    assert_eq!(reading.message, "50.00 % of the jobs of A failed: 10 of 20 ended jobs");
}

#[tokio::test]
async fn stuck_jobs_fire_above_five() {
    for (overdue, expected) in [(5, false), (6, true)] {
        let of_type = TypeStats { overdue, ..of_type() };
        assert_eq!(fires("stuck_jobs", &context(of_type, vec![], vec![])).await, expected);
    }
}

#[tokio::test]
async fn ended_slow_attempts_count_once() {
    assert!(!fires("slow_jobs", &context(of_type(), vec![], vec![])).await);
    assert!(fires("slow_jobs", &context(TypeStats { slow: 1, ..of_type() }, vec![], vec![])).await);
    let mut minute = MinuteStats::new(100, name());
    minute.slow = 2;
    let mut context = context(of_type(), vec![minute.clone()], vec![]);
    let first = read("slow_jobs", &context).await;
    assert_eq!(first.value, Some(2.0));
    assert_eq!(first.memory, json!({ "minute": 100, "slow": 2 }));
    context.memory = first.memory;
    assert_eq!(read("slow_jobs", &context).await.value, Some(0.0), "they were counted");
    minute.slow = 3;
    context.stats = Arc::new(Stats { minutes: vec![minute], ..(*context.stats).clone() });
    assert_eq!(read("slow_jobs", &context).await.value, Some(1.0));
}

#[tokio::test]
async fn waits_fire_above_their_seconds() {
    for (seconds, oldest, missing) in [(60, false, false), (61, false, true), (300, false, true), (301, true, true)] {
        let of_type = TypeStats { oldest_runnable: Some(NOW.before(Duration::from_secs(seconds))), ..of_type() };
        let context = context(of_type, vec![], vec![]);
        assert_eq!(fires("oldest_queued", &context).await, oldest, "{seconds} s");
        assert_eq!(fires("no_workers", &context).await, missing, "{seconds} s");
    }
    for (seconds, expected) in [(55, false), (70, true)] {
        let mut minute = MinuteStats::new(100, name());
        minute.queue_time.record(Duration::from_secs(seconds));
        assert_eq!(fires("queue_wait", &context(of_type(), vec![minute], vec![])).await, expected, "{seconds} s");
    }
}

#[tokio::test]
async fn paused_type_fires_no_alert_about_waiting() {
    let mut minute = MinuteStats::new(100, name());
    minute.queue_time.record(Duration::from_secs(70));
    let waiting = TypeStats { oldest_runnable: Some(NOW.before(Duration::from_secs(301))), ..of_type() };
    let mut context = context(waiting, vec![minute], vec![]);
    let mut paused = Controls::default();
    let pause = TypePause { reason: "no paper".to_owned(), since: NOW, until: None };
    paused.change(&name(), |control| control.pause = Some(pause));
    for (controls, expected) in [(Controls::default(), true), (paused, false)] {
        context.controls = Arc::new(controls);
        for rule in ["queue_wait", "oldest_queued", "no_workers"] {
            assert_eq!(fires(rule, &context).await, expected, "{rule}");
        }
    }
}

#[tokio::test]
async fn queue_wait_ignores_starts_after_an_outage() {
    let mut late = MinuteStats::new(98, name());
    late.queue_time.record(Duration::from_secs(70));
    let mut context = context(of_type(), vec![late], vec![]);
    for (muted_at, value) in [(None, true), (Some(97), true), (Some(98), false), (Some(99), false)] {
        context.muted_at = muted_at.map(|minute| Timestamp::from_micros(minute * 60_000_000));
        assert_eq!(fires("queue_wait", &context).await, value, "{muted_at:?}");
    }
    context.muted_at = Some(NOW);
    assert_eq!(read("queue_wait", &context).await, Reading::no_data());
}

#[tokio::test]
async fn waits_count_from_the_end_of_an_outage() {
    let long = TypeStats { oldest_runnable: Some(NOW.before(Duration::from_secs(1000))), ..of_type() };
    let mut context = context(long, vec![], vec![]);
    for (ended, oldest, missing) in [(60, false, false), (61, false, true), (300, false, true), (301, true, true)] {
        context.muted_at = Some(NOW.before(Duration::from_secs(ended)));
        assert_eq!(fires("oldest_queued", &context).await, oldest, "{ended} s");
        assert_eq!(fires("no_workers", &context).await, missing, "{ended} s");
    }
}

#[tokio::test]
async fn largest_value_of_a_process_counts() {
    let value = |rule: &str, instance: &str, value, count| InstanceValue {
        rule: rule.to_owned(),
        instance: instance.to_owned(),
        value,
        count,
        outage: None,
        at: NOW,
    };
    for (of, at, count, expected) in [
        (MEMORY, 80.0, None, false),
        (MEMORY, 80.1, None, true),
        (STORE_ERRORS, 5.0, Some(10), false),
        (STORE_ERRORS, 5.1, Some(9), false),
        (STORE_ERRORS, 5.1, Some(10), true),
    ] {
        let values = vec![value(of, "a", 1.0, count), value(of, "b", at, count)];
        assert_eq!(fires(of, &context(of_type(), vec![], values)).await, expected, "{of} {at} {count:?}");
    }
    assert!(!fires(MEMORY, &context(of_type(), vec![], vec![])).await, "no process reports a value");
    let values = vec![value(STORE_ERRORS, "few", 50.0, Some(2)), value(STORE_ERRORS, "many", 6.0, Some(100))];
    let mut context = context(of_type(), vec![], values);
    context.min_count = 10;
    assert!(fires(STORE_ERRORS, &context).await, "few errors of one process do not hide many of another");
}

#[tokio::test]
async fn queue_wait_is_of_the_slowest_type() {
    let mut fast = MinuteStats::new(100, name());
    (0..1_000).for_each(|_| fast.queue_time.record(Duration::from_millis(1)));
    let mut slow = MinuteStats::new(100, JobName::new("B").expect("a valid name"));
    slow.queue_time.record(Duration::from_secs(70));
    let context = context(of_type(), vec![fast, slow], vec![]);
    assert!(fires("queue_wait", &context).await);
    assert_eq!(read("queue_wait", &context).await.details["job_type"], "B");
}

#[tokio::test]
async fn ended_slow_job_is_a_sample() {
    const TIMED: JobType<u64, ()> = JobType::new("A");
    let clock = ManualClock::new();
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let time = clock.clone();
    let run = move |ctx: JobContext<u64>| {
        time.advance(Duration::from_secs(*ctx.request()));
        async { Ok(()) }
    };
    let options = Options { lease: Duration::from_secs(3600), ..Options::default() };
    let endpoints = AsyncEndpoints::builder(store.clone()).options(options).handler(TIMED, run).build().expect("valid");
    let mut ids = Vec::new();
    for seconds in [60, 61] {
        ids.push(endpoints.submit(TIMED, seconds).await.expect("accepted").job.id);
        endpoints.run_until_idle().await.expect("memory answers");
    }
    let mut minute = MinuteStats::new(100, name());
    minute.slow = 1;
    let mut context = context(of_type(), vec![minute], vec![]);
    context.store = store;
    let first = read("slow_jobs", &context).await;
    assert_eq!(first.jobs, ids[1..]);
    context.memory = first.memory;
    let running = TypeStats { slow: 1, ..of_type() };
    clock.advance(Duration::from_secs(1));
    context.stats = Arc::new(Stats { types: vec![running], now: clock.now(), ..(*context.stats).clone() });
    let second = read("slow_jobs", &context).await;
    assert_eq!((second.value, second.jobs), (Some(1.0), vec![]), "it was counted");
}

#[tokio::test]
async fn failed_read_of_samples_leaves_the_value() {
    let store = FlakyStore::new(Arc::new(MemoryStore::new()));
    store.outage(true);
    let mut context = context(TypeStats { overdue: 6, ..of_type() }, vec![ended(100, 0, 20)], vec![]);
    context.store = Arc::new(store);
    for (rule, value) in [("stuck_jobs", 6.0), ("failure_rate", 100.0)] {
        let reading = read(rule, &context).await;
        assert_eq!((reading.value, reading.jobs), (Some(value), vec![]), "{rule}");
    }
}
