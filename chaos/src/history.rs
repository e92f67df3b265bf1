//! The faults of a run with their times. The report uses them to excuse effects that a fault explains.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::fault::{Fault, Replication};

/// The promotion of an asynchronous standby may lose writes that were acknowledged within this time before it.
const FAILOVER_LOSS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct FaultLog(Mutex<FaultHistory>);

#[derive(Clone, Debug, Default)]
pub(crate) struct FaultHistory {
    pub(crate) events: Vec<FaultEvent>,
    /// Graceful stops with an exit code other than 0.
    pub(crate) bad_exits: Vec<String>,
    /// When processes were killed or stopped, by process id.
    pub(crate) gone: HashMap<u32, Timestamp>,
    pub(crate) killed: HashMap<u32, Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct FaultEvent {
    pub(crate) fault: Fault,
    /// `None` for faults that affect all processes.
    pub(crate) process: Option<u32>,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    /// Whether no other fault began until some seconds after this one.
    pub(crate) alone: bool,
}

impl FaultLog {
    pub(crate) fn lock(&self) -> MutexGuard<'_, FaultHistory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultHistory {
    pub(crate) fn gone(&mut self, process: u32, killed: bool) {
        let now = Timestamp::now();
        self.gone.insert(process, now);
        if killed {
            self.killed.insert(process, now);
        }
    }

    /// Whether the process was frozen, killed or stopped in that time.
    pub(crate) fn is_disturbed(&self, process: u32, from: Timestamp, until: Timestamp) -> bool {
        let is_gone = self.gone.get(&process).is_some_and(|gone| *gone <= until);
        is_gone || self.is_frozen(process, from, until)
    }

    pub(crate) fn is_frozen(&self, process: u32, from: Timestamp, until: Timestamp) -> bool {
        let frozen = |event: &&FaultEvent| matches!(event.fault, Fault::Freeze(..));
        self.during(from, until).filter(frozen).any(|event| event.process == Some(process))
    }

    /// Whether the store was unavailable to all processes in that time.
    pub(crate) fn is_outage(&self, from: Timestamp, until: Timestamp) -> bool {
        self.during(from, until).any(|event| event.fault.is_outage())
    }

    /// Whether a promotion may lose a write that was acknowledged at that time.
    pub(crate) fn is_lost_by_failover(&self, at: Timestamp) -> bool {
        const LOSSY: Fault = Fault::Promote(Replication::Asynchronous);
        let mut promotions = self.events.iter().filter(|event| event.fault == LOSSY);
        promotions.any(|promoted| before(promoted.from, FAILOVER_LOSS) <= at && at <= promoted.until)
    }

    fn during(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = &FaultEvent> {
        self.events.iter().filter(move |event| event.from <= until && from <= event.until)
    }
}

pub(crate) fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(at)
}

pub(crate) fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}

/// The time from `from` to `until`; zero if `until` is earlier.
pub(crate) fn between(from: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(from)).unwrap_or_default()
}
