//! Attempts that this process claimed and did not end yet, as the telemetry sees them: what their ends are measured from.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::{
    Timestamp,
    store::{Attempt, Lease},
};
use foldhash::HashMap;

use super::{
    exemplars::{Cause, SpanRef},
    instruments::OfType,
};

/// How often those that are no longer renewed are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// An attempt that was claimed.
pub(crate) struct Started {
    pub(crate) of_type: Arc<OfType>,
    pub(crate) cause: Cause,
    at: Instant,
    /// How old the job was then, by the store's clock.
    age: Duration,
    /// When its handler ended, if it has.
    ended: Option<Instant>,
    /// When its lease was last asked to be renewed.
    seen: Instant,
}

impl Started {
    pub(crate) fn new(of_type: Arc<OfType>, attempt: &Attempt, store_now: Timestamp, at: Instant) -> Self {
        let span = attempt.trace.as_ref().and_then(SpanRef::of);
        let cause = Cause { job: attempt.lease.job, span };
        Self { of_type, cause, at, age: store_now.since(attempt.created_at), ended: None, seen: at }
    }

    /// How long its handler ran, and how old its job is; `now` where the handler was not seen to end.
    pub(crate) fn times(&self, now: Instant) -> (Duration, Duration) {
        let ran = self.ended.unwrap_or(now).saturating_duration_since(self.at);
        (ran, self.age + now.saturating_duration_since(self.at))
    }
}

/// All of them.
pub(crate) struct Running(Mutex<Table>);

struct Table {
    started: HashMap<Lease, Started>,
    swept: Instant,
}

impl Default for Running {
    fn default() -> Self {
        Self(Mutex::new(Table { started: HashMap::default(), swept: Instant::now() }))
    }
}

impl Running {
    /// Of a list that is made: whoever ends one meanwhile does not wait for that.
    pub(crate) fn start(&self, attempts: Vec<(Lease, Started)>) {
        self.lock().started.extend(attempts);
    }

    /// Its handler has ended: what comes until the store knows is not its doing.
    pub(crate) fn handler_ended(&self, lease: Lease) {
        if let Some(started) = self.lock().started.get_mut(&lease) {
            started.ended.get_or_insert_with(Instant::now);
        }
    }

    /// Takes these out, in their order; none for one that is not there, as its end was counted before.
    pub(crate) fn take(&self, leases: impl Iterator<Item = Lease>) -> Vec<Option<Started>> {
        let mut table = self.lock();
        leases.map(|lease| table.started.remove(&lease)).collect()
    }

    /// Their leases are held; those that nobody has renewed for `forgotten` are somebody else's by now.
    pub(crate) fn renewed(&self, leases: &[Lease], forgotten: Duration) {
        let (mut table, now) = (self.lock(), Instant::now());
        for lease in leases {
            if let Some(started) = table.started.get_mut(lease) {
                started.seen = now;
            }
        }
        if now.saturating_duration_since(table.swept) >= SWEEP {
            table.swept = now;
            table.started.retain(|_, started| now.saturating_duration_since(started.seen) < forgotten);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
