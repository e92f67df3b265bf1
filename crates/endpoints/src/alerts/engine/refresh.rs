//! Sends alerts again to receivers that want each one in an interval, such as Alertmanager.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        alert::Alert,
        document::{AlertDocument, RuleState},
        sender::Route,
        state::State,
    },
    delivery::Deliveries,
};

/// How long resolved alerts are sent again.
const RESOLVED: Duration = Duration::from_secs(5 * 60);

/// When each route wants its alerts again.
pub(super) struct Refresh {
    routes: Arc<[Route]>,
    /// In the order of the routes.
    due: Vec<Instant>,
}

impl Refresh {
    /// All routes are due at once, since the last leader may have stopped long ago.
    pub(super) fn new(routes: &Arc<[Route]>) -> Self {
        Self { routes: routes.clone(), due: vec![Instant::now(); routes.len()] }
    }

    /// Sends the notified alerts to the routes that want them now.
    pub(super) fn send_due(&mut self, document: &AlertDocument, now: Timestamp, deliveries: &mut Deliveries) {
        for (route, due) in self.routes.iter().zip(&mut self.due) {
            let Some(interval) = route.sender.refresh_interval() else { continue };
            if *due > Instant::now() {
                continue;
            }
            *due = Instant::now() + interval;
            for alert in document.rules.values().filter_map(|state| wanted(state, now)) {
                if route.wants(alert) && !is_pending(document, alert, route) {
                    deliveries.refresh(route, alert);
                }
            }
        }
    }
}

/// The alert of a rule that receivers want again.
fn wanted(state: &RuleState, now: Timestamp) -> Option<&Alert> {
    let is_wanted = match state.state {
        State::Firing { notified_at, .. } => notified_at.is_some(),
        State::Resolved { at, notified, .. } => notified && now.since(at) <= RESOLVED,
        State::Inactive | State::Pending { .. } => false,
    };
    state.alert.as_ref().filter(|_| is_wanted)
}

fn is_pending(document: &AlertDocument, alert: &Alert, route: &Route) -> bool {
    document.outbox.iter().any(|outgoing| outgoing.alert.id == alert.id && outgoing.to.contains(&route.name))
}
