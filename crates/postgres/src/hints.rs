//! Hints: to the streams of this process at once, and to other processes by NOTIFY, coalesced and outside of transactions that
//! work. Must not know jobs.

use async_endpoints_core::{
    JobId, JobName,
    store::Hint,
};
use tokio::sync::broadcast;

/// Hints that a stream buffers before it skips some and returns [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;

/// Publishes the hints of this process's calls.
pub(crate) struct Publisher {
    streams: broadcast::Sender<Hint>,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self { streams: broadcast::channel(HINTS_KEPT).0 }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Hint> {
        self.streams.subscribe()
    }

    /// Hints that jobs of these types became runnable, and that these jobs changed.
    pub(crate) fn publish<'n>(&self, work: impl IntoIterator<Item = &'n JobName>, changed: &[JobId]) {
        for name in work {
            // An error says that no stream is open.
            drop(self.streams.send(Hint::Work(name.clone())));
        }
        if !changed.is_empty() {
            drop(self.streams.send(Hint::Jobs(changed.into())));
        }
    }
}
