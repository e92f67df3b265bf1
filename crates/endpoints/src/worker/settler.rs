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
    running::{Ending, Running, Why},
    slots::Permit,
};
use crate::telemetry::events;

/// An end on its way to the store.
pub(super) struct Settling {
    pub(super) settle: Settle,
    pub(super) held: Held,
}

/// What an end holds on to until it is written. Dropped before, it lets the lease run out.
pub(super) struct Held {
    pub(super) ending: Ending,
    /// Held as well, so that unwritten ends cannot pile up.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Option<Arc<Permit>>,
}

/// Ends that go to the store in one call.
#[derive(Default)]
pub(super) struct Batch {
    settles: Vec<Settle>,
    held: Vec<Held>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn push(&mut self, settling: Settling) {
        self.settles.push(settling.settle);
        self.held.push(settling.held);
    }

    /// One try to settle, final progress first.
    pub(super) async fn try_settle(&self, store: &dyn Store) -> Result<Vec<Settled>, StoreError> {
        let told = self.held.iter().filter_map(|held| report(&held.ending.running));
        let reports: Vec<Report> = told.collect();
        if !reports.is_empty() {
            store.report(&reports).await?;
        }
        store.settle(&self.settles).await
    }

    /// Settles, however long that takes, giving up each end only when its lease is lost.
    async fn settle(mut self, store: &dyn Store) {
        let mut backoff = Backoff::default();
        while !self.is_empty() {
            match self.try_settle(store).await {
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
                    self.give_up_lost();
                }
            }
        }
    }

    /// Somebody else may run these by now. What was done here is lost, as the lease was.
    fn give_up_lost(&mut self) {
        let kept = |held: &Held| held.ending.running.why() != Some(Why::LeaseLost);
        let mut keep = self.held.iter().map(kept).collect::<Vec<_>>().into_iter();
        self.settles.retain(|_| keep.next().unwrap_or(true));
        self.held.retain(kept);
    }
}

impl FromIterator<Settling> for Batch {
    fn from_iter<I: IntoIterator<Item = Settling>>(settlings: I) -> Self {
        let settlings = settlings.into_iter();
        let (some, _) = settlings.size_hint();
        let mut batch = Self { settles: Vec::with_capacity(some), held: Vec::with_capacity(some) };
        settlings.for_each(|settling| batch.push(settling));
        batch
    }
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
        let mut ended = Vec::with_capacity(BATCH_JOBS);
        while receive.recv_many(&mut ended, BATCH_JOBS).await > 0 {
            while !ended.is_empty() {
                let batch: Batch = ended.drain(..fitting(&ended)).collect();
                batch.settle(store).await;
            }
        }
    }
}

/// How many of the first fit into one call.
fn fitting(ended: &[Settling]) -> usize {
    let mut bytes = 0;
    let over = ended.iter().position(|settling| {
        if let Outcome::Completed { result } = &settling.settle.outcome {
            bytes += result.len();
        }
        bytes > BATCH_BYTES
    });
    over.map_or(ended.len(), |over| over.max(1))
}

/// What an attempt told and nobody stored yet.
pub(super) fn report(running: &Running) -> Option<Report> {
    let progress = running.info.progress.take_unsent()?;
    Some(Report { lease: running.lease, progress: Some(progress), logs: Vec::new() })
}

/// The longest that a try may take when the process is about to end.
pub(super) const LAST_TRY: Duration = Duration::from_secs(1);
