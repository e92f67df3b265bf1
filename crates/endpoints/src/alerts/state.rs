//! The state of a rule, and how a reading changes it. Pure: no clock, no I/O.

use std::time::Duration;

use async_endpoints_core::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The state of a rule.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(super) enum State {
    /// The value is not above the threshold.
    #[default]
    Inactive,
    /// The value is above the threshold, but not for long enough.
    Pending {
        /// When the value was first above the threshold.
        since: Timestamp,
    },
    /// The rule fires.
    Firing {
        /// The alert.
        id: Uuid,
        starts_at: Timestamp,
        /// When the last notification was decided; none while a silence suppressed all.
        notified_at: Option<Timestamp>,
    },
    /// The rule fired and does not any more.
    Resolved {
        /// The alert.
        id: Uuid,
        at: Timestamp,
        /// Whether the alert was notified.
        notified: bool,
    },
}

impl State {
    /// The state as text, as in JSON.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending { .. } => "pending",
            Self::Firing { .. } => "firing",
            Self::Resolved { .. } => "resolved",
        }
    }

    /// When the state began; none for an inactive rule.
    pub(super) const fn since(&self) -> Option<Timestamp> {
        match *self {
            Self::Inactive => None,
            Self::Pending { since } => Some(since),
            Self::Firing { starts_at, .. } => Some(starts_at),
            Self::Resolved { at, .. } => Some(at),
        }
    }

    /// Whether the rule is pending or firing.
    pub(super) const fn is_active(&self) -> bool {
        matches!(self, Self::Pending { .. } | Self::Firing { .. })
    }
}

/// A reading, compared with the rule's thresholds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// There is no value.
    NoData,
    /// The value is not above the threshold and not between the two thresholds.
    Clear,
    /// The value is between the clear threshold and the threshold.
    Between,
    /// The value is above the threshold.
    Breach,
}

impl Input {
    /// Compares a value with the thresholds. A value of fewer events than `min_count` counts as clear.
    pub(super) fn of(value: Option<f64>, count: Option<u64>, limits: &Limits) -> Self {
        let Some(value) = value else { return Self::NoData };
        if count.is_some_and(|count| count < limits.min_count) {
            return Self::Clear;
        }
        match limits.clear_below {
            _ if value > limits.threshold => Self::Breach,
            Some(clear_below) if value >= clear_below => Self::Between,
            _ => Self::Clear,
        }
    }
}

/// The values that a reading is compared with.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Limits {
    pub(super) threshold: f64,
    pub(super) clear_below: Option<f64>,
    pub(super) min_count: u64,
}

/// The times of a rule.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) pending_for: Duration,
    pub(super) repeat: Duration,
}

/// A notification to send.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The rule fires.
    Firing,
    /// The rule still fires, after the repeat interval.
    Repeat,
    /// The rule does not fire any more.
    Resolved,
}

/// Returns the state after a reading, and the notification to send. A new alert gets the id `new_id`.
pub(super) fn step(
    state: State,
    input: Input,
    timing: Timing,
    silenced: bool,
    now: Timestamp,
    new_id: Uuid,
) -> (State, Option<Notice>) {
    match (state, input) {
        (State::Firing { id, starts_at, notified_at }, Input::NoData | Input::Between | Input::Breach) => {
            // Without data, the rule may not fire any more: nothing new is known that a repeat could say.
            let silenced = silenced || input == Input::NoData;
            still_firing(Firing { id, starts_at, notified_at }, timing.repeat, silenced, now)
        }
        (state, Input::NoData) => (state, None),
        (State::Firing { id, notified_at, .. }, Input::Clear) => {
            let notified = notified_at.is_some();
            (State::Resolved { id, at: now, notified }, notified.then_some(Notice::Resolved))
        }
        (State::Pending { since }, Input::Breach) => breach(since, timing, silenced, now, new_id),
        (State::Inactive | State::Resolved { .. }, Input::Breach) => breach(now, timing, silenced, now, new_id),
        (State::Pending { .. } | State::Inactive, Input::Clear | Input::Between) => (State::Inactive, None),
        (State::Resolved { at, .. }, Input::Clear | Input::Between) => {
            let is_over = now.since(at) >= timing.repeat;
            (if is_over { State::Inactive } else { state }, None)
        }
    }
}

/// The fields of [`State::Firing`].
#[derive(Clone, Copy)]
struct Firing {
    id: Uuid,
    starts_at: Timestamp,
    notified_at: Option<Timestamp>,
}

/// The value is above the threshold since `since`, and no alert fires yet.
fn breach(since: Timestamp, timing: Timing, silenced: bool, now: Timestamp, id: Uuid) -> (State, Option<Notice>) {
    if now.since(since) < timing.pending_for {
        return (State::Pending { since }, None);
    }
    still_firing(Firing { id, starts_at: now, notified_at: None }, timing.repeat, silenced, now)
}

fn still_firing(firing: Firing, repeat: Duration, silenced: bool, now: Timestamp) -> (State, Option<Notice>) {
    let Firing { id, starts_at, notified_at } = firing;
    let notice = match notified_at {
        _ if silenced => None,
        None => Some(Notice::Firing),
        Some(at) => (now.since(at) >= repeat).then_some(Notice::Repeat),
    };
    let notified_at = if notice.is_some() { Some(now) } else { notified_at };
    (State::Firing { id, starts_at, notified_at }, notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);
    const NEW: Uuid = Uuid::from_u128(2);
    const INACTIVE: State = State::Inactive;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    const fn pending(since: i64) -> State {
        State::Pending { since: at(since) }
    }

    fn firing(starts_at: i64, notified_at: Option<i64>) -> State {
        State::Firing { id: ID, starts_at: at(starts_at), notified_at: notified_at.map(at) }
    }

    /// A state with the id of a new alert.
    fn new(notified: bool) -> State {
        State::Firing { id: NEW, starts_at: at(100), notified_at: notified.then_some(at(100)) }
    }

    const fn resolved(seconds: i64, notified: bool) -> State {
        State::Resolved { id: ID, at: at(seconds), notified }
    }

    /// Steps at 100 s with a repeat interval of 50 s.
    fn at_100(state: State, input: Input, pending_for: u64, silenced: bool) -> (State, Option<Notice>) {
        let timing = Timing { pending_for: Duration::from_secs(pending_for), repeat: Duration::from_secs(50) };
        step(state, input, timing, silenced, at(100), NEW)
    }

    #[test]
    fn transition_table() {
        use Input::{Between, Breach, Clear, NoData};
        let (fires, repeats, resolves) = (Some(Notice::Firing), Some(Notice::Repeat), Some(Notice::Resolved));
        let table = [
            // state, input, pending for, silenced, next state, notice
            (INACTIVE, NoData, 0, false, INACTIVE, None),
            (INACTIVE, Clear, 0, false, INACTIVE, None),
            (INACTIVE, Between, 0, false, INACTIVE, None),
            (INACTIVE, Breach, 0, false, new(true), fires),
            (INACTIVE, Breach, 0, true, new(false), None),
            (INACTIVE, Breach, 10, false, pending(100), None),
            (INACTIVE, Breach, 10, true, pending(100), None),
            (pending(90), NoData, 10, false, pending(90), None),
            (pending(90), Clear, 10, false, INACTIVE, None),
            (pending(90), Between, 10, false, INACTIVE, None),
            (pending(91), Breach, 10, false, pending(91), None),
            (pending(90), Breach, 10, false, new(true), fires),
            (pending(90), Breach, 10, true, new(false), None),
            (firing(60, Some(60)), NoData, 0, false, firing(60, Some(60)), None),
            (firing(10, Some(10)), NoData, 0, false, firing(10, Some(10)), None),
            (firing(60, None), NoData, 0, false, firing(60, None), None),
            (firing(60, Some(60)), Breach, 0, false, firing(60, Some(60)), None),
            (firing(60, Some(60)), Between, 0, false, firing(60, Some(60)), None),
            (firing(10, Some(51)), Breach, 0, false, firing(10, Some(51)), None),
            (firing(10, Some(50)), Breach, 0, false, firing(10, Some(100)), repeats),
            (firing(10, Some(50)), Between, 0, false, firing(10, Some(100)), repeats),
            (firing(10, Some(50)), Breach, 0, true, firing(10, Some(50)), None),
            (firing(10, None), Breach, 0, true, firing(10, None), None),
            (firing(10, None), Breach, 0, false, firing(10, Some(100)), fires),
            (firing(10, None), Between, 0, false, firing(10, Some(100)), fires),
            (firing(10, Some(50)), Clear, 0, false, resolved(100, true), resolves),
            (firing(10, Some(50)), Clear, 0, true, resolved(100, true), resolves),
            (firing(10, None), Clear, 0, false, resolved(100, false), None),
            (firing(10, None), Clear, 0, true, resolved(100, false), None),
            (resolved(51, true), NoData, 0, false, resolved(51, true), None),
            (resolved(51, true), Clear, 0, false, resolved(51, true), None),
            (resolved(51, true), Between, 0, false, resolved(51, true), None),
            (resolved(50, true), Clear, 0, false, INACTIVE, None),
            (resolved(50, false), Between, 0, false, INACTIVE, None),
            (resolved(51, true), Breach, 0, false, new(true), fires),
            (resolved(51, true), Breach, 0, true, new(false), None),
            (resolved(51, true), Breach, 10, false, pending(100), None),
        ];
        for (state, input, pending_for, silenced, next, notice) in table {
            let case = format!("{state:?} {input:?} for {pending_for} s, silenced: {silenced}");
            assert_eq!(at_100(state, input, pending_for, silenced), (next, notice), "{case}");
        }
    }

    #[test]
    fn reading_is_compared_with_both_thresholds() {
        use Input::{Between, Breach, Clear, NoData};
        let limits = Limits { threshold: 10.0, clear_below: Some(5.0), min_count: 20 };
        let single = Limits { clear_below: None, ..limits };
        for (value, count, with_clear, without) in [
            (None, Some(20), NoData, NoData),
            (Some(10.1), Some(20), Breach, Breach),
            (Some(10.1), None, Breach, Breach),
            (Some(100.0), Some(19), Clear, Clear),
            (Some(10.0), Some(20), Between, Clear),
            (Some(5.0), Some(20), Between, Clear),
            (Some(4.9), Some(20), Clear, Clear),
        ] {
            assert_eq!(Input::of(value, count, &limits), with_clear, "{value:?} {count:?}");
            assert_eq!(Input::of(value, count, &single), without, "{value:?} {count:?} without clear threshold");
        }
    }

    #[test]
    fn clock_step_back_neither_fires_nor_repeats() {
        assert_eq!(at_100(pending(200), Input::Breach, 10, false), (pending(200), None));
        assert_eq!(at_100(firing(200, Some(200)), Input::Breach, 0, false), (firing(200, Some(200)), None));
    }

    #[test]
    fn stored_form_names_the_state() {
        let json = serde_json::to_value(firing(1, None)).expect("JSON");
        let expected = serde_json::json!({ "state": "firing", "id": ID, "startsAt": at(1), "notifiedAt": null });
        assert_eq!(json, expected);
        for state in [INACTIVE, pending(1), firing(1, Some(2)), resolved(3, true)] {
            let json = serde_json::to_value(state).expect("JSON");
            assert_eq!(json["state"], state.as_str());
            assert_eq!(serde_json::from_value::<State>(json).expect("a state"), state);
        }
    }
}
