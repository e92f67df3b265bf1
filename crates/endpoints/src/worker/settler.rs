//! Writes the ends of attempts down, all that finished together in one call.
//!
//! While the store cannot be reached, ends wait here and their leases are renewed: nothing that a handler did is
//! thrown away before the lease is. A settlement whose reply was lost is repeated; the store knows it again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::{Fenced, Outcome, Report, Settled, Settlement, Store, StoreError},
};
use tokio::sync::{Mutex, MutexGuard, mpsc};

use super::{
    backoff::Backoff,
    running::{Ending, Running, Why},
    slots::Permit,
};
use crate::{store_call::limited, telemetry::events};

/// How long an end waits for progress that is on its way to the store, to send the last of it after that.
const TURN: Duration = Duration::from_millis(250);

/// An end on its way to the store.
pub(super) struct Settling {
    pub(super) settle: Settlement,
    pub(super) held: Held,
}

/// What an end holds on to until it is written. Dropped before, it lets the lease run out.
pub(super) struct Held {
    /// Held as well, so that unwritten ends cannot pile up. Given back first: who sees the attempt gone from the
    /// table finds its permit free.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Option<Arc<Permit>>,
    pub(super) ending: Ending,
}

/// Attempts' ends on their way from where they happen to the one task that writes them.
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

    pub(super) async fn run(&self, store: &dyn Store, limit: Duration) {
        let mut receive = self.receive.lock().await;
        let mut ended = Vec::with_capacity(BATCH_JOBS);
        while receive.recv_many(&mut ended, BATCH_JOBS).await > 0 {
            end(store, std::mem::take(&mut ended), limit).await;
        }
    }
}

/// The one way to end attempts: in calls of bounded size that each end within `limit`, however often it takes. An end
/// is given up only when its lease has run out, or when the store refuses it for good; then its lease runs out.
pub(super) async fn end(store: &dyn Store, mut ended: Vec<Settling>, limit: Duration) {
    while !ended.is_empty() {
        let batch: Batch = ended.drain(..fitting(&ended)).collect();
        batch.end(store, limit).await;
    }
}

/// How many of the first fit into one call.
fn fitting(ended: &[Settling]) -> usize {
    let mut bytes = 0;
    let over = ended.iter().take(BATCH_JOBS).position(|settling| {
        if let Outcome::Completed { result } = &settling.settle.outcome {
            bytes += result.len();
        }
        bytes > BATCH_BYTES
    });
    over.map_or(ended.len().min(BATCH_JOBS), |over| over.max(1))
}

/// Ends that go to the store in one call: as it takes them, and beside it what they hold.
struct Batch {
    settles: Vec<Settlement>,
    held: Vec<Held>,
}

impl Batch {
    async fn end(mut self, store: &dyn Store, limit: Duration) {
        let mut backoff = Backoff::default();
        while !self.held.is_empty() {
            self.report(store, limit).await;
            match limited(limit, store.settle(&self.settles)).await {
                Ok(answers) => return events::settlements_refused(lost(&answers)),
                Err(error) => {
                    events::store_failed("settle", &error);
                    if !error.is_transient() {
                        return self.end_one_by_one(store, limit).await;
                    }
                    tokio::time::sleep(backoff.next()).await;
                    // What was done under a lease that ran out is lost, as the lease was. One that the store calls lost is
                    // not: it may have been ended by the very call whose reply was lost.
                    let now = Instant::now();
                    self = self.into_iter().filter(|one| !one.held.ending.running.is_expired(now)).collect();
                }
            }
        }
    }

    /// Something among them cannot be stored: it must not take the others with it.
    async fn end_one_by_one(self, store: &dyn Store, limit: Duration) {
        if self.held.len() == 1 {
            return;
        }
        for one in self.into_iter() {
            Box::pin(Self::from_iter([one]).end(store, limit)).await;
        }
    }

    /// Final progress. A store that refuses it may still take the end.
    async fn report(&self, store: &dyn Store, limit: Duration) {
        let mut told = Vec::new();
        let until = Instant::now() + TURN;
        for held in &self.held {
            told.extend(Told::last_by(&held.ending.running, until).await);
        }
        if let Err(error) = report(store, &told, limit).await {
            events::store_failed("report", &error);
        }
    }

    fn into_iter(self) -> impl Iterator<Item = Settling> {
        self.settles.into_iter().zip(self.held).map(|(settle, held)| Settling { settle, held })
    }
}

impl FromIterator<Settling> for Batch {
    fn from_iter<I: IntoIterator<Item = Settling>>(ended: I) -> Self {
        let (settles, held) = ended.into_iter().map(|settling| (settling.settle, settling.held)).unzip();
        Self { settles, held }
    }
}

fn lost(answers: &[Settled]) -> usize {
    answers.iter().filter(|answer| **answer == Settled::Lost).count()
}

/// Progress that a running attempt told and nobody stored yet.
pub(super) struct Told<'a> {
    pub(super) running: &'a Running,
    number: u64,
    report: Report,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Told<'a> {
    /// Of an attempt that goes on. None also where it ended and its end is about to send it.
    pub(super) fn by(running: &'a Running) -> Option<Self> {
        Self::in_turn(running, running.info.progress.turn().try_lock().ok()?)
    }

    /// Of an attempt that has ended: after a call that is under way for it, which could else come last. None if that takes
    /// too long: threads may be blocked that it needs, and the end is worth more.
    async fn last_by(running: &'a Running, until: Instant) -> Option<Self> {
        running.info.progress.unstored()?;
        let turn = running.info.progress.turn().lock();
        Self::in_turn(running, tokio::time::timeout_at(until.into(), turn).await.ok()?)
    }

    fn in_turn(running: &'a Running, turn: MutexGuard<'a, ()>) -> Option<Self> {
        let (number, progress) = running.info.progress.unstored()?;
        let report = Report { lease: running.lease, progress: Some(progress), logs: Vec::new() };
        Some(Self { running, number, report, _turn: turn })
    }
}

/// Stores progress, and remembers what is stored; a lost lease stops its handler.
pub(super) async fn report(store: &dyn Store, told: &[Told<'_>], limit: Duration) -> Result<(), StoreError> {
    if told.is_empty() {
        return Ok(());
    }
    let reports: Vec<Report> = told.iter().map(|told| told.report.clone()).collect();
    let answers = limited(limit, store.report(&reports)).await?;
    for (told, answer) in told.iter().zip(answers) {
        match answer {
            Fenced::Applied => told.running.info.progress.stored(told.number),
            Fenced::Lost => told.running.stop(Why::LeaseLost),
        }
    }
    Ok(())
}
