//! The queries about slow and failed jobs.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::time::Duration;

use async_endpoints::{
    AsyncEndpoints, FailureRate, Failures, JobId, MemoryStore, Options, SlowJobs, Timestamp,
    core::{
        job::AttemptOutcome,
        store::{Attempt, Outcome},
    },
};
use async_endpoints_testkit::{
    Fixture, ManualClock, Rig,
    jobs::{completed, error, job},
};

const SLOW_AFTER: u32 = 30;

/// A store, its time, and endpoints that declare no job type.
struct World {
    rig: Rig,
    clock: ManualClock,
    endpoints: AsyncEndpoints,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        Self::over(&Fixture::manual(MemoryStore::with_clock(clock.clone()), clock.clone()), clock)
    }

    fn over(fixture: &Fixture, clock: ManualClock) -> Self {
        let rig = Rig::new(fixture);
        let endpoints = AsyncEndpoints::builder(rig.store.clone()).options(Options::default()).build().unwrap();
        Self { rig, clock, endpoints }
    }

    async fn now(&self) -> Timestamp {
        self.rig.stats(&Default::default()).await.now
    }

    /// Settles an attempt after it ran for so many seconds, slow or not, as its worker does.
    async fn settle(&self, attempt: &Attempt, seconds: u32, outcome: Outcome) {
        self.rig.advance(seconds).await;
        let mut settlement = self.rig.settlement(attempt.lease, outcome);
        settlement.slow = seconds > SLOW_AFTER;
        self.rig.settle_one(settlement).await;
    }

    /// Runs a job for so many seconds. It stays readable for a day.
    async fn run(&self, name: &str, seconds: u32, outcome: Outcome) -> JobId {
        self.rig.put(&job(name, Duration::from_secs(24 * 60 * 60))).await;
        let attempt = self.rig.take(name).await;
        self.settle(&attempt, seconds, outcome).await;
        attempt.lease.job
    }

    async fn slow(&self, since: Timestamp, limit: usize) -> SlowJobs {
        self.endpoints.slow_jobs(since, limit).await.unwrap()
    }
}

fn ids(slow: &SlowJobs) -> Vec<JobId> {
    slow.jobs.iter().map(|slow| slow.job.id).collect()
}

fn failed() -> Outcome {
    Outcome::Failed { error: error("BROKEN") }
}

fn canceled() -> Outcome {
    Outcome::Canceled { error: error("CANCELED") }
}

#[tokio::test]
async fn running_attempt_is_slow_after_its_limit() {
    let world = World::new();
    let since = world.now().await;
    let attempt = world.rig.start("A").await;
    world.rig.advance(SLOW_AFTER).await;
    let slow = world.slow(since, 10).await;
    assert_eq!((slow.running, slow.ended, slow.jobs.len(), slow.complete), (0, 0, 0, true));
    world.clock.advance(Duration::from_micros(1));
    let slow = world.slow(since, 10).await;
    assert_eq!((slow.running, slow.ended, ids(&slow), slow.complete), (1, 0, vec![attempt.lease.job], true));
    let ahead = world.slow(slow.at + Duration::from_secs(60), 10).await;
    assert_eq!((ahead.running, ahead.jobs.len()), (1, 1), "a time ahead of the store's clock");
    let job = &slow.jobs[0];
    assert_eq!((job.attempt.attempt, job.attempt.ended_at), (1, None));
    assert_eq!((job.run_time, slow.at), (Duration::from_micros(30_000_001), world.now().await));
}

#[tokio::test]
async fn slow_jobs_are_listed_in_order() {
    let world = World::new();
    let since = world.now().await;
    let first = world.run("A", 31, completed("1")).await;
    world.run("A", 30, completed("1")).await;
    let second = world.run("B", 40, failed()).await;
    let third = world.run("A", 31, canceled()).await;
    let running = world.rig.start("B").await.lease.job;
    world.rig.advance(1).await;
    let later = world.rig.start("A").await.lease.job;
    world.rig.advance(31).await;
    let slow = world.slow(since, 10).await;
    assert_eq!((slow.running, slow.ended, slow.complete), (2, 3, true));
    assert_eq!(ids(&slow), [running, later, third, second, first]);
    let seconds: Vec<u64> = slow.jobs.iter().map(|slow| slow.run_time.as_secs()).collect();
    assert_eq!(seconds, [32, 31, 31, 40, 31]);
    let some = world.slow(since, 2).await;
    assert_eq!((ids(&some), some.complete), (vec![running, later], false));
    assert_eq!((some.running, some.ended), (2, 3), "the limit is one of the list");
}

#[tokio::test]
async fn list_is_exact_and_count_begins_with_the_minute() {
    let world = World::new();
    world.run("A", 31, completed("1")).await;
    let between = world.now().await + Duration::from_micros(1);
    world.rig.advance(1).await;
    let last = world.run("A", 31, completed("1")).await;
    let slow = world.slow(between, 10).await;
    assert_eq!((slow.ended, ids(&slow)), (2, vec![last]), "the first one ended in the same minute");
    let third = world.run("A", 31, completed("1")).await;
    let end = world.now().await;
    let slow = world.slow(end, 10).await;
    assert_eq!((slow.ended, ids(&slow)), (2, vec![third]), "two of three ended in this minute");
    let slow = world.slow(end + Duration::from_micros(1), 10).await;
    assert_eq!((slow.ended, ids(&slow), slow.complete), (2, vec![], true));
}

#[tokio::test]
async fn slow_attempt_of_a_retried_job_is_listed_in_each_state() {
    let world = World::new();
    let since = world.now().await;
    let attempt = world.rig.start("A").await;
    let retry = Outcome::Retry { delay: Duration::from_secs(10), error: error("LATE") };
    world.settle(&attempt, 31, retry).await;
    let is_listed = async |state: &str| {
        let slow = world.slow(since, 10).await;
        assert_eq!((slow.running, slow.ended, ids(&slow)), (0, 1, vec![attempt.lease.job]), "{state}");
        let attempt = &slow.jobs[0].attempt;
        assert_eq!((attempt.attempt, attempt.outcome), (1, Some(AttemptOutcome::Retried)), "{state}");
    };
    is_listed("Scheduled").await;
    world.rig.advance(10).await;
    let second = world.rig.take("A").await;
    is_listed("InProgress").await;
    world.rig.release(second.lease).await;
    is_listed("Queued").await;
    let third = world.rig.take("A").await;
    world.settle(&third, 1, completed("1")).await;
    is_listed("Completed").await;
}

#[tokio::test]
async fn lost_attempt_is_not_slow() {
    let world = World::new();
    world.rig.warm().await;
    let since = world.now().await;
    // A slow attempt of the type, so that its jobs are searched.
    let ended = world.run("A", 31, completed("1")).await;
    let lost = world.rig.queue("A").await;
    world.rig.take_for("A", 60).await;
    world.rig.advance(61).await;
    assert_eq!(ids(&world.slow(since, 10).await), [lost, ended]);
    world.rig.sweep().await;
    let slow = world.slow(since, 10).await;
    assert_eq!((slow.running, slow.ended, ids(&slow)), (0, 1, vec![ended]));
}

#[tokio::test]
async fn slow_jobs_of_the_last_six_hours_are_kept() {
    let world = World::new();
    let old = world.run("A", 31, completed("1")).await;
    let hours = Duration::from_secs(359 * 60);
    world.clock.advance(hours);
    let slow = world.slow(Timestamp::default(), 10).await;
    assert_eq!((slow.ended, ids(&slow)), (1, vec![old]));
    let new = world.run("A", 31, completed("1")).await;
    let slow = world.slow(Timestamp::default(), 10).await;
    assert_eq!((slow.ended, ids(&slow), slow.complete), (1, vec![new], true), "the first one is older");
}

#[tokio::test]
async fn long_search_is_incomplete() {
    let world = World::new();
    let since = world.now().await;
    world.run("A", 31, completed("1")).await;
    for _ in 0..1_000 {
        world.run("A", 0, completed("1")).await;
    }
    let slow = world.slow(since, 10).await;
    assert_eq!((slow.ended, slow.jobs.len(), slow.complete), (1, 0, false), "1 000 jobs ended later");
    let slow = world.slow(world.now().await + Duration::from_micros(1), 10).await;
    assert!(slow.complete, "no job ended so late");
}

#[tokio::test]
async fn failure_rate_counts_final_outcomes_of_its_window() {
    let world = World::new();
    let hour = Duration::from_secs(60 * 60);
    assert_eq!(world.endpoints.failure_rate(hour).await.unwrap().total, FailureRate::default());
    let retried = world.rig.start("A").await;
    world.rig.again(retried.lease, 1).await;
    for outcome in [completed("1"), completed("1"), failed(), canceled()] {
        world.run("A", 0, outcome).await;
    }
    world.run("B", 0, completed("1")).await;
    for (later, total) in [(0, (3, 1)), (60 * 60, (3, 1)), (60, (0, 0))] {
        world.rig.advance(later).await;
        let rates = world.endpoints.failure_rate(hour).await.unwrap();
        assert_eq!((rates.total.completed, rates.total.failed), total, "{later} s later");
        assert_eq!(rates.job_types.contains_key("A"), total != (0, 0), "{later} s later");
    }
    let rates = world.endpoints.failure_rate(hour * 24).await.unwrap();
    let rate = rates.job_types["A"];
    assert_eq!((rate.completed, rate.failed, rate.ended()), (2, 1, 3));
    assert!((rate.percent() - 100.0 / 3.0).abs() < 1e-9 && (rates.total.percent() - 25.0).abs() < 1e-9);
    assert_eq!(rates.window, hour * 6, "stores keep six hours");
}

#[tokio::test]
async fn failures_of_a_window_are_grouped() {
    let world = World::new();
    let minute = Duration::from_secs(60);
    let failures = async |window| world.endpoints.failures(window).await.unwrap();
    assert!(failures(minute).await.failures.is_empty());
    world.run("A", 0, failed()).await;
    let first_at = world.now().await;
    world.rig.advance(10).await;
    let last = world.run("A", 0, failed()).await;
    world.run("A", 0, Outcome::Failed { error: error("OTHER") }).await;
    world.run("B", 0, failed()).await;
    world.run("B", 0, completed("1")).await;
    let all = failures(minute).await;
    let groups = |all: &Failures| -> Vec<_> {
        all.failures.iter().map(|group| (group.name.to_string(), group.code.clone(), group.count)).collect()
    };
    let group = |name: &str, code: &str, count| (name.to_owned(), code.to_owned(), count);
    let expected = [group("A", "BROKEN", 2), group("A", "OTHER", 1), group("B", "BROKEN", 1)];
    assert_eq!((groups(&all), all.scanned, all.complete), (expected.to_vec(), 4, true));
    let most = &all.failures[0];
    assert_eq!((most.sample_id, most.first_at, most.last_at), (last, first_at, first_at + Duration::from_secs(10)));
    let recent = failures(Duration::from_secs(9)).await;
    assert_eq!((recent.failures[0].count, recent.scanned, recent.complete), (1, 4, true), "the first one is too old");
    world.rig.advance(61).await;
    let none = failures(minute).await;
    assert_eq!(
        (none.failures.len(), none.scanned, none.complete),
        (0, 1, true),
        "one job shows that the rest is older"
    );
}

#[tokio::test]
async fn long_list_of_failures_is_incomplete() {
    let world = World::new();
    for _ in 0..5_001 {
        world.run("A", 0, failed()).await;
    }
    let found = world.endpoints.failures(Duration::from_secs(60)).await.unwrap();
    assert_eq!((found.failures[0].count, found.scanned, found.complete), (5_000, 5_000, false));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn answers_survive_a_restart() {
    use async_endpoints::sqlite::{Options, Synchronous};
    let folder = std::env::temp_dir().join(format!("async-endpoints-queries-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let clock = ManualClock::new();
    let open = async || {
        // The file survives a restart of the process. It need not survive a power cut.
        let options = Options::new().synchronous(Synchronous::Off);
        let store = options.open_with_clock(folder.join("jobs.db"), clock.clone()).await.unwrap();
        World::over(&Fixture::manual(store, clock.clone()), clock.clone())
    };
    let answers = async |world: &World, since| {
        let hour = Duration::from_secs(60 * 60);
        (world.slow(since, 10).await, world.endpoints.failure_rate(hour).await.unwrap())
    };
    let world = open().await;
    let since = world.now().await;
    let first = world.run("A", 31, completed("1")).await;
    let second = world.run("A", 31, failed()).await;
    let running = world.rig.start("B").await.lease.job;
    world.rig.advance(31).await;
    let before = answers(&world, since).await;
    assert_eq!((before.0.running, before.0.ended, ids(&before.0)), (1, 2, vec![running, second, first]));
    assert_eq!((before.1.total.completed, before.1.total.failed), (1, 1));
    drop(world);
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(files.collect::<Vec<_>>(), ["jobs.db"], "the file is closed");
    assert_eq!(answers(&open().await, since).await, before);
    std::fs::remove_dir_all(folder).unwrap();
}
