//! Alerts over a SQLite file whose process restarts: what is at a threshold stays quiet, what is above it fires once, and
//! what ended resolves once.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_endpoints::{
    AsyncEndpoints, JobContext, JobError, JobType, SqliteStore,
    alerts::{
        AlertSender,
        AlertStatus::{self, Firing, Resolved},
        Alerts, BoxError, Notification, Reading, Rule, RuleReport, SendError,
    },
    async_trait,
};
use async_endpoints_testkit::ManualClock;
use support::{Process, ended, quick, until};
use uuid::Uuid;

const WORK: JobType<bool, ()> = JobType::new("Work");

async fn work(ctx: JobContext<bool>) -> Result<(), JobError> {
    if *ctx.request() { Ok(()) } else { Err(JobError::permanent("BROKEN", "It fails on purpose.")) }
}

/// Keeps notifications.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<Notification>>>);

#[async_trait]
impl AlertSender for Receiver {
    fn kind(&self) -> &'static str {
        "receiver"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        self.0.lock().unwrap().push(notification.clone());
        Ok(())
    }
}

impl Receiver {
    /// Rule, status and alert of everything received, sorted.
    fn received(&self) -> Vec<(String, AlertStatus, Uuid)> {
        let received = self.0.lock().unwrap();
        let facts = received.iter().map(|received| &received.alert);
        let mut facts: Vec<_> = facts.map(|alert| (alert.rule.clone(), alert.status, alert.id)).collect();
        facts.sort_by_key(|(rule, status, _)| (rule.clone(), *status == Resolved));
        facts
    }

    fn statuses(&self) -> Vec<(String, AlertStatus)> {
        self.received().into_iter().map(|(rule, status, _)| (rule, status)).collect()
    }
}

/// What survives a restart, and what the processes share with the test.
struct World {
    folder: PathBuf,
    clock: ManualClock,
    receiver: Receiver,
    evaluations: Arc<AtomicU32>,
}

impl World {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("async-endpoints-alert-restart-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, clock: ManualClock::new(), receiver: Receiver::default(), evaluations: Arc::default() }
    }

    /// Starts a process on the closed file.
    async fn start(&self) -> Process {
        let store = SqliteStore::open_with_clock(self.folder.join("jobs.db"), self.clock.clone()).await.unwrap();
        let evaluations = self.evaluations.clone();
        let probe = Rule::above(1.0, move || {
            evaluations.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, BoxError>(Reading::new(0.0, "")) }
        });
        let alerts = Alerts::new()
            .interval(Duration::from_millis(100))
            .rule("burn_rate", Rule::burn_rate(WORK, 90.0).unwrap())
            .rule("probe", probe)
            .sender("receiver", self.receiver.clone());
        let builder = AsyncEndpoints::builder(store).options(quick()).handler(WORK, work).alerts(alerts);
        Process::start(builder.build().unwrap(), 2)
    }

    /// Stops the process, which closes the file, and starts another one.
    async fn restart(&self, process: Process) -> Process {
        drop(process);
        // A closed file has no log beside it. The tasks of the process drop the store shortly after its end.
        until(async || std::fs::read_dir(&self.folder).unwrap().count() == 1).await;
        self.start().await
    }

    /// Waits for an evaluation that begins after this call, and for its effects.
    async fn evaluated(&self) {
        let before = self.evaluations.load(Ordering::SeqCst);
        // The third one begins after the effects of the second one.
        until(async || self.evaluations.load(Ordering::SeqCst) >= before + 3).await;
    }

    /// The states of the rules that the test is about, with their values.
    async fn rules(&self, process: &Process) -> [(&'static str, f64); 2] {
        let rules = process.endpoints.alert_status().await.unwrap().rules;
        let state = |rule: &RuleReport| (rule.state, rule.value.unwrap());
        ["failure_rate", "burn_rate"].map(|name| rules.iter().find(|rule| rule.rule == name).map(state).unwrap())
    }
}

/// Runs that many jobs.
async fn run(process: &Process, jobs: u32, succeeds: bool) {
    for _ in 0..jobs {
        let id = process.endpoints.submit(WORK, succeeds).await.unwrap().job.id;
        ended(&process.endpoints, id).await;
    }
}

#[tokio::test]
async fn restarts_repeat_and_forget_no_notification() {
    let world = World::new();
    let process = world.start().await;
    run(&process, 18, true).await;
    run(&process, 2, false).await;
    world.evaluated().await;
    let at_threshold = [("inactive", 10.0), ("inactive", 0.166_666_667)];
    assert_eq!(world.rules(&process).await, at_threshold);

    let process = world.restart(process).await;
    world.evaluated().await;
    assert_eq!(world.rules(&process).await, at_threshold);
    assert_eq!(world.receiver.statuses(), []);
    // 37 of 55 jobs failed, which is 6.73 times the budget.
    run(&process, 35, false).await;
    world.evaluated().await;
    let above = [("firing", 100.0 * 37.0 / 55.0), ("firing", 1.121_212_121)];
    assert_eq!(world.rules(&process).await, above);

    let process = world.restart(process).await;
    world.evaluated().await;
    assert_eq!(world.rules(&process).await, above);
    let firing = [("burn_rate".to_owned(), Firing), ("failure_rate".to_owned(), Firing)];
    assert_eq!(world.receiver.statuses(), firing);
    world.clock.advance(Duration::from_secs(61 * 60));
    until(async || world.receiver.received().len() == 4).await;

    let process = world.restart(process).await;
    world.evaluated().await;
    assert_eq!(world.rules(&process).await, [("resolved", 0.0), ("resolved", 0.0)]);
    let received = world.receiver.received();
    let [burn_rate, failure_rate] = firing.map(|(rule, _)| rule);
    let both = |rule: &str| [(rule.to_owned(), Firing), (rule.to_owned(), Resolved)];
    assert_eq!(world.receiver.statuses(), [both(&burn_rate), both(&failure_rate)].concat());
    assert!(received[0].2 == received[1].2 && received[2].2 == received[3].2, "a resolve has the id of its alert");
    drop(process);
    std::fs::remove_dir_all(&world.folder).unwrap();
}
