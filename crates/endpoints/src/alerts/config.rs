//! The settings of alerts: rules, senders and times.

use std::{fmt, time::Duration};

use super::{
    alert::Severity,
    rule::Rule,
    rules,
    sender::{AlertSender, Route},
    senders::Log,
};

/// Rules and senders of alerts, for [`Builder::alerts`](crate::Builder::alerts).
///
/// Starts with the built-in rules and the sender `log`.
pub struct Alerts {
    pub(super) rules: Vec<(String, Rule)>,
    pub(super) routes: Vec<Route>,
    pub(super) interval: Duration,
    pub(super) pending_for: Duration,
    pub(super) repeat: Duration,
    pub(super) window: Duration,
    pub(super) min_count: u64,
    pub(super) service: Option<String>,
}

impl Default for Alerts {
    fn default() -> Self {
        let alerts = Self {
            rules: rules::defaults(),
            routes: Vec::new(),
            interval: Duration::from_secs(5 * 60),
            pending_for: Duration::ZERO,
            repeat: Duration::from_secs(4 * 60 * 60),
            window: Duration::from_secs(60 * 60),
            min_count: 20,
            service: None,
        };
        alerts.sender("log", Log)
    }
}

impl Alerts {
    /// The built-in rules and the sender `log`, with the default times.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use async_endpoints::{AsyncEndpoints, MemoryStore, alerts::{Alerts, Severity}};
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let alerts = Alerts::new()
    ///     .interval(Duration::from_secs(60))
    ///     .change("failure_rate", |rule| rule.threshold(5.0).clear_below(2.0).severity(Severity::Critical));
    /// let endpoints = AsyncEndpoints::builder(MemoryStore::new()).alerts(alerts).build()?;
    /// # Ok(()) }
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule, or replaces the one of this name.
    #[must_use]
    pub fn rule(mut self, name: impl Into<String>, rule: impl Into<Rule>) -> Self {
        let name = name.into();
        self.rules.retain(|(other, _)| *other != name);
        self.rules.push((name, rule.into()));
        self
    }

    /// Changes the rule of this name, if there is one.
    #[must_use]
    pub fn change(mut self, name: &str, change: impl FnOnce(Rule) -> Rule) -> Self {
        if let Some((_, rule)) = self.rules.iter_mut().find(|(other, _)| other == name) {
            *rule = change(rule.clone());
        }
        self
    }

    /// Removes the rule of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.rules.retain(|(other, _)| other != name);
        self
    }

    /// Adds a sender for all alerts, or replaces the one of this name.
    #[must_use]
    pub fn sender(self, name: impl Into<String>, sender: impl AlertSender) -> Self {
        self.sender_from(Severity::Low, name, sender)
    }

    /// Adds a sender for alerts of this severity and above, or replaces the one of this name.
    #[must_use]
    pub fn sender_from(mut self, min_severity: Severity, name: impl Into<String>, sender: impl AlertSender) -> Self {
        let name = name.into();
        self.routes.retain(|route| route.name != name);
        self.routes.push(Route { name, sender: std::sync::Arc::new(sender), min_severity });
        self
    }

    /// Removes the sender of this name.
    #[must_use]
    pub fn without_sender(mut self, name: &str) -> Self {
        self.routes.retain(|route| route.name != name);
        self
    }

    /// Sets the interval of evaluations. Defaults to 5 min.
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how long a value must be above its threshold before a rule fires. Defaults to 0.
    #[must_use]
    pub const fn pending_for(mut self, time: Duration) -> Self {
        self.pending_for = time;
        self
    }

    /// Sets the interval of repeated notifications while a rule fires. Defaults to 4 h.
    #[must_use]
    pub const fn repeat(mut self, interval: Duration) -> Self {
        self.repeat = interval;
        self
    }

    /// Sets the window of rates. Defaults to 1 h.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the number of events, such as ended jobs, from which on a rate counts. Defaults to 20.
    #[must_use]
    pub const fn min_count(mut self, count: u64) -> Self {
        self.min_count = count;
        self
    }

    /// Sets the service name in alerts. Defaults to the one of [`Telemetry`](crate::Telemetry).
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<&str> = self.rules.iter().map(|(name, _)| name.as_str()).collect();
        let senders: Vec<&str> = self.routes.iter().map(|route| route.name.as_str()).collect();
        f.debug_struct("Alerts").field("rules", &rules).field("senders", &senders).finish_non_exhaustive()
    }
}
