//! How many attempts may run: permits for the process and for each type. Must not know stores or handlers.

use std::sync::{
    Arc, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use async_endpoints_core::store;
use tokio::sync::Notify;

use crate::sync::Mutex;

pub(crate) struct SlotPool {
    total: u32,
    limits: Vec<u32>,
    used: Mutex<Used>,
    /// Woken when a permit is given back.
    wake: Arc<Notify>,
}

struct Used {
    busy: u32,
    leaked: u32,
    by_kind: Vec<u32>,
}

impl SlotPool {
    pub(super) fn new(total: u32, limits: Vec<u32>, wake: Arc<Notify>) -> Arc<Self> {
        let used = Used { busy: 0, leaked: 0, by_kind: vec![0; limits.len()] };
        Arc::new(Self { total, limits, used: Mutex::new(used), wake })
    }

    /// Free permits, in all and for each type. Only the claimer takes them, so they can but grow meanwhile.
    pub(super) fn free(&self) -> (u32, Vec<u32>) {
        let used = self.used();
        let free = self.total - used.busy.min(self.total);
        let of = |(limit, running): (&u32, &u32)| limit.saturating_sub(*running).min(free);
        (free, self.limits.iter().zip(&used.by_kind).map(of).collect())
    }

    pub(super) fn take(self: &Arc<Self>, kind: usize) -> Arc<Permit> {
        let mut used = self.used();
        used.busy += 1;
        used.by_kind[kind] += 1;
        Arc::new(Permit { slots: self.clone(), kind, leaked: AtomicBool::new(false) })
    }

    /// Attempts running, by type.
    pub(super) fn running(&self) -> Vec<(u32, u32)> {
        self.used().by_kind.iter().copied().zip(self.limits.iter().copied()).collect()
    }

    pub(crate) fn snapshot(&self) -> store::WorkerSlots {
        let used = self.used();
        store::WorkerSlots {
            busy: used.busy - used.leaked,
            idle: self.total - used.busy.min(self.total),
            leaked: used.leaked,
        }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock()
    }
}

/// The right to run one attempt; given back when the last holder is gone. A handler that cannot be stopped
/// holds on to it after its attempt was settled: then it counts as leaked.
pub(super) struct Permit {
    slots: Arc<SlotPool>,
    kind: usize,
    leaked: AtomicBool,
}

impl Permit {
    pub(super) fn mark_leaked(&self) {
        if !self.leaked.swap(true, Ordering::AcqRel) {
            self.slots.used().leaked += 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.slots.used();
        used.busy -= 1;
        used.by_kind[self.kind] -= 1;
        used.leaked -= u32::from(*self.leaked.get_mut());
        drop(used);
        self.slots.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_by_type_and_in_all() {
        let slots = SlotPool::new(3, vec![1, 3], Arc::default());
        assert_eq!(slots.free(), (3, vec![1, 3]));
        let first = slots.take(0);
        assert_eq!(slots.free(), (2, vec![0, 2]));
        let others = [slots.take(1), slots.take(1)];
        assert_eq!(slots.free(), (0, vec![0, 0]));
        drop(first);
        drop(others);
        assert_eq!(slots.free(), (3, vec![1, 3]));
    }

    #[test]
    fn a_leaked_permit_counts_until_its_last_holder_is_gone() {
        let slots = SlotPool::new(2, vec![2], Arc::default());
        let permit = slots.take(0);
        let thread = permit.clone();
        permit.mark_leaked();
        permit.mark_leaked();
        drop(permit);
        assert_eq!(slots.snapshot(), store::WorkerSlots { busy: 0, idle: 1, leaked: 1 });
        drop(thread);
        assert_eq!(slots.snapshot(), store::WorkerSlots { busy: 0, idle: 2, leaked: 0 });
    }
}
