//! Evaluates all rules side by side.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_endpoints_core::{StoreError, Timestamp};
use futures_util::future;
use serde_json::Value;
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{
        document::{self, INSTANCES, Outgoing},
        instances::InstanceValue,
        plan::PlannedRule,
        rule::{Reading, RuleContext},
        silence::{self, Silence},
    },
    Engine, sampler,
};
use crate::{panics, sync::Mutex};

/// Time limit of a rule.
const LIMIT: Duration = Duration::from_secs(10);

/// The last run of each rule: a rule that blocks its thread is not started again beside it.
pub(super) struct Runs {
    limit: Duration,
    last: Mutex<HashMap<String, AbortHandle>>,
}

impl Default for Runs {
    fn default() -> Self {
        Self { limit: LIMIT, last: Mutex::default() }
    }
}

/// What all rules read.
pub(super) struct Evaluation {
    /// When the statistics were read, by the store's clock.
    pub(super) now: Timestamp,
    /// In the order of the plan's rules.
    pub(super) outcomes: Vec<Outcome>,
    /// Alerts that other leaders sent during an outage.
    pub(super) outages: Vec<Outgoing>,
    /// Read last, so that a silence counts for every notification after it.
    pub(super) silences: Vec<Silence>,
}

/// What one rule read.
#[derive(Debug)]
pub(super) enum Outcome {
    Read(Reading),
    /// An outage of the store mutes the rule.
    Muted,
    /// The rule failed, with the reason.
    Failed(String),
}

impl Engine {
    /// Evaluates all rules, except those that an outage mutes. `memories` has what the rules stored for this evaluation, and
    /// `muted_at` the time of the last mute.
    pub(super) async fn evaluate(
        self: Arc<Self>,
        mut memories: BTreeMap<String, Value>,
        muted_at: Option<Timestamp>,
        mute: bool,
    ) -> Result<Evaluation, StoreError> {
        let began = Instant::now();
        let (stats, cutoffs) = self.stats.current(Some(0)).await?;
        let controls = self.controls.soon().await;
        let (now, stats, cutoffs) = (stats.now, Arc::new(stats), Arc::from(cutoffs));
        let instances: Arc<[InstanceValue]> = self.instance_values(now).await?.into();
        let context = |rule: &PlannedRule| RuleContext {
            store: self.store.clone(),
            stats: Arc::clone(&stats),
            controls: Arc::clone(&controls),
            cutoffs: Arc::clone(&cutoffs),
            declared: self.declared.clone(),
            instances: instances.clone(),
            window: rule.window,
            min_count: rule.limits.min_count,
            muted_at,
            memory: memories.remove(&rule.name).unwrap_or_default(),
        };
        let contexts: Vec<RuleContext> = self.plan.rules.iter().map(context).collect();
        let read = |(rule, context)| self.runs.read(rule, context, mute);
        let outcomes = future::join_all(self.plan.rules.iter().zip(contexts).map(read)).await;
        let outages = instances.iter().filter_map(|value| value.outage.clone()).collect();
        let silences = silence::active(&*self.store, now).await?;
        self.meter.evaluated(began.elapsed());
        Ok(Evaluation { now, outcomes, outages, silences })
    }

    /// The reported values of other processes that are not outdated, and those of this process at this moment.
    async fn instance_values(&self, now: Timestamp) -> Result<Vec<InstanceValue>, StoreError> {
        let mut values: Vec<InstanceValue> = document::read(&*self.store, INSTANCES).await?;
        let (id, kept) = (self.id.to_string(), sampler::kept(self.plan.interval));
        values.retain(|value| value.instance != id && now.since(value.at) < kept);
        values.extend(self.own_values(now));
        Ok(values)
    }
}

impl Runs {
    /// Evaluates a rule in a task of its own.
    async fn read(&self, rule: &PlannedRule, context: RuleContext, mute: bool) -> Outcome {
        if mute && rule.settings.follows_store {
            return Outcome::Muted;
        }
        if self.last.lock().get(&rule.name).is_some_and(|run| !run.is_finished()) {
            return Outcome::Failed("the evaluation before still runs".to_owned());
        }
        let evaluated = rule.rule.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move { evaluated.evaluate(&context).await }));
        self.last.lock().insert(rule.name.clone(), task.abort_handle());
        match timeout(self.limit, &mut task).await {
            Ok(Ok(Ok(reading))) if reading.value.is_some_and(|value| !value.is_finite()) => {
                Outcome::Failed("the value is not a finite number".to_owned())
            }
            Ok(Ok(Ok(reading))) => Outcome::Read(reading),
            Ok(Ok(Err(error))) => Outcome::Failed(error.to_string()),
            Ok(Err(ended)) => Outcome::Failed(match ended.try_into_panic() {
                Ok(panic) => format!("the rule panicked: {}", panics::message(&*panic)),
                Err(ended) => ended.to_string(),
            }),
            Err(_) => Outcome::Failed(format!("no result within {:?}", self.limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex as StdMutex, mpsc};

    use async_endpoints_core::{MemoryStore, store::Stats};

    use super::*;
    use crate::alerts::{AlertRule, BoxError, Rule, plan::PlannedRule};

    /// A rule that blocks its thread until it gets a message.
    struct Blocking(StdMutex<mpsc::Receiver<()>>);

    #[async_trait::async_trait]
    impl AlertRule for Blocking {
        async fn evaluate(&self, _: &RuleContext) -> Result<Reading, BoxError> {
            self.0.lock().expect("no panic").recv()?;
            Ok(Reading::new(1.0, ""))
        }
    }

    fn context() -> RuleContext {
        RuleContext {
            store: Arc::new(MemoryStore::new()),
            stats: Arc::new(Stats::default()),
            controls: Arc::default(),
            cutoffs: Arc::new([]),
            declared: Arc::new([]),
            instances: Arc::new([]),
            window: LIMIT,
            min_count: 0,
            muted_at: None,
            memory: Value::Null,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn blocking_rule_is_not_started_twice() {
        let (release, blocked) = mpsc::channel();
        let rule = PlannedRule::of("a", Rule::above(1.0, Blocking(StdMutex::new(blocked))));
        let runs = Runs { limit: Duration::from_millis(20), ..Runs::default() };
        for error in ["no result within 20ms", "the evaluation before still runs"] {
            let outcome = runs.read(&rule, context(), false).await;
            assert!(matches!(&outcome, Outcome::Failed(reason) if reason == error), "{outcome:?}");
        }
        // For the run that blocks, and for the next one.
        release.send(()).expect("a rule");
        release.send(()).expect("a rule");
        let patient = Runs { limit: LIMIT, last: runs.last };
        loop {
            match patient.read(&rule, context(), false).await {
                Outcome::Read(reading) => break assert_eq!(reading, Reading::new(1.0, "")),
                outcome => assert!(matches!(&outcome, Outcome::Failed(reason) if reason.ends_with("still runs"))),
            }
            tokio::task::yield_now().await;
        }
    }
}
