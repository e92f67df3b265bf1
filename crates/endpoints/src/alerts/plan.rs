//! The settings of alerts as the engine uses them: checked, with all defaults.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::JobName;

use super::{
    config::Alerts,
    rule::{AlertRule, Rule, RuleSettings},
    sender::Route,
    state::{Limits, Timing},
};

/// The shortest interval of evaluations and refreshes.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What a name is, in errors.
pub(super) const NAME: &str = "1–100 characters from A-Z a-z 0-9 . _ -";

/// What is evaluated, and where notifications are sent.
pub(crate) struct Plan {
    pub(super) rules: Arc<[PlannedRule]>,
    pub(super) routes: Arc<[Route]>,
    pub(super) interval: Duration,
    pub(super) service: Option<String>,
}

/// A rule with all its settings.
pub(super) struct PlannedRule {
    pub(super) name: String,
    pub(super) rule: Arc<dyn AlertRule>,
    pub(super) settings: RuleSettings,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
    pub(super) window: Duration,
}

/// A setting with which alerts cannot work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidSetting {
    pub(crate) setting: String,
    pub(crate) value: String,
    pub(crate) expected: &'static str,
}

impl Plan {
    /// Checks the settings.
    pub(crate) fn new(alerts: Alerts) -> Result<Self, InvalidSetting> {
        check_interval("interval of alerts".to_owned(), alerts.interval)?;
        for route in &alerts.routes {
            check_name("name of an alert sender", &route.name)?;
            if let Some(interval) = route.sender.refresh_interval() {
                check_interval(format!("refresh interval of the alert sender {}", route.name), interval)?;
            }
        }
        let rules: Result<Arc<[_]>, _> = alerts.rules.iter().map(|(name, rule)| planned(name, rule, &alerts)).collect();
        Ok(Self { rules: rules?, routes: alerts.routes.into(), interval: alerts.interval, service: alerts.service })
    }

    pub(super) fn rule(&self, name: &str) -> Option<&PlannedRule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

#[cfg(test)]
impl PlannedRule {
    /// A rule without a minimum count, for tests.
    pub(super) fn of(name: &str, rule: Rule) -> Self {
        let Rule { rule, settings } = rule;
        let limits = Limits { threshold: settings.threshold, clear_below: settings.clear_below, min_count: 0 };
        let timing = Timing { pending_for: Duration::ZERO, repeat: Duration::from_secs(1) };
        Self { name: name.to_owned(), rule, settings, limits, timing, window: Duration::from_secs(60) }
    }
}

fn planned(name: &str, rule: &Rule, alerts: &Alerts) -> Result<PlannedRule, InvalidSetting> {
    check_name("name of an alert rule", name)?;
    let settings = rule.settings.clone();
    let limits = Limits {
        threshold: settings.threshold,
        clear_below: settings.clear_below,
        min_count: settings.min_count.unwrap_or(alerts.min_count),
    };
    check_limits(name, &limits)?;
    let timing = Timing {
        pending_for: settings.pending_for.unwrap_or(alerts.pending_for),
        repeat: settings.repeat.unwrap_or(alerts.repeat),
    };
    let window = settings.window.unwrap_or(alerts.window);
    check_time(format!("repeat interval of the alert rule {name}"), timing.repeat)?;
    check_time(format!("window of the alert rule {name}"), window)?;
    Ok(PlannedRule { name: name.to_owned(), rule: rule.rule.clone(), settings, limits, timing, window })
}

fn check_name(setting: &str, name: &str) -> Result<(), InvalidSetting> {
    let valid = JobName::new(name).is_ok();
    check(valid, || InvalidSetting { setting: setting.to_owned(), value: name.to_owned(), expected: NAME })
}

fn check_interval(setting: String, interval: Duration) -> Result<(), InvalidSetting> {
    let expected = "a time of 0.1 s or more";
    check(interval >= MIN_INTERVAL, || InvalidSetting { setting, value: format!("{interval:?}"), expected })
}

fn check_time(setting: String, time: Duration) -> Result<(), InvalidSetting> {
    check(!time.is_zero(), || InvalidSetting { setting, value: format!("{time:?}"), expected: "a time above 0 s" })
}

fn check_limits(name: &str, limits: &Limits) -> Result<(), InvalidSetting> {
    let Limits { threshold, clear_below, .. } = *limits;
    let invalid = |what: &str, value: f64, expected| InvalidSetting {
        setting: format!("{what} of the alert rule {name}"),
        value: value.to_string(),
        expected,
    };
    check(threshold.is_finite(), || invalid("threshold", threshold, "a finite number"))?;
    let Some(clear_below) = clear_below else { return Ok(()) };
    // False for a value that is not a number.
    let fits = clear_below.is_finite() && clear_below <= threshold;
    check(fits, || invalid("clear threshold", clear_below, "a finite number, the threshold or less"))
}

fn check(valid: bool, invalid: impl FnOnce() -> InvalidSetting) -> Result<(), InvalidSetting> {
    if valid { Ok(()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::{Reading, Severity, senders::Log};

    fn alerts() -> Alerts {
        let second = Duration::from_secs(1);
        Alerts {
            rules: Vec::new(),
            routes: Vec::new(),
            interval: second,
            pending_for: Duration::ZERO,
            repeat: second,
            window: second,
            min_count: 20,
            service: None,
        }
    }

    fn rule() -> Rule {
        Rule::above(10.0, async || Ok::<_, crate::alerts::BoxError>(Reading::no_data()))
    }

    fn invalid(alerts: Alerts) -> String {
        let InvalidSetting { setting, value, .. } = Plan::new(alerts).err().expect("an invalid setting");
        format!("{setting}: {value}")
    }

    #[test]
    fn defaults_come_from_alerts() {
        let plan = Plan::new(alerts().rule("a", rule()).rule("b", rule().min_count(3))).expect("valid settings");
        let min_counts: Vec<u64> = plan.rules.iter().map(|rule| rule.limits.min_count).collect();
        assert_eq!(min_counts, [20, 3]);
        assert!(plan.rule("b").is_some() && plan.rule("c").is_none());
    }

    #[test]
    fn same_name_replaces_the_rule() {
        let plan = Plan::new(alerts().rule("a", rule()).rule("a", rule().threshold(1.0))).expect("valid settings");
        assert_eq!(plan.rules.iter().map(|rule| rule.limits.threshold).collect::<Vec<_>>(), [1.0]);
    }

    #[test]
    fn invalid_settings_are_named() {
        let zero = Duration::ZERO;
        for (alerts, message) in [
            (alerts().rule("a b", rule()), "name of an alert rule: a b"),
            (alerts().sender_from(Severity::Low, "", Log), "name of an alert sender: "),
            (alerts().interval(zero), "interval of alerts: 0ns"),
            (alerts().rule("a", rule()).repeat(zero), "repeat interval of the alert rule a: 0ns"),
            (alerts().rule("a", rule().window(zero)), "window of the alert rule a: 0ns"),
            (alerts().rule("a", rule().threshold(f64::NAN)), "threshold of the alert rule a: NaN"),
            (alerts().rule("a", rule().threshold(f64::INFINITY)), "threshold of the alert rule a: inf"),
            (alerts().rule("a", rule().clear_below(f64::NAN)), "clear threshold of the alert rule a: NaN"),
            (alerts().rule("a", rule().clear_below(10.5)), "clear threshold of the alert rule a: 10.5"),
        ] {
            assert_eq!(invalid(alerts), message);
        }
        assert!(Plan::new(alerts().rule("a", rule().clear_below(10.0).pending_for(zero))).is_ok());
    }
}
