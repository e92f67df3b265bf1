//! Why and when the token of an attempt fired. Must not know workers or handlers.

use std::{sync::OnceLock, time::Instant};

use tokio_util::sync::CancellationToken;

/// Why an attempt should stop. It also decides what becomes of the job if the handler returns an error then.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancellationReason {
    /// A caller or an operator canceled the job. It ends Canceled.
    Canceled,
    /// The attempt reached its timeout. The job is retried by the rules of its type.
    TimedOut,
    /// The worker stops. The job is released and runs again, without using up a retry.
    Shutdown,
    /// The worker has lost the attempt's lease. Another worker may run the job already, and this attempt can write nothing.
    LeaseLost,
}

/// The token of an attempt, and why it fired. The first reason is kept.
#[derive(Debug, Default)]
pub(crate) struct Cancellation {
    token: CancellationToken,
    fired: OnceLock<(CancellationReason, Instant)>,
}

impl Cancellation {
    pub(crate) fn fire(&self, reason: CancellationReason) {
        let _ = self.fired.set((reason, Instant::now()));
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// None before the token fires, and if the handler fired it.
    pub(crate) fn reason(&self) -> Option<CancellationReason> {
        self.fired.get().map(|(reason, _)| *reason)
    }

    pub(crate) fn fired_at(&self) -> Option<Instant> {
        self.fired.get().map(|(_, at)| *at)
    }
}
