//! Permits for running attempts, per process and per job type. Must not know stores or handlers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_endpoints_core::store;
use tokio::sync::Notify;

use crate::sync::Mutex;

pub(crate) struct SlotPool {
    total: u32,
    used: Mutex<Used>,
    /// Notified when a permit is freed.
    wake: Arc<Notify>,
}

struct Used {
    busy: u32,
    leaked: u32,
    by_type: Vec<u32>,
}

impl SlotPool {
    pub(super) fn new(total: u32, types: usize, wake: Arc<Notify>) -> Arc<Self> {
        let used = Used { busy: 0, leaked: 0, by_type: vec![0; types] };
        Arc::new(Self { total, used: Mutex::new(used), wake })
    }

    /// Free permits: in total and by type index, with a limit for each type. Only the claimer takes permits, so the numbers can
    /// only grow meanwhile.
    pub(super) fn free(&self, limits: impl Iterator<Item = u32>) -> (u32, Vec<u32>) {
        let used = self.used.lock();
        let free = self.total - used.busy.min(self.total);
        let of_type = |(limit, running): (u32, &u32)| limit.saturating_sub(*running).min(free);
        (free, limits.zip(&used.by_type).map(of_type).collect())
    }

    pub(super) fn take(self: &Arc<Self>, type_index: usize) -> Arc<Permit> {
        let mut used = self.used.lock();
        used.busy += 1;
        used.by_type[type_index] += 1;
        Arc::new(Permit { slots: self.clone(), type_index, leaked: AtomicBool::new(false) })
    }

    /// Running attempts by type index.
    pub(super) fn running(&self) -> Vec<u32> {
        self.used.lock().by_type.clone()
    }

    pub(crate) fn snapshot(&self) -> store::WorkerSlots {
        let used = self.used.lock();
        store::WorkerSlots {
            busy: used.busy - used.leaked,
            idle: self.total - used.busy.min(self.total),
            leaked: used.leaked,
        }
    }
}

/// The right to run one attempt, freed with its last clone. A handler that cannot be stopped keeps a clone after its
/// attempt was settled. The slot then counts as leaked.
pub(super) struct Permit {
    slots: Arc<SlotPool>,
    type_index: usize,
    leaked: AtomicBool,
}

impl Permit {
    pub(super) fn mark_leaked(&self) {
        if !self.leaked.swap(true, Ordering::AcqRel) {
            self.slots.used.lock().leaked += 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.slots.used.lock();
        used.busy -= 1;
        used.by_type[self.type_index] -= 1;
        used.leaked -= u32::from(*self.leaked.get_mut());
        drop(used);
        self.slots.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_in_total_and_by_type() {
        let slots = SlotPool::new(3, 2, Arc::default());
        let free = || slots.free([1, 3].into_iter());
        assert_eq!(free(), (3, vec![1, 3]));
        let first = slots.take(0);
        assert_eq!(free(), (2, vec![0, 2]));
        let others = [slots.take(1), slots.take(1)];
        assert_eq!(free(), (0, vec![0, 0]));
        assert_eq!(slots.running(), [1, 2]);
        drop(first);
        drop(others);
        assert_eq!(free(), (3, vec![1, 3]));
    }

    #[test]
    fn lower_limit_leaves_running_attempts() {
        let slots = SlotPool::new(3, 1, Arc::default());
        let running = [slots.take(0), slots.take(0)];
        for (limit, free) in [(3, 1), (2, 0), (1, 0), (0, 0)] {
            assert_eq!(slots.free([limit].into_iter()), (1, vec![free]), "limit {limit}");
        }
        drop(running);
    }

    #[test]
    fn leaked_permit_counts_until_last_clone_drops() {
        let slots = SlotPool::new(2, 1, Arc::default());
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
