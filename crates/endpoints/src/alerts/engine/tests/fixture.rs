//! Processes with alerts over one store in memory, and a receiver that counts.
//!
//! The store's clock follows the time of the runtime, which tests pause: hours pass at once, and every run is the same.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_endpoints_core::{
    Clock, JobName, MemoryStore, Store, Timestamp,
    store::{TypeCutoffs, WorkerId},
};
use async_endpoints_testkit::FlakyStore;
use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::super::{
    super::{
        AlertSender, AlertStatus, Alerts, BoxError, CountedStore, Notification, Plan, Reading, Rule, SendError,
        document::AlertDocument,
    },
    Engine, EngineParts,
};
use crate::{
    options::Options,
    stats_cache::StatsCache,
    sync::Mutex,
    telemetry::{Measured, Telemetry},
    types::SharedControls,
};

pub(super) const LEASE: Duration = Duration::from_secs(4);
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
pub(super) const REPEAT: Duration = Duration::from_secs(60 * 60);

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The clock of the runtime.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_772_366_400_000_000) + self.0.elapsed()
    }
}

pub(super) fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::with_clock(RuntimeClock(Instant::now())))
}

/// A value that a test sets and rules read.
#[derive(Clone, Default)]
pub(super) struct Level(Arc<Mutex<f64>>, Arc<AtomicU32>);

impl Level {
    pub(super) fn set(&self, value: f64) {
        *self.0.lock() = value;
    }

    pub(super) fn value(&self) -> f64 {
        *self.0.lock()
    }

    /// Number of evaluations.
    pub(super) fn evaluations(&self) -> u32 {
        self.1.load(Ordering::SeqCst)
    }

    /// A rule that fires above 10.
    pub(super) fn rule(&self) -> Rule {
        let level = self.clone();
        Rule::above(10.0, move || {
            level.1.fetch_add(1, Ordering::SeqCst);
            let value = *level.0.lock();
            async move { Ok::<_, BoxError>(Reading::new(value, "the level is high")) }
        })
    }
}

/// What a receiver does with one notification.
#[derive(Clone)]
pub(super) enum Answer {
    /// Receives it after this time.
    After(Duration),
    Temporary(Option<Duration>),
    Permanent,
    Panic,
    /// Never answers.
    Hang,
    /// Receives it and lets the test act before the answer.
    Then(Arc<dyn Fn() + Send + Sync>),
}

/// A receiver of notifications. Clones share what they received.
#[derive(Clone, Default)]
pub(super) struct Receiver {
    received: Arc<Mutex<Vec<Notification>>>,
    /// Answers to the next notifications. Later ones are received at once.
    script: Arc<Mutex<VecDeque<Answer>>>,
    refresh: Option<Duration>,
}

impl Receiver {
    pub(super) fn refreshed(interval: Duration) -> Self {
        Self { refresh: Some(interval), ..Self::default() }
    }

    pub(super) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().extend(answers);
    }

    pub(super) fn received(&self) -> Vec<Notification> {
        self.received.lock().clone()
    }

    /// Rule and status of everything received.
    pub(super) fn statuses(&self) -> Vec<AlertStatus> {
        self.received().iter().map(|received| received.alert.status).collect()
    }

    /// Rules and statuses of everything received, without repeats of a notification.
    pub(super) fn distinct(&self) -> Vec<(String, AlertStatus)> {
        let mut known = HashMap::new();
        let is_new = |received: &Notification| known.insert(received.id, ()).is_none();
        let received: Vec<Notification> = self.received().into_iter().filter(is_new).collect();
        received.into_iter().map(|received| (received.alert.rule, received.alert.status)).collect()
    }
}

#[async_trait]
impl AlertSender for Receiver {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let answer = self.script.lock().pop_front();
        match answer {
            Some(Answer::Temporary(retry_after)) => {
                return Err(SendError::Temporary { reason: "try again".to_owned(), retry_after });
            }
            Some(Answer::Permanent) => return Err(SendError::Permanent("unknown address".to_owned())),
            Some(Answer::Panic) => panic!("the sender panics on purpose"),
            Some(Answer::Hang) => std::future::pending().await,
            Some(Answer::After(time)) => sleep(time).await,
            Some(Answer::Then(act)) => act(),
            None => {}
        }
        self.received.lock().push(notification.clone());
        Ok(())
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.refresh
    }
}

/// Alerts with one rule and one receiver.
pub(super) fn alerts(rule: Rule, receiver: &Receiver) -> Alerts {
    no_rules(receiver).rule("level", rule)
}

pub(super) fn no_rules(receiver: &Receiver) -> Alerts {
    let alerts = Alerts {
        rules: Vec::new(),
        routes: Vec::new(),
        interval: INTERVAL,
        pending_for: Duration::ZERO,
        repeat: REPEAT,
        window: seconds(60),
        min_count: 20,
        service: None,
    };
    alerts.sender("receiver", receiver.clone())
}

/// A process whose engine runs. Dropping it kills it.
pub(super) struct Process {
    pub(super) engine: Arc<Engine>,
    /// Its connection to the store.
    pub(super) link: Arc<FlakyStore>,
    stop: CancellationToken,
    paused: Arc<AtomicBool>,
    task: AbortOnDropHandle<()>,
}

impl Process {
    pub(super) fn start(store: &Arc<MemoryStore>, alerts: Alerts) -> Self {
        let engine = engine(store, alerts);
        Self::run(engine)
    }

    pub(super) fn run((engine, link): (Arc<Engine>, Arc<FlakyStore>)) -> Self {
        let (stop, paused) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let (running, stopped) = (engine.clone(), stop.clone());
        let limit = {
            let stop = stop.clone();
            async move {
                stop.cancelled().await;
                sleep(seconds(30)).await;
            }
        };
        let run = async move { running.run(&stopped, limit).await };
        let task = tokio::spawn(Pausable { paused: paused.clone(), inner: Box::pin(run) });
        Self { engine, link, stop, paused, task: AbortOnDropHandle::new(task) }
    }

    /// Kills the process.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Stops the process in an orderly way.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the engine ends");
    }

    /// Stops the process's main task, as SIGSTOP does, or continues it.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }
}

/// Polls a future unless it is paused.
struct Pausable {
    paused: Arc<AtomicBool>,
    inner: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.paused.load(Ordering::SeqCst) {
            // Asks again soon, since nothing else wakes a paused task.
            let waker = context.waker().clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(10)).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}

/// An engine that does not run, and its connection to the store.
pub(super) fn engine(store: &Arc<MemoryStore>, alerts: Alerts) -> (Arc<Engine>, Arc<FlakyStore>) {
    with_link(FlakyStore::new(store.clone()), alerts)
}

/// An engine one in five of whose store calls fails, half of them after they were applied.
pub(super) fn flaky_engine(store: &Arc<MemoryStore>, alerts: Alerts, seed: u64) -> (Arc<Engine>, Arc<FlakyStore>) {
    with_link(FlakyStore::new(store.clone()).random(seed, 0.1, 0.1), alerts)
}

fn with_link(link: FlakyStore, alerts: Alerts) -> (Arc<Engine>, Arc<FlakyStore>) {
    let link = Arc::new(link);
    let measured = Measured::new(Telemetry::disabled(), "memory", &Options::default(), std::iter::empty());
    let measured = measured.expect("telemetry of its own");
    let (counted, counts): (Arc<dyn Store>, _) = CountedStore::around(link.clone());
    let undeclared = |name: &JobName| TypeCutoffs {
        name: name.clone(),
        slow_after: Duration::ZERO,
        overdue_after: Duration::ZERO,
        stuck_after: Duration::ZERO,
    };
    let controls = SharedControls::new(counted.clone());
    let stats = StatsCache::new(counted.clone(), controls.clone(), Vec::new(), undeclared);
    let parts = EngineParts {
        store: &counted,
        stats: &stats,
        controls: &controls,
        id: WorkerId(Uuid::new_v4()),
        lease: LEASE,
        declared: Vec::new().into(),
        counts,
    };
    let plan = Plan::new(alerts).unwrap_or_else(|invalid| panic!("{invalid:?}"));
    (Engine::new(plan, parts, &measured), link)
}

/// The stored state.
pub(super) async fn stored(store: &MemoryStore) -> AlertDocument {
    use async_endpoints_core::SharedState as _;
    let stored = store.document("alerts").await.expect("memory answers").expect("a stored state");
    AlertDocument::decode(&stored.bytes).expect("a usable state")
}
