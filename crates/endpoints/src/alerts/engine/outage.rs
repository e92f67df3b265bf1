//! The alert of an outage that a leader sent while no other process could know it.
//!
//! The leader normally keeps its role and stores the alert. If it has lost the role, it reports the alert beside its own
//! values, and the next leader takes it over. This leader may be the same process.

use async_endpoints_core::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        document::Outgoing,
        state::{Notice, State},
    },
    Engine,
    leader::Leader,
    message, sampler,
};
use crate::telemetry::events;

/// An alert for the next leader.
pub(super) struct HandOver {
    outgoing: Outgoing,
    /// By then a leader has evaluated the rules.
    until: Instant,
}

impl Engine {
    /// Leaves the alert of an outage to the next leader.
    pub(super) async fn hand_over(&self, outgoing: Outgoing) {
        let until = Instant::now() + sampler::kept(self.plan.interval);
        *self.outage.lock() = Some(HandOver { outgoing, until });
        // At once: the next leader would send an alert of its own for the failed calls. The sampler repeats the report.
        if let Err(error) = self.report(true).await {
            events::store_failed("alert values", &error);
        }
    }

    /// The alert that this process leaves to the next leader.
    pub(super) fn handed_over(&self) -> Option<Outgoing> {
        let handed_over = self.outage.lock();
        handed_over.as_ref().filter(|alert| Instant::now() < alert.until).map(|alert| alert.outgoing.clone())
    }
}

impl Leader {
    /// Continues the alerts of outages that other leaders sent. Each is taken over once.
    pub(super) fn take_over(&mut self, outages: Vec<Outgoing>, now: Timestamp) {
        let ids = outages.iter().map(|outage| outage.alert.id).collect();
        let known = std::mem::replace(&mut self.copy.document.taken_over, ids);
        for outage in outages.into_iter().filter(|outage| !known.contains(&outage.alert.id)) {
            self.continue_alert(outage, now);
        }
    }

    fn continue_alert(&mut self, outage: Outgoing, now: Timestamp) {
        let document = &mut self.copy.document;
        let state = document.rules.entry(outage.alert.rule.clone()).or_default();
        if state.alert.as_ref().is_some_and(|alert| alert.id == outage.alert.id) {
            // The other leader did store it, and did not get the answer.
            return;
        }
        let alert = outage.alert.clone();
        if !outage.to.is_empty() {
            document.outbox.push(Outgoing { is_stored: false, ..outage });
        }
        if let State::Firing { .. } = state.state {
            // One of the two is enough.
            let resolved = message::resolved(&alert, state, now, &self.engine.origin());
            self.notify(resolved, Notice::Resolved, now);
        } else {
            state.state = State::Firing { id: alert.id, starts_at: alert.starts_at, notified_at: Some(now) };
            state.alert = Some(alert);
        }
    }
}
