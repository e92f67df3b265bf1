//! Plays a queue with random run times, to find out when its last job starts.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use async_endpoints_core::store::Histogram;

/// Number of run times that stand for a histogram.
const SAMPLES: u32 = 200;

/// Run times in microseconds, in ascending order, each as likely as the others.
pub(super) struct RunTimes(Vec<u64>);

impl RunTimes {
    /// `None` without measurements.
    pub(super) fn of(histogram: &Histogram) -> Option<Self> {
        let quantile = |number: u32| histogram.quantile((f64::from(number) + 0.5) / f64::from(SAMPLES));
        let times: Option<Vec<_>> = (0..SAMPLES).map(quantile).collect();
        Some(Self(times?.into_iter().map(micros).collect()))
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> u64 {
        self.0[rng.usize(..self.0.len())]
    }

    /// The rest of a run that has lasted for `elapsed`.
    fn rest(&self, elapsed: Option<u64>, rng: &mut fastrand::Rng) -> u64 {
        let Some(elapsed) = elapsed else {
            let time = self.draw(rng);
            return rng.u64(..=time);
        };
        let longer = &self.0[self.0.partition_point(|time| *time <= elapsed)..];
        // A run that is longer than all measured ones goes on for up to as long again.
        if longer.is_empty() { rng.u64(..=elapsed) } else { longer[rng.usize(..longer.len())] - elapsed }
    }
}

/// The slots that a queue shares, and what runs in them.
pub(super) struct Pool<'a> {
    /// Slots of all workers that take jobs of the type.
    pub(super) slots: usize,
    /// How many of them may run jobs of the type.
    pub(super) limit: usize,
    /// For how long each running job of the type has run; `None` if that is not known.
    pub(super) running: Vec<Option<Duration>>,
    /// Number of running jobs of other types.
    pub(super) others_running: usize,
    /// Run times of the type.
    pub(super) own: &'a RunTimes,
    /// Run times of other types.
    pub(super) others: &'a RunTimes,
}

/// The jobs that start before a job.
#[derive(Copy, Clone)]
pub(super) struct Ahead {
    /// Of its type.
    pub(super) own: u64,
    /// Of other types.
    pub(super) others: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Own,
    Other,
}

impl Pool<'_> {
    /// Draws run times and returns the time until the job behind the jobs `ahead` starts.
    pub(super) fn play(&self, ahead: Ahead, rng: &mut fastrand::Rng) -> Duration {
        let own = self.running.iter().map(|elapsed| (self.own.rest(elapsed.map(micros), rng), Kind::Own));
        let mut ends: BinaryHeap<_> = own.map(Reverse).collect();
        ends.extend((0..self.others_running).map(|_| Reverse((self.others.rest(None, rng), Kind::Other))));
        let (mut own_running, mut now, mut left) = (self.running.len(), 0, ahead);
        loop {
            while ends.len() < self.slots {
                let may_own = own_running < self.limit;
                // Jobs of other types are spread evenly among those of the type.
                let is_other = left.others > 0 && (!may_own || left.others * (ahead.own + 1) > left.own * ahead.others);
                match (is_other, left.own) {
                    (true, _) => {
                        left.others -= 1;
                        ends.push(Reverse((now + self.others.draw(rng), Kind::Other)));
                    }
                    (false, _) if !may_own => break,
                    (false, 0) => return Duration::from_micros(now),
                    (false, _) => {
                        left.own -= 1;
                        own_running += 1;
                        ends.push(Reverse((now + self.own.draw(rng), Kind::Own)));
                    }
                }
            }
            let Some(Reverse((end, kind))) = ends.pop() else { return Duration::from_micros(now) };
            now = end;
            own_running -= usize::from(kind == Kind::Own);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
