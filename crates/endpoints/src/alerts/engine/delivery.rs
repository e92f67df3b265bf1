//! Deliveries: sends the notifications of the outbox, and repeats those that fail.
//!
//! The notifications of one alert to one route are sent one after the other, so that a resolve never overtakes its alert.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_endpoints_core::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::{
    super::{
        alert::Alert,
        document::Outgoing,
        sender::{Notification, Route, SendError},
    },
    send,
    tenure::Tenure,
};
use crate::telemetry::{AlertMeter, SendOutcome, events};

/// The pauses between attempts begin with this and double.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between attempts, unless the receiver asks for more.
const LAST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Longest pause that a receiver can ask for.
const LONGEST_REQUEST: Duration = Duration::from_secs(60 * 60);
/// Age at which a notification is given up.
const GIVEN_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// An alert and the name of a route.
type Lane = (Uuid, String);

/// The running sends of a leader. Dropping it aborts them.
pub(super) struct Deliveries {
    routes: Arc<[Route]>,
    meter: Arc<AlertMeter>,
    lanes: HashMap<Lane, AbortOnDropHandle<()>>,
    closing: CancellationToken,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
}

/// The end of a lane's work.
#[derive(Debug)]
pub(super) struct Ended {
    lane: Lane,
    /// The notification that is sent or given up; none after a refresh.
    pub(super) notification: Option<Delivered>,
}

/// A notification that a route got or never will.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) id: Uuid,
    pub(super) route: String,
    /// Why it was given up.
    pub(super) failure: Option<String>,
}

/// When a notification may be sent.
#[derive(Clone)]
pub(super) enum Permit {
    /// While no other process can be the leader.
    WhileLeader(Arc<Tenure>),
    /// At any time: no other process knows the notification.
    Always,
}

impl Permit {
    async fn granted(&self) {
        if let Self::WhileLeader(tenure) = self {
            tenure.fresh().await;
        }
    }
}

impl Deliveries {
    pub(super) fn new(routes: Arc<[Route]>, meter: Arc<AlertMeter>) -> Self {
        let (lanes, closing) = (HashMap::new(), CancellationToken::new());
        Self { routes, meter, lanes, closing, ended: mpsc::unbounded_channel() }
    }

    /// Starts to send a notification to its routes, except those to which another one of the same alert is being sent.
    pub(super) fn start(&mut self, outgoing: &Outgoing, now: Timestamp, permit: &Permit) {
        for name in &outgoing.to {
            let lane = (outgoing.alert.id, name.clone());
            if self.lanes.contains_key(&lane) {
                continue;
            }
            let sending = self.routes.iter().find(|route| route.name == *name).map(|route| Sending {
                route: route.clone(),
                notification: Arc::new(Notification { id: outgoing.id, alert: outgoing.alert.clone() }),
                until: Instant::now() + GIVEN_UP.saturating_sub(now.since(outgoing.at)),
                permit: permit.clone(),
            });
            let (meter, id) = (self.meter.clone(), outgoing.id);
            self.spawn(lane, move |closing, route| async move {
                let failure = match sending {
                    Some(sending) => sending.run(&meter, &closing).await?,
                    None => Some("this process has no sender of this name".to_owned()),
                };
                Some(Delivered { id, route, failure })
            });
        }
    }

    /// Sends an alert again to one route, unless a notification of it is being sent there.
    pub(super) fn refresh(&mut self, route: &Route, alert: &Alert) {
        let lane = (alert.id, route.name.clone());
        if self.lanes.contains_key(&lane) {
            return;
        }
        let (route, notification) = (route.clone(), Notification { id: Uuid::new_v4(), alert: alert.clone() });
        self.spawn(lane, move |_, _| async move {
            if let Err(error) = send::once(&route, Arc::new(notification)).await {
                events::alert_not_refreshed(&route.name, &error);
            }
            None
        });
    }

    fn spawn<F>(&mut self, lane: Lane, run: impl FnOnce(CancellationToken, String) -> F + Send + 'static)
    where
        F: Future<Output = Option<Delivered>> + Send,
    {
        let (ended, closing, key) = (self.ended.0.clone(), self.closing.clone(), lane.clone());
        let task = async move {
            let notification = run(closing, lane.1.clone()).await;
            // The receiver is gone if this process is not the leader any more.
            let _ = ended.send(Ended { lane, notification });
        };
        self.lanes.insert(key, AbortOnDropHandle::new(tokio::spawn(task)));
    }

    /// Waits for the end of a lane's work. Cancel safe.
    pub(super) async fn next(&mut self) -> Ended {
        match self.ended.1.recv().await {
            Some(ended) => self.removed(ended),
            None => std::future::pending().await,
        }
    }

    /// A lane's work that has ended and that [`next`](Self::next) has not returned yet.
    pub(super) fn next_ended(&mut self) -> Option<Ended> {
        let ended = self.ended.1.try_recv().ok()?;
        Some(self.removed(ended))
    }

    fn removed(&mut self, ended: Ended) -> Ended {
        self.lanes.remove(&ended.lane);
        ended
    }

    /// Ends all lanes after their attempt in progress. Returns notifications whose work ends meanwhile.
    pub(super) async fn close(&mut self) -> Option<Ended> {
        self.closing.cancel();
        if self.lanes.is_empty() { None } else { Some(self.next().await) }
    }
}

/// A notification on its way to one route.
pub(super) struct Sending {
    pub(super) route: Route,
    pub(super) notification: Arc<Notification>,
    /// When it is given up.
    pub(super) until: Instant,
    pub(super) permit: Permit,
}

impl Sending {
    /// Sends until the receiver has it or it is given up; the reason in that case. None if it is left to a later process.
    pub(super) async fn run(self, meter: &AlertMeter, closing: &CancellationToken) -> Option<Option<String>> {
        let kind = self.route.sender.kind();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => return None,
                () = self.permit.granted() => {}
            }
            let Err(error) = send::once(&self.route, self.notification.clone()).await else {
                meter.sent(kind, SendOutcome::Ok);
                return Some(None);
            };
            let wait = wait(&error, pause).filter(|wait| Instant::now() + *wait < self.until);
            events::alert_not_sent(&self.route.name, &self.notification.alert.rule, &error, wait);
            let Some(wait) = wait else {
                meter.sent(kind, SendOutcome::Failed);
                return Some(Some(error.to_string()));
            };
            meter.sent(kind, SendOutcome::Retried);
            pause = (pause * 2).min(LAST_PAUSE);
            tokio::select! {
                () = closing.cancelled() => return None,
                () = sleep(wait) => {}
            }
        }
    }
}

/// The pause before the next attempt; none after a permanent error.
fn wait(error: &SendError, pause: Duration) -> Option<Duration> {
    match error {
        SendError::Temporary { retry_after: None, .. } => Some(pause),
        SendError::Temporary { retry_after: Some(time), .. } => Some((*time).clamp(FIRST_PAUSE, LONGEST_REQUEST)),
        SendError::Permanent(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receiver_may_ask_for_a_pause_up_to_an_hour() {
        let asked =
            |seconds| SendError::Temporary { reason: String::new(), retry_after: Some(Duration::from_secs(seconds)) };
        let waits = [SendError::temporary(""), asked(0), asked(90), asked(90_000), SendError::Permanent(String::new())];
        let waits = waits.map(|error| wait(&error, Duration::from_secs(4)).map(|wait| wait.as_secs()));
        assert_eq!(waits, [Some(4), Some(1), Some(90), Some(3600), None]);
    }
}
