//! Lower bounds of the order numbers of queued jobs. Must not know how claims use them.
//!
//! A lane is the queue of one type and priority. Its first jobs are claimed and deleted, and their dead index entries stay until a
//! vacuum removes them, which no vacuum can while a transaction older than them is open. A claim that starts at a lower bound does not
//! read them.
//!
//! The bound is that of the last job claimed for the first time, less a margin for jobs whose transaction commits late. A job may
//! still be below it: its transaction took longer, or the server's clock was set back. A full claim, which has no bounds, finds it.
//! Full claims take at most a part of the time, so that claims stay fast while dead entries make full ones slow.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Priorities, and so lanes of a type.
pub(crate) const RANKS: usize = 10;

/// 100 ms in order numbers.
const MARGIN: i64 = 100 << 18;

/// The time between full claims, in durations of a full claim.
const FULL_EVERY: u32 = 20;

#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<i32, TypeLanes>>);

#[derive(Default)]
struct TypeLanes {
    from: [i64; RANKS],
    /// When the last full claim ended, and how long it took.
    last_full: Option<(Instant, Duration)>,
}

impl TypeLanes {
    fn needs_full_claim(&self) -> bool {
        self.last_full.is_none_or(|(at, took)| at.elapsed() >= took * FULL_EVERY)
    }
}

/// The bounds of a claim.
pub(crate) struct Bounds {
    /// One for each type and rank.
    pub(crate) froms: Vec<i64>,
    is_full: bool,
    began: Instant,
}

impl Lanes {
    /// The bounds of a claim of these types.
    pub(crate) fn bounds(&self, types: &[i32]) -> Bounds {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = types.iter().any(|of_type| lanes.entry(*of_type).or_default().needs_full_claim());
        let from = |of_type: &i32| {
            if is_full { [0; RANKS] } else { lanes.get(of_type).map_or([0; RANKS], |lanes| lanes.from) }
        };
        Bounds { froms: types.iter().flat_map(from).collect(), is_full, began: Instant::now() }
    }

    /// The bounds of types, one for each type and rank. Zero if this process does not claim the type.
    pub(crate) fn of(&self, types: &[i32]) -> Vec<i64> {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        types.iter().flat_map(|of_type| lanes.get(of_type).map_or([0; RANKS], |lanes| lanes.from)).collect()
    }

    /// All types that this process claims, and their bounds, one for each type and rank.
    pub(crate) fn all(&self) -> (Vec<i32>, Vec<i64>) {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut types, mut froms) = (Vec::new(), Vec::new());
        for (of_type, lanes) in lanes.iter() {
            types.push(*of_type);
            froms.extend(lanes.from);
        }
        (types, froms)
    }

    /// Records a claim: `first` has type, rank and order number of jobs that were claimed for the first time, in order.
    pub(crate) fn claimed(&self, bounds: &Bounds, types: &[i32], first: impl IntoIterator<Item = (i32, i16, i64)>) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bounds.is_full {
            let last_full = Some((Instant::now(), bounds.began.elapsed()));
            types.iter().for_each(|of_type| lanes.entry(*of_type).or_default().last_full = last_full);
        }
        let mut last = None;
        for (of_type, rank, ord) in first {
            // Only the first job of a lane: the claim has the order of ranks, so types alternate within a rank.
            let Some(from) = lanes.entry(of_type).or_default().from.get_mut(usize::try_from(rank).unwrap_or(RANKS))
            else {
                continue;
            };
            let seen: &mut Vec<(i32, i16)> = last.get_or_insert_default();
            if !seen.contains(&(of_type, rank)) {
                seen.push((of_type, rank));
                *from = ord - MARGIN;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_follows_the_first_job_of_each_lane() {
        let lanes = Lanes::default();
        let first = lanes.bounds(&[1, 2]);
        assert_eq!((first.froms.as_slice(), first.is_full), ([0; 20].as_slice(), true));
        // The full claim took an hour, so no other is due.
        let bounds = Bounds { began: Instant::now() - Duration::from_secs(3600), ..first };
        lanes.claimed(&bounds, &[1, 2], [(1, 5, MARGIN + 7), (2, 5, MARGIN + 9), (1, 5, MARGIN + 10)]);
        let next = lanes.bounds(&[1, 2]);
        let mut expected = [0; 20];
        (expected[5], expected[15]) = (7, 9);
        assert_eq!((next.froms.as_slice(), next.is_full), (expected.as_slice(), false));
        assert!(lanes.bounds(&[3]).is_full, "the first claim of a type");
    }
}
