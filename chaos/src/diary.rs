//! What was done, to whom, and when: by this the report tells a broken promise from what could not be helped.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::fault::Fault;

/// Before a promotion: as much of what was acknowledged may be lost.
const TAIL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Diary(Mutex<Pages>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pub(crate) happened: Vec<Happened>,
    /// Stops that did not end with exit code 0.
    pub(crate) bad_exits: Vec<String>,
    /// Killed or stopped, by process id.
    pub(crate) gone: HashMap<u32, Timestamp>,
    pub(crate) killed: HashMap<u32, Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) fault: Fault,
    /// None for what happens to all.
    pub(crate) process: Option<u32>,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    /// Whether nothing new happened until some seconds after it.
    pub(crate) alone: bool,
}

impl Diary {
    pub(crate) fn write(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    pub(crate) fn gone(&mut self, process: u32, killed: bool) {
        let now = Timestamp::now();
        self.gone.insert(process, now);
        if killed {
            self.killed.insert(process, now);
        }
    }

    /// Whether it was frozen, killed or stopped in that time.
    pub(crate) fn is_disturbed(&self, process: u32, from: Timestamp, until: Timestamp) -> bool {
        let left = self.gone.get(&process).is_some_and(|gone| *gone <= until);
        left || self.is_frozen(process, from, until)
    }

    pub(crate) fn is_frozen(&self, process: u32, from: Timestamp, until: Timestamp) -> bool {
        let frozen = |happened: &&Happened| matches!(happened.fault, Fault::Freeze(..));
        self.during(from, until).filter(frozen).any(|happened| happened.process == Some(process))
    }

    /// Whether the store was away from all in that time.
    pub(crate) fn is_outage(&self, from: Timestamp, until: Timestamp) -> bool {
        self.during(from, until).any(|happened| happened.fault.is_outage())
    }

    /// Whether what was acknowledged then may be lost by a promotion.
    pub(crate) fn is_tail(&self, at: Timestamp) -> bool {
        let promoted = self.happened.iter().filter(|happened| happened.fault == Fault::Promote);
        promoted.into_iter().any(|promoted| before(promoted.from, TAIL) <= at && at <= promoted.until)
    }

    fn during(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = &Happened> {
        self.happened.iter().filter(move |happened| happened.from <= until && from <= happened.until)
    }
}

pub(crate) fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(at)
}

pub(crate) fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}

/// From the one to the other; nothing if that is backwards.
pub(crate) fn between(from: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(from)).unwrap_or_default()
}
