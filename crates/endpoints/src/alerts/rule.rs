//! What an alert rule is: its interface, what it reads, its result, and the settings that decide when it fires.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobId, JobName, Store, Timestamp,
    store::{Stats, TypeCutoffs},
};
use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{
    alert::{AlertType, Severity},
    instances::InstanceValue,
};
use crate::{
    health::BoxError,
    stats::{self, JobStats},
    types::Controls,
};

/// A rule that can fire an alert. Implemented for closures that return a future.
#[async_trait]
pub trait AlertRule: Send + Sync + 'static {
    /// Reads the current value.
    ///
    /// Only one process of the fleet calls this, once per [interval](super::Alerts::interval). The future is dropped after
    /// 10 s. After an error or a panic the rule keeps its state.
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError>;
}

#[async_trait]
impl<C, F, E> AlertRule for C
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reading, E>> + Send,
    E: Into<BoxError>,
{
    async fn evaluate(&self, _: &RuleContext) -> Result<Reading, BoxError> {
        self().await.map_err(Into::into)
    }
}

/// What a rule reads. All rules of one evaluation share it.
pub struct RuleContext {
    pub(super) store: Arc<dyn Store>,
    /// Statistics of this evaluation, with all kept minute buckets.
    pub(super) stats: Arc<Stats>,
    /// The thresholds that `stats` was read with.
    pub(super) cutoffs: Arc<[TypeCutoffs]>,
    /// Pauses of job types.
    pub(super) controls: Arc<Controls>,
    pub(super) declared: Arc<[JobName]>,
    /// Reported values of processes, by rule name.
    pub(super) instances: Arc<[InstanceValue]>,
    /// [`Rule::window`].
    pub(super) window: Duration,
    /// [`Rule::min_count`].
    pub(super) min_count: u64,
    /// When an outage of the store muted rules last.
    pub(super) muted_at: Option<Timestamp>,
    /// [`Reading::memory`] of the rule's last evaluation; null before the first.
    pub(super) memory: Value,
}

impl RuleContext {
    /// The current time, by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.stats.now
    }

    /// The rule's window.
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// The number of events from which on the rule's value counts.
    pub const fn min_count(&self) -> u64 {
        self.min_count
    }

    /// Statistics of a window of whole minutes: at least `window`, at most a minute more, at most six hours. Takes no store
    /// call.
    pub fn job_stats(&self, window: Duration) -> JobStats {
        self.stats_since(stats::covering_minute(self.now(), window))
    }

    /// Statistics of the minutes of [`job_stats`](Self::job_stats) in which no outage of the store muted rules. None if the
    /// present minute has been one of an outage.
    pub(super) fn stats_after_outage(&self, window: Duration) -> Option<JobStats> {
        let first = stats::covering_minute(self.now(), window);
        let first = self.muted_at.map_or(first, |at| first.max(at.minute() + 1));
        (first <= self.now().minute()).then(|| self.stats_since(first))
    }

    fn stats_since(&self, minute: i64) -> JobStats {
        JobStats::since_minute(&self.stats, minute, self.declared.iter())
    }

    /// Whether an operator paused a job type. Its jobs wait because of that decision.
    pub(super) fn is_paused(&self, name: &str) -> bool {
        self.controls.paused().any(|paused| paused.as_str() == name)
    }

    /// What the rule's last evaluation stored with [`Reading::remember`]; null before the first. It survives restarts and a
    /// change of the evaluating process.
    pub const fn memory(&self) -> &Value {
        &self.memory
    }
}

/// The result of an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The value that is compared with the threshold. Without a value the rule keeps its state.
    pub(super) value: Option<f64>,
    /// Number of events that the value is derived from, compared with [`Rule::min_count`].
    pub(super) count: Option<u64>,
    pub(super) message: String,
    pub(super) details: Map<String, Value>,
    pub(super) jobs: Vec<JobId>,
    pub(super) memory: Value,
}

impl Reading {
    /// A value. `message` says what is wrong if the value is above the threshold, as a sentence without a full stop.
    pub fn new(value: f64, message: impl Into<String>) -> Self {
        Self { value: Some(value), message: message.into(), ..Self::default() }
    }

    /// There is no value now: the rule keeps its state.
    pub fn no_data() -> Self {
        Self::default()
    }

    /// Sets the number of events that the value is derived from.
    #[must_use]
    pub const fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Adds a fact to the details.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Sets sample jobs. The first three are shown.
    #[must_use]
    pub fn jobs(mut self, jobs: impl IntoIterator<Item = JobId>) -> Self {
        self.jobs = jobs.into_iter().collect();
        self
    }

    /// Stores a value for the rule's next evaluation, which reads it with [`RuleContext::memory`].
    #[must_use]
    pub fn remember(mut self, memory: Value) -> Self {
        self.memory = memory;
        self
    }
}

/// A rule with the settings that decide when it fires.
///
/// It fires while its value is above [`threshold`](Self::threshold), after [`pending_for`](Self::pending_for), and resolves
/// when the value is below [`clear_below`](Self::clear_below).
#[derive(Clone)]
pub struct Rule {
    pub(super) rule: Arc<dyn AlertRule>,
    pub(super) settings: RuleSettings,
}

/// Settings of a [`Rule`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RuleSettings {
    pub(super) threshold: f64,
    pub(super) clear_below: Option<f64>,
    pub(super) unit: &'static str,
    pub(super) pending_for: Option<Duration>,
    pub(super) window: Option<Duration>,
    pub(super) min_count: Option<u64>,
    pub(super) repeat: Option<Duration>,
    pub(super) severity: Severity,
    pub(super) alert_type: AlertType,
    pub(super) title: String,
    pub(super) next_step: String,
    /// Whether an outage of the store mutes the rule.
    pub(super) follows_store: bool,
}

impl Rule {
    /// A rule that fires above `threshold`. Defaults: severity High, type System, muted during an outage of the store, and
    /// the times of [`Alerts`](super::Alerts).
    pub fn above(threshold: f64, rule: impl AlertRule) -> Self {
        let settings = RuleSettings {
            threshold,
            clear_below: None,
            unit: "",
            pending_for: None,
            window: None,
            min_count: None,
            repeat: None,
            severity: Severity::High,
            alert_type: AlertType::System,
            title: String::new(),
            next_step: String::new(),
            follows_store: true,
        };
        Self { rule: Arc::new(rule), settings }
    }

    /// A rule that fires while a figure of the statistics of its window is above `threshold`. None means no data.
    ///
    /// ```
    /// # use async_endpoints::alerts::Rule;
    /// let rule = Rule::figure_above(500.0, |stats| Some(stats.job_types.get("Export")?.queued_jobs as f64))
    ///     .title("Many exports wait")
    ///     .next_step("Start more workers.");
    /// ```
    pub fn figure_above(threshold: f64, figure: impl Fn(&JobStats) -> Option<f64> + Send + Sync + 'static) -> Self {
        Self::above(threshold, Figure(Box::new(figure)))
    }

    /// Sets the threshold. The rule fires above it.
    #[must_use]
    pub const fn threshold(mut self, threshold: f64) -> Self {
        self.settings.threshold = threshold;
        self
    }

    /// Sets the value below which a firing alert resolves. Defaults to: at or below the threshold.
    #[must_use]
    pub const fn clear_below(mut self, value: f64) -> Self {
        self.settings.clear_below = Some(value);
        self
    }

    /// Sets the unit of value and threshold, as messages show it, such as `s` or `%`.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.settings.unit = unit;
        self
    }

    /// Sets how long the value must be above the threshold before the rule fires. Defaults to
    /// [`Alerts::pending_for`](super::Alerts::pending_for).
    #[must_use]
    pub const fn pending_for(mut self, time: Duration) -> Self {
        self.settings.pending_for = Some(time);
        self
    }

    /// Sets the window of the statistics. Defaults to [`Alerts::window`](super::Alerts::window).
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.settings.window = Some(window);
        self
    }

    /// Sets the number of events below which a value counts as not above the threshold. Compared with
    /// [`Reading::count`], if the reading has one. Defaults to [`Alerts::min_count`](super::Alerts::min_count).
    #[must_use]
    pub const fn min_count(mut self, count: u64) -> Self {
        self.settings.min_count = Some(count);
        self
    }

    /// Sets the interval of repeated notifications while the rule fires. Defaults to
    /// [`Alerts::repeat`](super::Alerts::repeat).
    #[must_use]
    pub const fn repeat(mut self, interval: Duration) -> Self {
        self.settings.repeat = Some(interval);
        self
    }

    /// Sets the severity. Defaults to High.
    #[must_use]
    pub const fn severity(mut self, severity: Severity) -> Self {
        self.settings.severity = severity;
        self
    }

    /// Sets the kind of the problem. Defaults to System.
    #[must_use]
    pub const fn alert_type(mut self, alert_type: AlertType) -> Self {
        self.settings.alert_type = alert_type;
        self
    }

    /// Sets the title. Defaults to the rule's name.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.settings.title = title.into();
        self
    }

    /// Sets what the reader of the alert should do next, as one or two sentences.
    #[must_use]
    pub fn next_step(mut self, text: impl Into<String>) -> Self {
        self.settings.next_step = text.into();
        self
    }

    /// Evaluates the rule during an outage of the store too.
    #[must_use]
    pub(super) const fn independent_of_store(mut self) -> Self {
        self.settings.follows_store = false;
        self
    }
}

/// A figure of the statistics.
struct Figure(Box<dyn Fn(&JobStats) -> Option<f64> + Send + Sync>);

#[async_trait]
impl AlertRule for Figure {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let value = (self.0)(&context.job_stats(context.window()));
        Ok(value.map_or_else(Reading::no_data, |value| Reading::new(value, format!("the figure is {value}"))))
    }
}
