//! Steps the state of the rules, and writes the notifications that follow into the outbox.

use std::collections::BTreeMap;

use async_endpoints_core::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    super::{
        alert::Alert,
        document::{AlertDocument, OUTBOX, Outgoing, RuleState},
        instances::STORE_ERRORS,
        plan::PlannedRule,
        rule::Reading,
        sender::Route,
        state::{Input, Notice, State, step},
    },
    Engine,
    evaluate::{Evaluation, Outcome},
    leader::Leader,
    message,
};
use crate::telemetry::{SendOutcome, events};

/// Maximum length of a rule's message in characters.
const MESSAGE_CHARS: usize = 1000;
/// Maximum size of a rule's details as JSON. Larger ones are left out.
const DETAIL_BYTES: usize = 16 << 10;
/// Number of sample jobs.
const JOBS: usize = 3;

impl Leader {
    /// Applies what all rules read.
    pub(super) fn step_all(&mut self, evaluation: Evaluation) {
        let Evaluation { now, outcomes, outages, silences } = evaluation;
        self.silences = silences;
        self.take_over(outages, now);
        let engine = self.engine.clone();
        let mut read: Vec<(&PlannedRule, Outcome)> = engine.plan.rules.iter().zip(outcomes).collect();
        // The rule about store errors decides whether others are muted.
        read.sort_by_key(|(rule, _)| rule.name != STORE_ERRORS);
        for (rule, outcome) in read {
            let is_muted = rule.settings.follows_store && self.is_muted();
            self.apply(rule, if is_muted { Outcome::Muted } else { outcome }, now);
        }
        self.retire_removed(now);
        if self.is_muted() {
            self.copy.document.muted_at = Some(now);
        }
        self.copy.document.evaluated_at = Some(now);
        self.copy.is_dirty = true;
    }

    /// Whether an outage of the store mutes the rules that follow from it.
    pub(super) fn is_muted(&self) -> bool {
        let errors = self.copy.document.rules.get(STORE_ERRORS);
        errors.is_some_and(|errors| errors.state.is_active()) || self.engine.is_store_failing()
    }

    /// Fires the alert of an outage in memory: no process can read or write the state now.
    pub(super) fn step_outage(&mut self) {
        let engine = self.engine.clone();
        let (Some(rule), Some(failing)) = (engine.plan.rule(STORE_ERRORS), self.tenure.failing_for()) else { return };
        let now = self.now();
        let reading = Reading::new(100.0, "all store calls of the leading process fail")
            .with("failing_since", now.before(failing).to_string());
        let notice = self.apply(rule, Outcome::Read(reading), now);
        if notice == Some(Notice::Firing) {
            self.alone = self.copy.document.rules[STORE_ERRORS].alert.clone();
        }
    }

    /// Applies what a rule read. Returns the notice that follows.
    fn apply(&mut self, rule: &PlannedRule, outcome: Outcome, now: Timestamp) -> Option<Notice> {
        let silenced = self.silences.iter().any(|silence| silence.rule == rule.name && silence.ends_at > now);
        let state = self.copy.document.rules.entry(rule.name.clone()).or_default();
        let input = record(state, rule, outcome);
        let (next, notice) = step(state.state, input, rule.timing, silenced, now, Uuid::now_v7());
        let was = std::mem::replace(&mut state.state, next);
        self.engine.update_alert(state, rule, was, input);
        self.copy.is_dirty = true;
        if let (Some(notice), Some(alert)) = (notice, state.alert.clone()) {
            self.notify(alert, notice, now);
        }
        notice
    }

    /// Resolves and removes rules that the application has no more.
    fn retire_removed(&mut self, now: Timestamp) {
        let plan = &self.engine.plan;
        let (kept, removed) = std::mem::take(&mut self.copy.document.rules)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| plan.rule(name).is_some());
        self.copy.document.rules = kept;
        for state in removed.into_values() {
            if let (State::Firing { notified_at: Some(_), .. }, Some(alert)) = (state.state, &state.alert) {
                let resolved = message::resolved(alert, &state, now, &self.engine.origin());
                self.notify(resolved, Notice::Resolved, now);
            }
        }
    }

    /// Adds a notification to the outbox. A repeat is left out where an earlier notification of the alert still waits.
    pub(super) fn notify(&mut self, alert: Alert, notice: Notice, at: Timestamp) {
        let document = &mut self.copy.document;
        let waits = |route: &Route| {
            let mut of_alert = document.outbox.iter().filter(|outgoing| outgoing.alert.id == alert.id);
            of_alert.any(|outgoing| outgoing.to.contains(&route.name))
        };
        let gets = |route: &&Route| route.wants(&alert) && !(notice == Notice::Repeat && waits(route));
        let to: Vec<String> = self.engine.plan.routes.iter().filter(gets).map(|route| route.name.clone()).collect();
        if to.is_empty() {
            return;
        }
        // Mails of an alert refer to its first notification, which therefore has the alert's id.
        let id = if notice == Notice::Firing { alert.id } else { Uuid::now_v7() };
        document.outbox.push(Outgoing { id, alert, to, at, is_stored: false });
        drop_oldest(document, &self.engine);
    }
}

/// Drops the oldest notification of a full outbox.
fn drop_oldest(document: &mut AlertDocument, engine: &Engine) {
    if document.outbox.len() <= OUTBOX {
        return;
    }
    let dropped = document.outbox.remove(0);
    events::alert_dropped(&dropped.alert.rule, &dropped.to);
    for route in engine.plan.routes.iter().filter(|route| dropped.to.contains(&route.name)) {
        engine.meter.sent(route.sender.kind(), SendOutcome::Failed);
    }
}

/// Details that every receiver and the stored document can take.
fn limited(details: Map<String, Value>) -> Map<String, Value> {
    let size = serde_json::to_vec(&details).map_or(0, |json| json.len());
    if size <= DETAIL_BYTES {
        return details;
    }
    let reason = format!("left out: {size} bytes, more than {DETAIL_BYTES}");
    Map::from_iter([("details".to_owned(), Value::from(reason))])
}

/// Keeps what a rule read, and compares it with the thresholds.
fn record(state: &mut RuleState, rule: &PlannedRule, outcome: Outcome) -> Input {
    state.threshold = rule.limits.threshold;
    rule.settings.unit.clone_into(&mut state.unit);
    state.muted = matches!(outcome, Outcome::Muted);
    let reading = match outcome {
        Outcome::Muted => return Input::NoData,
        Outcome::Failed(error) => {
            if state.error.as_ref() != Some(&error) {
                events::alert_rule_failed(&rule.name, &error);
            }
            state.error = Some(error);
            return Input::NoData;
        }
        Outcome::Read(reading) => reading,
    };
    if state.error.take().is_some() {
        events::alert_rule_works(&rule.name);
    }
    let input = Input::of(reading.value, reading.count, &rule.limits);
    let Reading { value, count, message, details, jobs, memory } = reading;
    (state.value, state.count, state.memory) = (value, count, memory);
    state.message = message.chars().take(MESSAGE_CHARS).collect();
    state.details = limited(details);
    state.jobs = jobs.into_iter().take(JOBS).collect();
    input
}

impl Engine {
    /// Makes the alert of a rule agree with its state. Without data, the alert stays as it was.
    fn update_alert(&self, state: &mut RuleState, rule: &PlannedRule, was: State, input: Input) {
        let origin = self.origin();
        match (was, state.state) {
            (_, State::Inactive | State::Pending { .. }) => state.alert = None,
            (State::Firing { .. }, State::Firing { .. }) if input == Input::NoData => {}
            (_, State::Firing { id, starts_at, .. }) => {
                let mut alert = message::firing(rule, state, (id, starts_at), &origin);
                if let Some(before) = state.alert.as_ref().filter(|before| before.id == id) {
                    // The resolve goes to the routes that got the alert.
                    alert.severity = before.severity;
                }
                state.alert = Some(alert);
            }
            (State::Firing { .. }, State::Resolved { at, .. }) => {
                state.alert = state.alert.as_ref().map(|alert| message::resolved(alert, state, at, &origin));
            }
            (_, State::Resolved { .. }) => {}
        }
    }
}
