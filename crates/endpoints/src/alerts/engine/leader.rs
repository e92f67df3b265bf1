//! The leader: evaluates the rules in their interval, stores their state, then sends the notifications.
//!
//! A notification is in the store before it is sent, and leaves the store after it was sent. If the leader dies in between,
//! the next one sends it again with the same id.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{StoreError, Timestamp};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    super::{
        alert::Alert,
        document::{AlertDocument, Outgoing, Unusable},
        silence::{self, Silence},
    },
    Engine,
    copy::{LeaderCopy, Saved},
    delivery::{Deliveries, Ended, Permit},
    evaluate::Evaluation,
    refresh::Refresh,
    tenure::Tenure,
};
use crate::telemetry::events;

/// Pause after a failed evaluation or write.
const RETRY: Duration = Duration::from_secs(1);

/// Time limit of the last store calls of a leader that stops.
const LAST_CALLS: Duration = Duration::from_millis(1500);

/// Why a leader ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process stops.
    Stopped,
    /// Another process has the role or wrote the state.
    Lost,
    /// A newer release wrote the state.
    TooOld,
}

/// The running evaluation.
type Evaluating = AbortOnDropHandle<Result<Evaluation, StoreError>>;

pub(super) struct Leader {
    pub(super) engine: Arc<Engine>,
    pub(super) tenure: Arc<Tenure>,
    pub(super) copy: LeaderCopy,
    pub(super) deliveries: Deliveries,
    pub(super) silences: Vec<Silence>,
    /// The alert of an outage that was sent without being stored.
    pub(super) alone: Option<Alert>,
    refresh: Refresh,
    evaluating: Option<Evaluating>,
    /// When the next evaluation is due.
    due: Instant,
    /// When the copy may be written again after a failed write.
    save_at: Instant,
    /// A time of the store's clock, and when it was read.
    clock: (Timestamp, Instant),
}

impl Leader {
    /// Reads the state, and repeats that while the store fails. None if a newer release wrote it.
    pub(super) async fn begin(engine: &Arc<Engine>, tenure: &Arc<Tenure>) -> Option<Self> {
        loop {
            match Self::load(engine, tenure).await {
                Ok(Ok(leader)) => return Some(leader),
                Ok(Err(unusable)) => {
                    events::internal("the alert rules are not evaluated here", &unusable);
                    return None;
                }
                Err(error) => events::store_failed("alerts", &error),
            }
            tokio::time::sleep(RETRY.min(engine.lease)).await;
        }
    }

    async fn load(engine: &Arc<Engine>, tenure: &Arc<Tenure>) -> Result<Result<Self, Unusable>, StoreError> {
        let mut copy = match LeaderCopy::load(&*engine.store, &engine.id.to_string()).await? {
            Ok(copy) => copy,
            Err(unusable) => return Ok(Err(unusable)),
        };
        let now = silence::now(&*engine.store).await?;
        copy.document.failures.retain(|sender, _| engine.plan.routes.iter().any(|route| route.name == *sender));
        let interval = engine.plan.interval;
        // At most one interval, also if the store's clock was set back.
        let wait = copy.document.evaluated_at.map_or(Duration::ZERO, |at| (at + interval).since(now).min(interval));
        let read_at = Instant::now();
        Ok(Ok(Self {
            deliveries: Deliveries::new(engine.plan.routes.clone(), engine.meter.clone()),
            refresh: Refresh::new(&engine.plan.routes),
            engine: engine.clone(),
            tenure: tenure.clone(),
            copy,
            silences: Vec::new(),
            alone: None,
            evaluating: None,
            due: read_at + wait,
            save_at: read_at,
            clock: (now, read_at),
        }))
    }

    /// Leads until another process has the role or the process stops.
    pub(super) async fn lead(&mut self, stop: &CancellationToken) -> End {
        loop {
            if let Err(end) = self.tick().await {
                return end;
            }
            let next = self.next_tick();
            tokio::select! {
                () = stop.cancelled() => return End::Stopped,
                ended = self.deliveries.next() => self.delivered(ended),
                evaluated = finished(&mut self.evaluating) => self.evaluated(evaluated),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Does what is due: starts an evaluation, stores the state, starts to send.
    async fn tick(&mut self) -> Result<(), End> {
        if self.evaluating.is_none() && self.due <= Instant::now() {
            self.start_evaluation();
        }
        if self.tenure.failing_for().is_some_and(|time| time >= self.engine.lease * 2) {
            self.step_outage();
            // A write in an outage takes long to fail.
            self.send();
        }
        if self.copy.is_dirty && self.save_at <= Instant::now() {
            self.save().await?;
        }
        self.send();
        Ok(())
    }

    /// At least once in an interval of renewals, to see an outage.
    fn next_tick(&self) -> Instant {
        let mut next = Instant::now() + self.engine.candidate().pace();
        if self.evaluating.is_none() {
            next = next.min(self.due);
        }
        next
    }

    /// The current time of the store's clock, as far as this process knows.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.0 + self.clock.1.elapsed()
    }

    fn start_evaluation(&mut self) {
        let AlertDocument { rules, muted_at, .. } = &self.copy.document;
        let memories = rules.iter().map(|(name, state)| (name.clone(), state.memory.clone())).collect();
        let evaluation = self.engine.clone().evaluate(memories, *muted_at, self.is_muted());
        self.due = Instant::now() + self.engine.plan.interval;
        self.evaluating = Some(AbortOnDropHandle::new(tokio::spawn(evaluation)));
    }

    /// Applies an evaluation. A failed one is repeated soon.
    fn evaluated(&mut self, evaluated: Result<Evaluation, StoreError>) {
        match evaluated {
            Ok(evaluation) => {
                self.clock = (evaluation.now, Instant::now());
                self.save_at = Instant::now();
                self.step_all(evaluation);
            }
            Err(error) => {
                events::store_failed("alerts", &error);
                self.due = Instant::now() + RETRY.min(self.engine.plan.interval);
            }
        }
    }

    /// Writes the copy. A failed write is repeated soon.
    async fn save(&mut self) -> Result<(), End> {
        let store = self.engine.store.clone();
        let mut saved = self.copy.save(&*store, self.tenure.token()).await;
        if matches!(saved, Ok(Saved::Fenced)) && self.tenure.renew().await {
            // The role had ended during an outage, and no other process took it.
            saved = self.copy.save(&*store, self.tenure.token()).await;
        }
        match saved {
            Ok(Saved::Stored) => {
                self.alone = None;
                self.engine.saw(&self.copy.document);
                Ok(())
            }
            Ok(Saved::Overtaken | Saved::Fenced) => Err(End::Lost),
            Err(error) => {
                events::store_failed("alerts", &error);
                self.save_at = Instant::now() + RETRY.min(self.engine.lease);
                Ok(())
            }
        }
    }

    /// Sends stored notifications, and that of an outage.
    fn send(&mut self) {
        let now = self.now();
        let permit = Permit::WhileLeader(self.tenure.clone());
        for outgoing in &self.copy.document.outbox {
            if outgoing.is_stored {
                self.deliveries.start(outgoing, now, &permit);
            } else if self.alone.as_ref().is_some_and(|alert| alert.id == outgoing.alert.id) {
                self.deliveries.start(outgoing, now, &Permit::Always);
            }
        }
        self.refresh.send_due(&self.copy.document, now, &mut self.deliveries);
    }

    /// Removes a notification that was sent or given up.
    fn delivered(&mut self, ended: Ended) {
        let Some(delivered) = ended.notification else { return };
        let document = &mut self.copy.document;
        document.remove(delivered.id, &delivered.route);
        match delivered.failure {
            Some(reason) => drop(document.failures.insert(delivered.route, reason)),
            None => drop(document.failures.remove(&delivered.route)),
        }
        self.copy.is_dirty = true;
    }

    /// Waits for sends in progress, so that the next leader does not repeat them.
    pub(super) async fn last_sends(&mut self) {
        while let Some(ended) = self.deliveries.close().await {
            self.delivered(ended);
        }
    }

    /// Stores the state and gives the role up.
    pub(super) async fn resign(&mut self) {
        let last_calls = async {
            if self.copy.is_dirty {
                let _ = self.save().await;
            }
            self.engine.candidate().resign().await;
        };
        let _ = timeout(LAST_CALLS, last_calls).await;
    }

    /// Leaves what only this process knows to the next leader, after this one has lost the role.
    pub(super) async fn abandon(mut self) {
        // A notification may have been sent while a write waited for the store.
        while let Some(ended) = self.deliveries.next_ended() {
            self.delivered(ended);
        }
        // The next leader sends the others, which may be before the hand-over has ended.
        drop(self.deliveries);
        let Some(alert) = self.alone else { return };
        let mut outbox = self.copy.document.outbox.into_iter();
        let pending = outbox.find(|outgoing| outgoing.alert.id == alert.id);
        let sent = || Outgoing { id: alert.id, at: alert.starts_at, to: Vec::new(), is_stored: false, alert };
        self.engine.hand_over(pending.unwrap_or_else(sent)).await;
    }
}

/// Waits for the running evaluation. Never returns without one. Cancel safe.
async fn finished(evaluating: &mut Option<Evaluating>) -> Result<Evaluation, StoreError> {
    let Some(task) = evaluating else { return std::future::pending().await };
    let evaluated = task.await;
    *evaluating = None;
    evaluated.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
}
