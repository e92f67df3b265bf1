//! The attempts that run in this process: why each should stop, and who may end it.

use std::{
    collections::HashMap,
    sync::{
        Arc, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints_core::store::Lease;
use tokio::{sync::Notify, task::AbortHandle};

use super::slots::Permit;
use crate::{context::AttemptInfo, sync::Mutex};

/// How long a handler may go on after its token fired.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long after that the keeper ends an attempt whose own task does not: its thread is blocked.
const SLACK: Duration = Duration::from_secs(2);

/// How long after its timeout an attempt is over, whatever its handler does.
pub(crate) const LATEST_END: Duration = Duration::from_secs(GRACE.as_secs() + SLACK.as_secs());

/// Why a token fired; the first reason stays.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A caller asked to cancel the job.
    Canceled,
    /// The attempt took too long.
    TimedOut,
    /// The lease is somebody else's, or could not be renewed for its whole length.
    LeaseLost,
    /// The worker stops.
    Shutdown,
}

pub(super) struct Running {
    pub(super) lease: Lease,
    /// Its type's place among the worker's.
    pub(super) kind: usize,
    pub(super) info: Arc<AttemptInfo>,
    pub(super) retry_count: u32,
    pub(super) max_retries: u32,
    pub(super) started: Instant,
    stopped: OnceLock<(Why, Instant)>,
    held_until: Mutex<Instant>,
    ended: AtomicBool,
    permit: Weak<Permit>,
    task: OnceLock<AbortHandle>,
}

impl Running {
    pub(super) fn new(
        attempt: &async_endpoints_core::store::Attempt,
        kind: usize,
        info: AttemptInfo,
        held_until: Instant,
        permit: &Arc<Permit>,
    ) -> Self {
        Self {
            lease: attempt.lease,
            kind,
            info: Arc::new(info),
            retry_count: attempt.retry_count,
            max_retries: attempt.max_retries,
            started: Instant::now(),
            stopped: OnceLock::new(),
            held_until: Mutex::new(held_until),
            ended: AtomicBool::new(false),
            permit: Arc::downgrade(permit),
            task: OnceLock::new(),
        }
    }

    /// Fires the token.
    pub(super) fn stop(&self, why: Why) {
        let _ = self.stopped.set((why, Instant::now()));
        self.info.cancellation.cancel();
    }

    pub(super) fn why(&self) -> Option<Why> {
        self.stopped.get().map(|(why, _)| *why)
    }

    /// Its lease was renewed.
    pub(super) fn hold_until(&self, end: Instant) {
        *self.held_until.lock() = end;
    }

    /// Whether its lease has run out as far as this process knows: another worker may run the job from then on.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= *self.held_until.lock()
    }

    /// Whether its own task should have ended it by now.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let stopped = self.stopped.get().map_or(self.info.deadline, |(_, at)| *at);
        now > stopped + GRACE + SLACK
    }

    /// The task that runs it.
    pub(super) fn set_task(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Drops the handler at its next await.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Whether nothing runs of it any more.
    pub(super) fn is_gone(&self) -> bool {
        self.permit.strong_count() == 0
    }

    /// The slot stays taken by a handler that cannot be stopped, if it still is.
    pub(super) fn mark_leaked(&self) -> bool {
        self.permit.upgrade().map(|permit| permit.mark_leaked()).is_some()
    }
}

/// All running attempts; their leases are renewed for as long as they are here.
#[derive(Default)]
pub(super) struct Table {
    running: Mutex<HashMap<Lease, Arc<Running>>>,
    emptied: Notify,
}

impl Table {
    pub(super) fn add(&self, running: Arc<Running>) {
        self.running().insert(running.lease, running);
    }

    pub(super) fn all(&self) -> Vec<Arc<Running>> {
        self.running().values().cloned().collect()
    }

    /// Waits until nothing runs.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.running().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Lease, Arc<Running>>> {
        self.running.lock()
    }
}

/// The right to end an attempt: given once. When it is dropped, settled or not, the lease is renewed no more,
/// so that whatever goes wrong with an attempt, its job is recovered.
pub(super) struct Ending {
    pub(super) running: Arc<Running>,
    table: Arc<Table>,
}

impl Ending {
    pub(super) fn of(running: &Arc<Running>, table: &Arc<Table>) -> Option<Self> {
        let first = !running.ended.swap(true, Ordering::AcqRel);
        first.then(|| Self { running: running.clone(), table: table.clone() })
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut running = self.table.running();
        running.remove(&self.running.lease);
        if running.is_empty() {
            drop(running);
            self.table.emptied.notify_waiters();
        }
    }
}
