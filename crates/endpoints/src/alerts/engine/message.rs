//! The texts of alerts, and the facts of a rule as operators see them.

use std::time::Duration;

use async_endpoints_core::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{
    alert::{Alert, AlertStatus},
    document::RuleState,
    plan::PlannedRule,
};

/// The process that writes an alert.
pub(super) struct Origin<'a> {
    pub(super) service: &'a str,
    pub(super) instance: &'a str,
}

/// The alert of a rule that fires.
pub(super) fn firing(
    rule: &PlannedRule,
    state: &RuleState,
    (id, starts_at): (Uuid, Timestamp),
    origin: &Origin<'_>,
) -> Alert {
    let settings = &rule.settings;
    let title = if settings.title.is_empty() { &rule.name } else { &settings.title };
    Alert {
        id,
        rule: rule.name.clone(),
        alert_type: settings.alert_type,
        severity: settings.severity,
        status: AlertStatus::Firing,
        title: title.clone(),
        message: firing_message(rule, state, starts_at),
        details: details(state),
        starts_at,
        ends_at: None,
        service: origin.service.to_owned(),
        instance: origin.instance.to_owned(),
    }
}

/// The alert after its end. Severity and type stay those with which it fired, so that the same senders get it.
pub(super) fn resolved(alert: &Alert, state: &RuleState, at: Timestamp, origin: &Origin<'_>) -> Alert {
    let lasted = lasted(at.since(alert.starts_at));
    let value = state.value.map_or_else(String::new, |value| {
        format!(
            " The value is {}, the threshold {}.",
            with_unit(value, &state.unit),
            with_unit(state.threshold, &state.unit)
        )
    });
    Alert {
        status: AlertStatus::Resolved,
        message: format!("Resolved after {lasted}, since {at}.{value}"),
        details: details(state),
        ends_at: Some(at),
        instance: origin.instance.to_owned(),
        ..alert.clone()
    }
}

/// The facts that a rule read, with value, threshold, unit and sample jobs.
pub(super) fn details(state: &RuleState) -> Value {
    let mut details = state.details.clone();
    let facts = [
        ("value", json!(state.value)),
        ("threshold", json!(state.threshold)),
        ("unit", json!(state.unit)),
        ("jobs", json!(state.jobs)),
    ];
    details.extend(facts.map(|(name, value)| (name.to_owned(), value)));
    if let Some(count) = state.count {
        details.insert("count".to_owned(), json!(count));
    }
    if !state.message.is_empty() {
        details.insert("message".to_owned(), json!(state.message));
    }
    if let Some(error) = &state.error {
        details.insert("error".to_owned(), json!(error));
    }
    if state.muted {
        details.insert("muted".to_owned(), json!(true));
    }
    Value::Object(details)
}

/// What is wrong, since when, how far beyond the threshold, sample jobs, and the next step.
fn firing_message(rule: &PlannedRule, state: &RuleState, starts_at: Timestamp) -> String {
    let problem = match state.message.as_str() {
        "" => format!("the rule {} is above its threshold", rule.name),
        message => message.to_owned(),
    };
    let mut message = format!("{}, since {starts_at}.", capitalized(&problem));
    if let Some(value) = state.value {
        message += &format!(" {}", distance(value, rule, &state.unit));
    }
    if !state.jobs.is_empty() {
        let jobs: Vec<String> = state.jobs.iter().map(ToString::to_string).collect();
        message += &format!(" Jobs: {}.", jobs.join(", "));
    }
    if !rule.settings.next_step.is_empty() {
        message += &format!(" Next step: {}", rule.settings.next_step);
    }
    message
}

/// How far the value is beyond the threshold.
fn distance(value: f64, rule: &PlannedRule, unit: &str) -> String {
    let (shown, threshold) = (with_unit(value, unit), with_unit(rule.limits.threshold, unit));
    match rule.limits.clear_below {
        _ if value > rule.limits.threshold => {
            let above = with_unit(value - rule.limits.threshold, unit);
            format!("The value is {shown}, {above} above the threshold of {threshold}.")
        }
        Some(clear_below) => format!(
            "The value is {shown}, not above the threshold of {threshold} any more; the alert resolves below {}.",
            with_unit(clear_below, unit),
        ),
        None => format!("The value is {shown}, the threshold {threshold}."),
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    let rounded = format!("{value:.3}");
    let number = rounded.trim_end_matches('0').trim_end_matches('.');
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A duration as people say it: seconds, minutes with seconds, or hours with minutes.
fn lasted(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::JobId;

    use super::*;
    use crate::alerts::{
        Reading, Rule, Severity,
        state::{Limits, Timing},
    };

    const ORIGIN: Origin<'_> = Origin { service: "shop", instance: "i" };
    const START: Timestamp = Timestamp::from_micros(1_772_366_400_000_000);

    fn rule(clear_below: Option<f64>) -> PlannedRule {
        let rule = Rule::above(10.0, async || Ok::<_, crate::alerts::BoxError>(Reading::no_data()));
        let rule = rule.unit("%").title("Many jobs fail").next_step("Look at /ops/failures.").severity(Severity::Low);
        PlannedRule {
            name: "failure_rate".to_owned(),
            rule: rule.rule,
            settings: rule.settings,
            limits: Limits { threshold: 10.0, clear_below, min_count: 0 },
            timing: Timing { pending_for: Duration::ZERO, repeat: Duration::from_secs(1) },
            window: Duration::from_secs(3600),
        }
    }

    fn state(value: f64) -> RuleState {
        RuleState {
            value: Some(value),
            threshold: 10.0,
            unit: "%".to_owned(),
            message: "15 of 120 jobs failed".to_owned(),
            jobs: vec![JobId(Uuid::nil())],
            ..RuleState::default()
        }
    }

    #[test]
    fn firing_message_has_all_parts() {
        let alert = firing(&rule(None), &state(12.5), (Uuid::nil(), START), &ORIGIN);
        assert_eq!(
            alert.message,
            "15 of 120 jobs failed, since 2026-03-01T12:00:00.000000Z. The value is 12.5 %, 2.5 % above the threshold of \
             10 %. Jobs: 00000000-0000-0000-0000-000000000000. Next step: Look at /ops/failures.",
        );
        assert_eq!((alert.title.as_str(), alert.severity), ("Many jobs fail", Severity::Low));
        let details = json!({
            "value": 12.5, "threshold": 10.0, "unit": "%", "jobs": [Uuid::nil()], "message": "15 of 120 jobs failed",
        });
        assert_eq!(alert.details, details);
    }

    #[test]
    fn value_between_thresholds_names_both() {
        let alert = firing(&rule(Some(5.0)), &state(7.0), (Uuid::nil(), START), &ORIGIN);
        let part = "The value is 7 %, not above the threshold of 10 % any more; the alert resolves below 5 %.";
        assert!(alert.message.contains(part), "{}", alert.message);
    }

    #[test]
    fn resolve_keeps_id_start_and_severity() {
        let fired = firing(&rule(None), &state(12.5), (Uuid::max(), START), &ORIGIN);
        let at = START + Duration::from_secs(305);
        let alert = resolved(&fired, &state(2.0), at, &Origin { service: "shop", instance: "j" });
        assert_eq!((alert.id, alert.starts_at, alert.ends_at), (Uuid::max(), START, Some(at)));
        assert_eq!((alert.status, alert.instance.as_str()), (AlertStatus::Resolved, "j"));
        let text = "Resolved after 5 min 5 s, since 2026-03-01T12:05:05.000000Z. The value is 2 %, the threshold 10 %.";
        assert_eq!(alert.message, text);
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!(
            [with_unit(1.0 / 3.0, "s"), with_unit(20.0, ""), with_unit(0.0, "jobs")],
            ["0.333 s", "20", "0 jobs"]
        );
        let seconds = [59, 60, 3_600, 90_061].map(|seconds| lasted(Duration::from_secs(seconds)));
        assert_eq!(seconds, ["59 s", "1 min 0 s", "1 h 0 min", "25 h 1 min"]);
    }
}
