//! The state of a worker that health checks read.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::sync::Mutex;

/// Whether a worker runs, and whether it stops.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Ticks with the loop of the worker's own thread. Ended before the start and after the drain.
    pub(crate) keeper: Pulse,
    /// Ticks with each heartbeat that the store recorded. Ended in a worker that sends none.
    pub(crate) heartbeats: Pulse,
    /// Fires when a stop is requested.
    pub(crate) stop_requested: CancellationToken,
}

/// The time of a task's last tick.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    pub(crate) fn tick(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Ends the pulse: the task stopped on purpose.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }

    /// Time since the last tick; none before the first and after the end.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.0.lock().map(|at| at.elapsed())
    }
}
