//! The engine: evaluates rules, keeps their state in the store, and sends notifications.
//!
//! | file | contents |
//! |---|---|
//! | `run` | the tasks of a process |
//! | `tenure` | the role of the leader |
//! | `leader` | the loop of the leader |
//! | `copy` | its copy of the stored state |
//! | `evaluate` | evaluates all rules side by side |
//! | `step` | steps the states and decides about notifications |
//! | `delivery`, `send` | send notifications with repeats; sends one once |
//! | `outage` | leaves the alert of an outage to the next leader |
//! | `refresh` | sends alerts again to receivers that want it |
//! | `sampler` | values that this process reports of itself |
//! | `message` | the texts of alerts and what operators see of a rule |

mod copy;
mod delivery;
mod evaluate;
mod leader;
mod message;
mod outage;
mod refresh;
mod run;
mod sampler;
mod send;
mod step;
mod tenure;

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{JobName, Store, StoreError, store::WorkerId};
use futures_util::future;
use tokio::time::timeout;
use uuid::Uuid;

use self::{evaluate::Runs, outage::HandOver};
use super::{
    alert::{Alert, AlertStatus, AlertType, Severity},
    document::{ALERTS, AlertDocument, RuleState},
    plan::Plan,
    report::{AlertsReport, RuleReport, TestResult},
    sender::{Notification, Route, SendError},
    silence::{self, NewSilence, Silence, SilenceError},
    state::State,
    store_errors::CallCounts,
};
use crate::{
    health::{AlertVitals, ReadAlerts},
    stats_cache::StatsCache,
    store_call::within,
    sync::Mutex,
    telemetry::{AlertMeter, Measured},
    types::SharedControls,
};

/// Time limit of a test alert, for senders that do not end at their own time limit.
const TEST_LIMIT: Duration = Duration::from_secs(11);
/// Service name of alerts if the application sets none.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// The state of the alerts as this process read or wrote it last.
type Seen = Arc<Mutex<Option<Arc<AlertDocument>>>>;

/// The alerts of one set of endpoints.
pub(crate) struct Engine {
    plan: Plan,
    store: Arc<dyn Store>,
    stats: Arc<StatsCache>,
    controls: Arc<SharedControls>,
    declared: Arc<[JobName]>,
    counts: Arc<CallCounts>,
    lease: Duration,
    /// Id of this process.
    id: WorkerId,
    service: String,
    /// The same as text.
    instance: String,
    meter: Arc<AlertMeter>,
    runs: Runs,
    /// The alert of an outage that this process leaves to the next leader.
    outage: Mutex<Option<HandOver>>,
    seen: Seen,
}

/// What the engine uses.
pub(crate) struct EngineParts<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) stats: &'a Arc<StatsCache>,
    pub(crate) controls: &'a Arc<SharedControls>,
    pub(crate) id: WorkerId,
    pub(crate) lease: Duration,
    pub(crate) declared: Arc<[JobName]>,
    pub(crate) counts: Arc<CallCounts>,
}

impl Engine {
    pub(crate) fn new(plan: Plan, parts: EngineParts<'_>, measured: &Measured) -> Arc<Self> {
        let EngineParts { store, stats, controls, id, lease, declared, counts } = parts;
        let seen = Seen::default();
        let service = plan.service.clone().or_else(|| measured.telemetry.service_name());
        Arc::new(Self {
            meter: Arc::new(meter(&plan, &seen, measured)),
            instance: id.to_string(),
            runs: Runs::default(),
            outage: Mutex::default(),
            service: service.unwrap_or_else(|| UNKNOWN_SERVICE.to_owned()),
            store: store.clone(),
            stats: stats.clone(),
            controls: controls.clone(),
            plan,
            declared,
            counts,
            lease,
            id,
            seen,
        })
    }

    /// Returns the state of all rules and the silences, as any process sees them.
    pub(crate) async fn status(&self) -> Result<AlertsReport, StoreError> {
        let reads = async {
            let document = read(&self.store, &self.seen).await?;
            let now = silence::now(&*self.store).await?;
            Ok::<_, StoreError>((document, silence::active(&*self.store, now).await?))
        };
        let (document, silences) = within(reads).await?;
        let mut states = document.map(|document| document.rules.clone()).unwrap_or_default();
        let planned = self.plan.rules.iter().map(|rule| {
            let state = states.remove(&rule.name).unwrap_or_default();
            report(&rule.name, &RuleState { threshold: rule.limits.threshold, ..state })
        });
        let planned: Vec<_> = planned.collect();
        let others = states.into_iter().map(|(name, state)| report(&name, &state));
        Ok(AlertsReport { rules: planned.into_iter().chain(others).collect(), silences })
    }

    /// Stores a silence of a rule of this process.
    pub(crate) async fn silence(&self, new: NewSilence) -> Result<Silence, SilenceError> {
        let rules: Vec<&str> = self.plan.rules.iter().map(|rule| rule.name.as_str()).collect();
        within(silence::add(&*self.store, new, &rules)).await
    }

    /// Deletes a silence. Returns whether there was one.
    pub(crate) async fn unsilence(&self, id: Uuid) -> Result<bool, StoreError> {
        within(silence::delete(&*self.store, id)).await
    }

    /// The names of this process's senders.
    pub(crate) fn senders(&self) -> Vec<&str> {
        self.plan.routes.iter().map(|route| route.name.as_str()).collect()
    }

    /// Sends a test alert with each sender of this process, side by side. The alert is not stored.
    pub(crate) async fn test(&self) -> Vec<TestResult> {
        let alert = self.test_alert();
        let send = |route: &Route| {
            let notification = Arc::new(Notification { id: alert.id, alert: alert.clone() });
            test_once(route.clone(), notification)
        };
        future::join_all(self.plan.routes.iter().map(send)).await
    }

    /// Remembers the state that this process wrote, for metrics.
    fn saw(&self, document: &AlertDocument) {
        *self.seen.lock() = Some(Arc::new(document.clone()));
    }

    fn test_alert(&self) -> Alert {
        Alert {
            id: Uuid::new_v4(),
            rule: "test".to_owned(),
            alert_type: AlertType::System,
            severity: Severity::Low,
            status: AlertStatus::Firing,
            title: "Test alert".to_owned(),
            message: "An operator sent this alert to test the senders. Nothing is wrong.".to_owned(),
            details: serde_json::json!({ "value": 0, "threshold": 0, "unit": "", "jobs": [] }),
            starts_at: std::time::SystemTime::now().into(),
            ends_at: None,
            service: self.service.clone(),
            instance: self.instance.clone(),
        }
    }

    /// The age of the last evaluation that operators should know of, and what reads the state, for the health check.
    pub(crate) fn vitals(self: &Arc<Self>) -> (Duration, ReadAlerts) {
        let (store, seen) = (self.store.clone(), self.seen.clone());
        let read = move || -> future::BoxFuture<'static, _> {
            let (store, seen) = (store.clone(), seen.clone());
            Box::pin(
                async move { Ok(read(&store, &seen).await?.map(|document| vitals(&document)).unwrap_or_default()) },
            )
        };
        (self.plan.interval * 2 + self.lease, Box::new(read))
    }
}

async fn test_once(route: Route, notification: Arc<Notification>) -> TestResult {
    let blocked = |_| Err(SendError::temporary("the sender blocks its thread"));
    let sent = timeout(TEST_LIMIT, send::once(&route, notification)).await.unwrap_or_else(blocked);
    let error = sent.err().map(|error| error.to_string());
    TestResult { sender: route.name, ok: error.is_none(), error }
}

/// Reads the stored state; none if there is none yet.
async fn read(store: &Arc<dyn Store>, seen: &Seen) -> Result<Option<Arc<AlertDocument>>, StoreError> {
    let Some(document) = within(store.document(ALERTS)).await? else { return Ok(None) };
    let document = AlertDocument::decode(&document.bytes).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let document = Arc::new(document);
    *seen.lock() = Some(document.clone());
    Ok(Some(document))
}

fn vitals(document: &AlertDocument) -> AlertVitals {
    AlertVitals {
        leader: Some(document.leader.clone()),
        evaluated_at: document.evaluated_at,
        pending: document.outbox.len(),
        failures: document.failures.clone(),
    }
}

fn report(name: &str, state: &RuleState) -> RuleReport {
    RuleReport {
        rule: name.to_owned(),
        state: state.state.as_str(),
        since: state.state.since(),
        value: state.value,
        threshold: state.threshold,
        details: message::details(state),
    }
}

fn meter(plan: &Plan, seen: &Seen, measured: &Measured) -> AlertMeter {
    let rules: Vec<String> = plan.rules.iter().map(|rule| rule.name.clone()).collect();
    let states = seen.clone();
    let firing = move |observe: &mut dyn FnMut(&str, bool)| {
        let document = states.lock().clone();
        for rule in &rules {
            let state = document.as_ref().and_then(|document| document.rules.get(rule));
            observe(rule, state.is_some_and(|state| matches!(state.state, State::Firing { .. })));
        }
    };
    let evaluations = seen.clone();
    let last = move || Some(evaluations.lock().as_ref()?.evaluated_at?.as_micros() as f64 / 1e6);
    measured.alerts(plan.routes.iter().map(|route| route.sender.kind()), firing, last)
}

#[cfg(test)]
mod tests;
