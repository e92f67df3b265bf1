//! The role of the leader: how a process gets it and keeps it.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    Store, StoreError,
    store::{Role, RoleToken},
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::document::ALERTS;
use crate::{
    jitter,
    store_call::{STORE_TIMEOUT, limited},
    sync::Mutex,
};

/// Longest interval of renewals.
const PACE: Duration = Duration::from_secs(1);

/// Shortest pause before the role is asked for again.
const SHORTEST: Duration = Duration::from_millis(20);

/// How a process asks for the role.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: Uuid,
    pub(super) lease: Duration,
}

/// The time in which a process is leader.
pub(super) struct Tenure {
    candidate: Candidate,
    state: Mutex<TenureState>,
}

#[derive(Clone, Copy)]
struct TenureState {
    token: RoleToken,
    renewed_at: Instant,
    /// Since when no renewal succeeded.
    failing_since: Option<Instant>,
}

impl Candidate {
    /// Interval of renewals.
    pub(super) fn pace(&self) -> Duration {
        (self.lease / 4).min(PACE)
    }

    async fn ask(&self, ttl: Duration) -> Result<Role, StoreError> {
        limited(self.lease.min(STORE_TIMEOUT), self.store.role(ALERTS, self.id, ttl)).await
    }

    /// Asks for the role until this process gets it.
    ///
    /// After an outage of the store, the process asks one lease later, so that the last leader keeps the role: it knows what
    /// it notified during the outage.
    pub(super) async fn acquire(&self) -> Tenure {
        loop {
            let asked_at = Instant::now();
            match self.ask(self.lease).await {
                Ok(Role::Held(token)) => return Tenure::new(self.clone(), token, asked_at),
                Ok(Role::Other(left)) => sleep(left.clamp(SHORTEST, self.lease.max(SHORTEST))).await,
                Ok(Role::Resigned) => sleep(self.lease).await,
                Err(_) => {
                    self.store_answers().await;
                    sleep(self.lease).await;
                }
            }
        }
    }

    /// Waits for the end of an outage.
    async fn store_answers(&self) {
        loop {
            sleep(jitter::about(self.pace())).await;
            if limited(self.lease.min(STORE_TIMEOUT), self.store.document(ALERTS)).await.is_ok() {
                return;
            }
        }
    }

    /// Gives the role up. Without an answer, the role ends with its lease.
    pub(super) async fn resign(&self) {
        let _ = self.ask(Duration::ZERO).await;
    }
}

impl Tenure {
    fn new(candidate: Candidate, token: RoleToken, renewed_at: Instant) -> Self {
        Self { candidate, state: Mutex::new(TenureState { token, renewed_at, failing_since: None }) }
    }

    /// Renews the role until another process has it.
    pub(super) async fn keep(&self) {
        loop {
            sleep(self.candidate.pace()).await;
            if !self.renew().await {
                return;
            }
        }
    }

    /// Renews the role. Returns whether this process may still have it.
    pub(super) async fn renew(&self) -> bool {
        let asked_at = Instant::now();
        let answer = self.candidate.ask(self.candidate.lease).await;
        let mut state = self.state.lock();
        match answer {
            Ok(Role::Held(token)) => {
                *state = TenureState { token, renewed_at: asked_at, failing_since: None };
                true
            }
            Ok(Role::Other(_) | Role::Resigned) => false,
            Err(_) => {
                state.failing_since.get_or_insert(asked_at);
                true
            }
        }
    }

    pub(super) fn token(&self) -> RoleToken {
        self.state.lock().token
    }

    /// Whether no other process can have the role, as far as this process knows.
    pub(super) fn is_fresh(&self) -> bool {
        self.state.lock().renewed_at.elapsed() < self.candidate.lease
    }

    /// Returns once [`is_fresh`](Self::is_fresh).
    pub(super) async fn fresh(&self) {
        while !self.is_fresh() {
            sleep(self.candidate.pace()).await;
        }
    }

    /// For how long no renewal succeeded; none if the last one did.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        Some(self.state.lock().failing_since?.elapsed())
    }
}
