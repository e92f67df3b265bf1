//! Writes the ends of attempts down, all that finished together in one call.
//!
//! While the store cannot be reached, ends wait here and their leases are renewed: nothing that a handler did is
//! thrown away before the lease is. A settlement whose reply was lost is repeated; the store knows it again.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::{Outcome, Report, Settle, Settled, Store, StoreError},
};
use tokio::sync::{Mutex, mpsc};

use super::{
    backoff::Backoff,
    running::{Ending, Why},
    slots::Permit,
};
use crate::telemetry::events;

/// An end on its way to the store. Dropped, it lets the lease run out.
pub(super) struct Settling {
    pub(super) settle: Settle,
    pub(super) ending: Ending,
    /// Held until the end is written, so that unwritten ones cannot pile up.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Option<Arc<Permit>>,
}

pub(super) struct Settler {
    send: mpsc::UnboundedSender<Settling>,
    receive: Mutex<mpsc::UnboundedReceiver<Settling>>,
}

impl Settler {
    pub(super) fn new() -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        Self { send, receive: Mutex::new(receive) }
    }

    /// Bounded by the permits that the ends hold.
    pub(super) fn send(&self, settling: Settling) {
        let _ = self.send.send(settling);
    }

    pub(super) async fn run(&self, store: &dyn Store) {
        let mut receive = self.receive.lock().await;
        let mut batch = Vec::with_capacity(BATCH_JOBS);
        while receive.recv_many(&mut batch, BATCH_JOBS).await > 0 {
            while !batch.is_empty() {
                let rest = batch.split_off(fitting(&batch));
                settle(store, std::mem::replace(&mut batch, rest)).await;
            }
        }
    }
}

/// How many of the first fit into one call.
fn fitting(batch: &[Settling]) -> usize {
    let mut bytes = 0;
    let size = |settling: &Settling| match &settling.settle.outcome {
        Outcome::Completed { result } => result.len(),
        _ => 0,
    };
    let over = batch.iter().position(|settling| {
        bytes += size(settling);
        bytes > BATCH_BYTES
    });
    over.map_or(batch.len(), |over| over.max(1))
}

/// Settles a batch, however long that takes, giving up each end only when its lease is lost.
pub(super) async fn settle(store: &dyn Store, mut batch: Vec<Settling>) {
    let mut backoff = Backoff::default();
    while !batch.is_empty() {
        match try_settle(store, &batch).await {
            Ok(answers) => {
                let lost = answers.iter().filter(|answer| **answer == Settled::Lost).count();
                if lost > 0 {
                    events::settlements_refused(lost);
                }
                return;
            }
            Err(error) => {
                events::store_failed("settle", &error);
                tokio::time::sleep(backoff.next()).await;
                // Somebody else may run it by now. What it did is lost, as its lease was.
                batch.retain(|settling| settling.ending.running.why() != Some(Why::LeaseLost));
            }
        }
    }
}

/// One try to settle a batch, final progress first.
pub(super) async fn try_settle(store: &dyn Store, batch: &[Settling]) -> Result<Vec<Settled>, StoreError> {
    let reports: Vec<Report> = batch.iter().filter_map(|settling| last_report(settling)).collect();
    if !reports.is_empty() {
        store.report(&reports).await?;
    }
    let settles: Vec<Settle> = batch.iter().map(|settling| settling.settle.clone()).collect();
    store.settle(&settles).await
}

fn last_report(settling: &Settling) -> Option<Report> {
    let progress = settling.ending.running.info.progress.take_unsent()?;
    Some(Report { lease: settling.settle.lease, progress: Some(progress), logs: Vec::new() })
}

/// The longest that a try may take when the process is about to end.
pub(super) const LAST_TRY: Duration = Duration::from_secs(1);
