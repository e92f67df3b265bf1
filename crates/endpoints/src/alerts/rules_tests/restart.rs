//! Each rule on both sides of its default threshold, over a SQLite file that is closed and opened again before the rule
//! reads it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobName, JobStore as _, Store,
    store::{Attempt, Heartbeat, Outcome, TypeCapacity, WorkerInfo},
};
use async_endpoints_sqlite::{Options as SqliteOptions, Synchronous};
use async_endpoints_testkit::{
    Fixture, ManualClock, Rig,
    jobs::{completed, error},
};
use serde_json::Value;

use super::{MIN_COUNT, input, name, rule};
use crate::{
    JobType, Options,
    alerts::{
        Reading, Rule, RuleContext,
        document::{INSTANCES, read, update},
        instances::{InstanceValue, MEMORY, STORE_ERRORS},
        state::Input::{self, Between, Breach, Clear},
    },
    job_type::Rules,
    stats_cache::StatsCache,
    types::SharedControls,
};

const MICRO: Duration = Duration::from_micros(1);

/// A new folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("async-endpoints-alerts-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        Self(folder)
    }

    async fn open(&self, clock: &ManualClock) -> Rig {
        // The file survives a restart of the process. It need not survive a power cut.
        let options = SqliteOptions::new().synchronous(Synchronous::Off);
        let store = options.open_with_clock(self.0.join("jobs.db"), clock.clone()).await.expect("the file opens");
        Rig::new(&Fixture::manual(store, clock.clone()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A SQLite file and its time.
struct World {
    rig: Rig,
    clock: ManualClock,
    folder: Folder,
}

impl World {
    async fn new() -> Self {
        let (folder, clock) = (Folder::new(), ManualClock::new());
        Self { rig: folder.open(&clock).await, clock, folder }
    }

    /// Closes the file and opens it again, as a restart does.
    async fn restarted(self) -> Self {
        let Self { rig, clock, folder } = self;
        drop(rig);
        let files = std::fs::read_dir(&folder.0).expect("the folder").map(|file| file.expect("a file").file_name());
        assert_eq!(files.collect::<Vec<_>>(), ["jobs.db"], "the file is closed");
        Self { rig: folder.open(&clock).await, clock, folder }
    }

    fn seconds(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn microsecond(&self) {
        self.clock.advance(MICRO);
    }

    async fn queue(&self, jobs: u32) {
        for _ in 0..jobs {
            self.rig.queue("A").await;
        }
    }

    /// Starts an attempt of each of that many new jobs, with leases of so many seconds.
    async fn start(&self, jobs: u32, lease: u32) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for _ in 0..jobs {
            self.rig.queue("A").await;
            attempts.push(self.rig.take_for("A", lease).await);
        }
        attempts
    }

    /// Ends that many jobs.
    async fn end(&self, completed: u32, failed: u32) {
        for attempt in self.start(completed, 3_600).await {
            self.rig.complete(attempt.lease).await;
        }
        for attempt in self.start(failed, 3_600).await {
            self.rig.fail(attempt.lease).await;
        }
    }

    /// Ends a job whose attempt was slow or not.
    async fn end_one(&self, slow: bool, outcome: Outcome) {
        let attempt = self.start(1, 3_600).await.remove(0);
        let mut settlement = self.rig.settlement(attempt.lease, outcome);
        settlement.slow = slow;
        self.rig.settle_one(settlement).await;
    }

    /// Stores a value as another process does.
    async fn report(&self, rule: &str, value: f64, count: Option<u64>) {
        let at = self.rig.stats(&Default::default()).await.now;
        let value =
            InstanceValue { rule: rule.to_owned(), instance: "other".to_owned(), value, count, outage: None, at };
        let written = update(&*self.rig.store, INSTANCES, |values: &mut Vec<InstanceValue>| {
            values.push(value.clone());
            Some(())
        });
        written.await.expect("the store answers");
    }

    /// Reads a rule as the evaluating process does, with the default settings.
    async fn read(&self, rule: &Rule, memory: Value) -> Reading {
        let (store, options) = (self.rig.store.clone() as Arc<dyn Store>, Options::default());
        let cutoffs = |name: &JobName| Rules::default().resolve(&Options::default()).cutoffs(name, &options);
        let instances: Vec<InstanceValue> = read(&*store, INSTANCES).await.expect("the store answers");
        let controls = SharedControls::new(store.clone());
        let undeclared = |_: &_| unreachable!("all types are declared");
        let cache = StatsCache::new(store.clone(), controls, vec![cutoffs(&name())], undeclared);
        let (stats, cutoffs) = cache.current(Some(0)).await.expect("the store answers");
        let context = RuleContext {
            store,
            stats: Arc::new(stats),
            cutoffs: cutoffs.into(),
            controls: Arc::default(),
            declared: [name()].into(),
            instances: instances.into(),
            window: Duration::from_secs(3_600),
            min_count: rule.settings.min_count.unwrap_or(MIN_COUNT),
            muted_at: None,
            memory,
        };
        rule.rule.evaluate(&context).await.expect("a reading")
    }
}

/// Asserts what a rule reads after `act` and a restart, and that it read the same before the restart.
async fn assert_reads(rule: &Rule, what: &str, value: f64, expected: Input, act: impl AsyncFnOnce(&World)) {
    let world = World::new().await;
    act(&world).await;
    let before = world.read(rule, Value::Null).await;
    let world = world.restarted().await;
    let reading = world.read(rule, Value::Null).await;
    assert_eq!(reading, before, "{what}");
    assert_eq!((reading.value, input(rule, &reading)), (Some(value), expected), "{what}");
}

#[tokio::test]
async fn slow_jobs() {
    let rule = rule("slow_jobs");
    assert_reads(&rule, "running for 30 s", 0.0, Clear, async |world| {
        world.start(1, 3_600).await;
        world.seconds(30);
    })
    .await;
    assert_reads(&rule, "running for longer", 1.0, Breach, async |world| {
        world.start(1, 3_600).await;
        world.seconds(30);
        world.microsecond();
    })
    .await;
    assert_reads(&rule, "ended", 0.0, Clear, async |world| world.end_one(false, completed("1")).await).await;
    let retried = Outcome::Retry { delay: Duration::from_secs(60), error: error("LATE") };
    assert_reads(&rule, "ended slow, then retried", 1.0, Breach, async |world| world.end_one(true, retried).await)
        .await;
}

#[tokio::test]
async fn slow_job_counts_once_over_restarts() {
    let (rule, mut world, mut memory) = (rule("slow_jobs"), World::new().await, Value::Null);
    for (slow, value) in [(2, 2.0), (0, 0.0), (1, 1.0), (0, 0.0)] {
        for _ in 0..slow {
            world.end_one(true, completed("1")).await;
        }
        world = world.restarted().await;
        let reading = world.read(&rule, memory).await;
        assert_eq!(reading.value, Some(value));
        memory = reading.memory;
        world.seconds(20);
    }
}

#[tokio::test]
async fn failure_rate() {
    let rule = rule("failure_rate");
    for (what, completed, failed, later, value, expected) in [
        ("10 %", 18, 2, 0, 10.0, Between),
        ("more than 10 %", 17, 3, 0, 15.0, Breach),
        ("19 jobs", 0, 19, 0, 100.0, Clear),
        ("20 jobs", 0, 20, 0, 100.0, Breach),
        ("5 %", 19, 1, 0, 5.0, Between),
        ("less than 5 %", 20, 1, 0, 100.0 / 21.0, Clear),
        ("an hour ago", 0, 20, 60, 100.0, Breach),
        ("more than an hour ago", 0, 20, 61, 0.0, Clear),
    ] {
        assert_reads(&rule, what, value, expected, async |world| {
            world.end(completed, failed).await;
            world.seconds(later * 60);
        })
        .await;
    }
}

#[tokio::test]
async fn stuck_jobs() {
    let rule = rule("stuck_jobs");
    let ten_minutes = 600;
    for (what, jobs, seconds, value, expected) in [
        ("five without a worker", 5, ten_minutes + 1, 5.0, Clear),
        ("six without a worker", 6, ten_minutes + 1, 6.0, Breach),
        ("for ten minutes", 6, ten_minutes, 0.0, Clear),
    ] {
        assert_reads(&rule, what, value, expected, async |world| {
            world.queue(jobs).await;
            world.seconds(seconds);
        })
        .await;
    }
    // The timeout of 30 minutes and the grace in which a handler is stopped.
    let overdue = 1_800 + 7;
    for (what, jobs, lease, seconds, value, expected) in [
        ("at the timeout", 6, 3_600, overdue, 0.0, Clear),
        ("five past it", 5, 3_600, overdue + 1, 5.0, Clear),
        ("six past it", 6, 3_600, overdue + 1, 6.0, Breach),
        ("expired for ten minutes", 6, 8, 8 + ten_minutes, 0.0, Clear),
        ("five not recovered", 5, 8, 8 + ten_minutes + 1, 5.0, Clear),
        ("six not recovered", 6, 8, 8 + ten_minutes + 1, 6.0, Breach),
    ] {
        assert_reads(&rule, what, value, expected, async |world| {
            world.start(jobs, lease).await;
            world.seconds(seconds);
        })
        .await;
    }
}

#[tokio::test]
async fn queue_wait() {
    // A percentile is within 5 % of the true one.
    for (what, wait, later, value, expected) in [
        ("57 s", 57, 0, 57.0, Clear),
        ("63 s", 63, 0, 63.0, Breach),
        ("within 5 minutes", 63, 300, 63.0, Breach),
        ("earlier", 63, 360, 0.0, Clear),
    ] {
        let world = World::new().await;
        world.queue(1).await;
        world.seconds(wait);
        world.rig.take("A").await;
        world.clock.advance(Duration::from_secs(later));
        let reading = world.restarted().await.read(&rule("queue_wait"), Value::Null).await;
        let read = reading.value.expect("a value");
        assert!((read - value).abs() <= 0.05 * value, "{what}: {read}");
        assert_eq!(input(&rule("queue_wait"), &reading), expected, "{what}");
    }
}

#[tokio::test]
async fn waiting_jobs() {
    for (of, seconds, at, above) in [("oldest_queued", 300, 300.0, 300.000_001), ("no_workers", 60, 0.0, 1.0)] {
        let rule = rule(of);
        assert_reads(&rule, of, at, Clear, async |world| {
            world.queue(1).await;
            world.seconds(seconds);
        })
        .await;
        assert_reads(&rule, of, above, Breach, async |world| {
            world.queue(1).await;
            world.seconds(seconds);
            world.microsecond();
        })
        .await;
    }
    assert_reads(&rule("no_workers"), "a live worker", 0.0, Clear, async |world| {
        world.queue(1).await;
        world.seconds(300);
        let types = vec![TypeCapacity { name: name(), running: 0, limit: 1 }];
        let heartbeat = world.rig.heartbeat();
        let heartbeat = Heartbeat { worker: WorkerInfo { types, ..heartbeat.worker }, ttl: heartbeat.ttl };
        world.rig.store.renew(&heartbeat, &[], heartbeat.ttl).await.expect("the store answers");
    })
    .await;
}

#[tokio::test]
async fn values_of_processes() {
    for (of, value, count, expected) in [
        (MEMORY, 80.0, None, Clear),
        (MEMORY, 80.1, None, Breach),
        (STORE_ERRORS, 5.0, Some(10), Clear),
        (STORE_ERRORS, 5.1, Some(9), Clear),
        (STORE_ERRORS, 5.1, Some(10), Breach),
    ] {
        let act = async |world: &World| world.report(of, value, count).await;
        assert_reads(&rule(of), of, value, expected, act).await;
    }
}

#[tokio::test]
async fn burn_rate() {
    let rule = |objective| Rule::burn_rate(JobType::<(), ()>::new("A"), objective).expect("a valid objective");
    // The limit of an hour and 5 minutes: 57.6 % of the jobs of 96 %. The earlier jobs keep the six hours below theirs.
    for (failed, value, expected) in [(72, 1.0, Clear), (73, 1.013_888_889, Breach)] {
        assert_reads(&rule(96.0), "an hour", value, expected, async |world| {
            world.end(200, 0).await;
            world.seconds(2 * 3_600);
            world.end(125 - failed, failed).await;
        })
        .await;
    }
    // The limit of six hours and 30 minutes: 60 % of the jobs of 90 %.
    for (failed, later, value, expected) in
        [(12, 0, 1.0, Clear), (13, 0, 1.083_333_333, Breach), (13, 30, 1.083_333_333, Breach), (13, 31, 0.0, Clear)]
    {
        assert_reads(&rule(90.0), "six hours", value, expected, async |world| {
            world.end(20 - failed, failed).await;
            world.seconds(later * 60);
        })
        .await;
    }
    assert_reads(&rule(96.0), "few jobs", 1.736_111_111, Clear, async |world| world.end(0, 19).await).await;
}
