//! The attempts that run in this process: why each should stop, and which task settles it.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use async_endpoints_core::store::{Attempt, Lease};
use tokio::{sync::Notify, task::AbortHandle};

use super::slots::Permit;
use crate::{
    cancellation::CancellationReason,
    context::AttemptInfo,
    job_type::{ABORT_GRACE, BLOCKED_GRACE},
    sync::Mutex,
    telemetry,
};

pub(super) struct RunningAttempt {
    pub(super) lease: Lease,
    /// The index of the job type among the worker's types.
    pub(super) type_index: usize,
    pub(super) info: Arc<AttemptInfo>,
    pub(super) retry_count: u32,
    pub(super) max_retries: u32,
    pub(super) started: Instant,
    held_until: Mutex<Instant>,
    settle_taken: AtomicBool,
    permit: Weak<Permit>,
    task: OnceLock<AbortHandle>,
}

impl RunningAttempt {
    pub(super) fn new(
        attempt: &Attempt,
        type_index: usize,
        info: AttemptInfo,
        held_until: Instant,
        permit: &Arc<Permit>,
    ) -> Self {
        Self {
            lease: attempt.lease,
            type_index,
            info: Arc::new(info),
            retry_count: attempt.retry_count,
            max_retries: attempt.max_retries,
            started: Instant::now(),
            held_until: Mutex::new(held_until),
            settle_taken: AtomicBool::new(false),
            permit: Arc::downgrade(permit),
            task: OnceLock::new(),
        }
    }

    /// Fires the attempt's token.
    pub(super) fn stop(&self, reason: CancellationReason) {
        self.info.cancellation.fire(reason);
    }

    /// Records a renewal of the lease.
    pub(super) fn hold_until(&self, end: Instant) {
        *self.held_until.lock() = end;
    }

    /// Whether the lease has expired by this process's clock. Another worker may run the job from then on.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= *self.held_until.lock()
    }

    /// Whether the attempt's own task should have settled it by now.
    pub(super) fn is_blocked(&self, now: Instant) -> bool {
        let stopped = self.info.cancellation.fired_at().unwrap_or(self.info.deadline);
        now > stopped + ABORT_GRACE + BLOCKED_GRACE
    }

    /// Sets the task that runs the handler.
    pub(super) fn set_task(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Drops the handler at its next await.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Whether the handler has been dropped.
    pub(super) fn is_dropped(&self) -> bool {
        self.permit.strong_count() == 0
    }

    /// Counts the slot as leaked until the handler returns.
    pub(super) fn mark_leaked(&self) {
        if let Some(permit) = self.permit.upgrade() {
            permit.mark_leaked();
        }
    }
}

/// All running attempts. The keeper renews the leases of the attempts in this table.
#[derive(Default)]
pub(super) struct RunningTable {
    running: Mutex<HashMap<Lease, Arc<RunningAttempt>>>,
    emptied: Notify,
}

impl RunningTable {
    pub(super) fn add(&self, running: Arc<RunningAttempt>) {
        self.running.lock().insert(running.lease, running);
    }

    pub(super) fn all(&self) -> Vec<Arc<RunningAttempt>> {
        self.running.lock().values().cloned().collect()
    }

    /// Waits until no attempt runs.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.running.lock().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

/// The right to settle an attempt, taken once.
///
/// Dropping the guard removes the attempt from the table, so that its lease is no longer renewed. If the attempt was not
/// settled, its lease expires and the job is recovered.
pub(super) struct SettleGuard {
    pub(super) running: Arc<RunningAttempt>,
    table: Arc<RunningTable>,
    /// Held until the settlement is stored, so that the number of unstored settlements is bounded by the slots.
    permit: Option<Arc<Permit>>,
}

impl SettleGuard {
    /// Returns `None` if another task has taken the guard of this attempt.
    pub(super) fn take(
        running: &Arc<RunningAttempt>,
        table: &Arc<RunningTable>,
        permit: Option<Arc<Permit>>,
    ) -> Option<Self> {
        let is_first = !running.settle_taken.swap(true, Ordering::AcqRel);
        is_first.then(|| Self { running: running.clone(), table: table.clone(), permit })
    }
}

impl Drop for SettleGuard {
    fn drop(&mut self) {
        // Does nothing if the store accepted the settlement.
        telemetry::lost(self.running.info.scope.context());
        // The permit first: a task that finds the table empty finds the slot free.
        self.permit = None;
        let mut running = self.table.running.lock();
        running.remove(&self.running.lease);
        if running.is_empty() {
            drop(running);
            self.table.emptied.notify_waiters();
        }
    }
}
