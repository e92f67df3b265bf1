//! Writes settlements, all that are pending in one store call.
//!
//! While the store is unavailable, settlements wait here and the keeper renews their leases. A settlement whose reply was
//! lost is sent again, and the store recognizes the repeat.

use std::time::{Duration, Instant};

use async_endpoints_core::{
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::{Settled, Settlement, Store},
};
use tokio::sync::{Mutex, mpsc};

use super::running::SettleGuard;
use crate::{backoff::Backoff, store_call::limited, telemetry::events};

/// The settlement of an attempt that has ended. Dropping it unsettled lets the lease expire.
pub(super) struct PendingSettlement {
    pub(super) settlement: Settlement,
    pub(super) guard: SettleGuard,
}

/// The queue of pending settlements and the task that writes them.
pub(super) struct Settler {
    send: mpsc::UnboundedSender<PendingSettlement>,
    receive: Mutex<mpsc::UnboundedReceiver<PendingSettlement>>,
}

impl Settler {
    pub(super) fn new() -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        Self { send, receive: Mutex::new(receive) }
    }

    /// Queues a settlement. The queue is bounded by the permits that the settlements hold.
    pub(super) fn send(&self, pending: PendingSettlement) {
        let _ = self.send.send(pending);
    }

    pub(super) async fn run(&self, store: &dyn Store, limit: Duration) {
        let mut receive = self.receive.lock().await;
        let mut pending = Vec::with_capacity(BATCH_JOBS);
        while receive.recv_many(&mut pending, BATCH_JOBS).await > 0 {
            settle(store, std::mem::take(&mut pending), limit).await;
        }
    }
}

/// Settles attempts in calls of bounded size, each limited to `limit`, and repeats calls that fail.
///
/// Gives up a settlement when its lease has expired or when the store refuses it permanently.
pub(super) async fn settle(store: &dyn Store, mut pending: Vec<PendingSettlement>, limit: Duration) {
    while !pending.is_empty() {
        let batch = pending.drain(..batch_len(&pending)).collect();
        settle_batch(store, batch, limit).await;
    }
}

/// The number of settlements at the start of `pending` that fit into one call.
fn batch_len(pending: &[PendingSettlement]) -> usize {
    let mut bytes = 0;
    let over = pending.iter().take(BATCH_JOBS).position(|pending| {
        bytes += pending.settlement.bytes();
        bytes > BATCH_BYTES
    });
    over.map_or(pending.len().min(BATCH_JOBS), |over| over.max(1))
}

async fn settle_batch(store: &dyn Store, batch: Vec<PendingSettlement>, limit: Duration) {
    let (mut settlements, mut guards): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|pending| (pending.settlement, pending.guard)).unzip();
    let mut backoff = Backoff::default();
    while !guards.is_empty() {
        let error = match limited(limit, store.settle(&settlements)).await {
            Ok(answers) => return events::settlements_refused(count_lost(&answers)),
            Err(error) => error,
        };
        events::store_failed("settle", &error);
        let unsettled = settlements.into_iter().zip(guards);
        if !error.is_transient() {
            return settle_one_by_one(store, unsettled, limit).await;
        }
        tokio::time::sleep(backoff.next()).await;
        let now = Instant::now();
        (settlements, guards) = unsettled.filter(|(_, guard)| !guard.running.is_expired(now)).unzip();
    }
}

/// Settles the attempts of a refused batch alone, so that one settlement that cannot be stored does not affect others.
async fn settle_one_by_one(
    store: &dyn Store,
    unsettled: impl ExactSizeIterator<Item = (Settlement, SettleGuard)>,
    limit: Duration,
) {
    if unsettled.len() == 1 {
        return;
    }
    for (settlement, guard) in unsettled {
        Box::pin(settle_batch(store, vec![PendingSettlement { settlement, guard }], limit)).await;
    }
}

fn count_lost(answers: &[Settled]) -> usize {
    answers.iter().filter(|answer| **answer == Settled::Lost).count()
}
