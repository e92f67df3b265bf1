//! Reads the values of this process, and reports those that a rule may fire at.

use std::time::Duration;

use async_endpoints_core::{StoreError, Timestamp};
use async_endpoints_telemetry::process;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    super::{
        document::{INSTANCES, update},
        instances::{InstanceValue, MEMORY, STORE_ERRORS},
        plan::PlannedRule,
        silence,
    },
    Engine,
};
use crate::telemetry::events;

/// Longest interval of reports.
const REPORT_PACE: Duration = Duration::from_secs(15);
/// Longest window of store errors.
const ERROR_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Percentage of failed calls from which on the store fails, without a rule about store errors.
const ERROR_PERCENT: f64 = 5.0;
/// Shortest time in which failed calls mute other rules.
const MUTE_WINDOW: Duration = Duration::from_secs(2);

/// Age from which on a reported value does not count.
pub(super) fn kept(interval: Duration) -> Duration {
    interval * 2 + Duration::from_secs(30)
}

impl Engine {
    /// Samples the counts of store calls each second, and reports the values of this process. Never returns.
    pub(super) async fn sample(&self) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut due, mut is_reported) = (Instant::now(), false);
        loop {
            second.tick().await;
            self.counts.sample();
            if due <= Instant::now() {
                due = Instant::now() + self.plan.interval.min(REPORT_PACE);
                match self.report(is_reported).await {
                    Ok(reported) => is_reported = reported,
                    Err(error) => events::store_failed("alert values", &error),
                }
            }
        }
    }

    /// Stores the values of this process at which a rule may fire, or removes them. Returns whether there are any. Takes no
    /// store call if there are none and none are stored.
    pub(super) async fn report(&self, is_reported: bool) -> Result<bool, StoreError> {
        let is_needed = |value: &InstanceValue| {
            value.outage.is_some() || self.plan.rule(&value.rule).is_some_and(|rule| matters(rule, value.value))
        };
        let mut own: Vec<InstanceValue> = self.own_values(Timestamp::default()).into_iter().filter(is_needed).collect();
        if own.is_empty() && !is_reported {
            return Ok(false);
        }
        let now = silence::now(&*self.store).await?;
        own.iter_mut().for_each(|value| value.at = now);
        let id = self.id.to_string();
        let written = update(&*self.store, INSTANCES, |values: &mut Vec<InstanceValue>| {
            values.retain(|value| value.instance != id && now.since(value.at) < kept(self.plan.interval));
            values.extend(own.iter().cloned());
            Some(())
        });
        written.await?;
        Ok(!own.is_empty())
    }

    /// The values of this process, as of `now`.
    pub(super) fn own_values(&self, now: Timestamp) -> Vec<InstanceValue> {
        let value = |rule: &str, value, count| InstanceValue {
            rule: rule.to_owned(),
            instance: self.id.to_string(),
            value,
            count,
            outage: None,
            at: now,
        };
        let memory = process::resident_memory().zip(process::memory_limit());
        let memory = memory.filter(|(_, limit)| *limit > 0).map(|(used, limit)| 100.0 * used as f64 / limit as f64);
        let window = self.plan.rule(STORE_ERRORS).map(|rule| rule.window.min(ERROR_WINDOW));
        let memory = memory.map(|percent| value(MEMORY, percent, None));
        let errors = window.map(|window| {
            let [calls, failed] = self.counts.within(window);
            let percent = if calls == 0 { 0.0 } else { 100.0 * failed as f64 / calls as f64 };
            InstanceValue { outage: self.handed_over(), ..value(STORE_ERRORS, percent, Some(failed)) }
        });
        memory.into_iter().chain(errors).collect()
    }
}

impl Engine {
    /// Whether more store calls of this process failed in the last two leases than the rule about store errors allows.
    pub(super) fn is_store_failing(&self) -> bool {
        let limit = self.plan.rule(STORE_ERRORS).map_or(ERROR_PERCENT, |rule| rule.limits.threshold);
        let [calls, failed] = self.counts.within((self.lease * 2).max(MUTE_WINDOW));
        failed as f64 * 100.0 > limit * calls as f64
    }
}

/// Whether a value is not clear.
fn matters(rule: &PlannedRule, value: f64) -> bool {
    rule.limits.clear_below.map_or(value > rule.limits.threshold, |clear_below| value >= clear_below)
}
