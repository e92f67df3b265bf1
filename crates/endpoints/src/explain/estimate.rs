//! The position in the queue, and when the job starts.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    limits::AHEAD_COUNTED,
    store::{Histogram, MinuteStats},
};

use super::{
    Facts, QueuePosition, StartEstimate,
    replay::{Ahead, Pool, RunTimes},
    text::count,
};
use crate::capacity::Capacity;

/// Number of replays of a short queue.
const REPLAYS: u64 = 100;
/// Maximum number of jobs that are played. The rest of a longer queue is taken to start at the same rate.
const PLAYED: u64 = 2_000;
/// Maximum number of jobs in all replays together.
const PLAYED_IN_TOTAL: u64 = 20_000;
/// The minutes of statistics that the run times come from: as few as have this number of attempts.
const ATTEMPTS: u64 = 100;
/// Time between a free slot and the start of a job: a claim, of which the hint may be lost.
const CLAIM: Duration = Duration::from_millis(1_500);
/// The longest usual time between two attempts of one slot: the settlement of the first, and the claim of the second.
const TURN: Duration = Duration::from_millis(20);

/// The place of a runnable job in the queue of its type.
pub(super) fn position(facts: &Facts<'_>) -> Option<QueuePosition> {
    let is_waiting = matches!(facts.job.status, JobStatus::Queued | JobStatus::Scheduled);
    if !is_waiting || facts.due().is_some() {
        return None;
    }
    let queued = facts.of_type().map_or(0, |of_type| of_type.count(JobStatus::Queued));
    Some(match facts.job.ahead {
        Some(ahead) if ahead < AHEAD_COUNTED => QueuePosition { ahead, exact: true },
        Some(ahead) => {
            let later = arrivals(facts, &facts.job.name, facts.runnable_since().minute() + 1);
            QueuePosition { ahead: queued.saturating_sub(later).max(ahead), exact: false }
        }
        // A due job enters the queue with the next claim.
        None => QueuePosition { ahead: queued, exact: false },
    })
}

/// When a waiting job starts. `None` if no facts say.
pub(super) fn start(facts: &Facts<'_>) -> Option<StartEstimate> {
    if facts.pause.is_some() || facts.taking().is_empty() {
        return None;
    }
    match facts.due() {
        Some(due) => at_due_time(facts, due),
        None => in_queue(facts, position(facts)?),
    }
}

/// How long a runnable job waits on average. Takes far less time than [`start`]. `None` if no facts say.
pub(crate) fn expected_wait(facts: &Facts<'_>) -> Option<Duration> {
    let ahead = position(facts).filter(|_| facts.pause.is_none())?.ahead;
    let slots = Slots::of(facts)?;
    if slots.free() > ahead {
        return Some(Duration::ZERO);
    }
    let times = run_times(facts, |name| *name == facts.job.name);
    let mean = times.sum_micros.checked_div(times.count()).map(Duration::from_micros)?;
    Some(mean.mul_f64((ahead + 1 - slots.free()) as f64 / slots.limit as f64))
}

/// A job that is not due starts after its due time, as late as other jobs of its type did.
fn at_due_time(facts: &Facts<'_>, due: Timestamp) -> Option<StartEstimate> {
    let mut waits = Histogram::default();
    of_type(facts, &facts.job.name).for_each(|minute| waits.merge(&minute.queue_time));
    let wait = waits.quantile(0.95)?;
    let starts = count(waits.count(), "start");
    let basis = format!("the due time, and the queue times of {starts} of this type");
    Some(StartEstimate { from: due, to: due + wait + CLAIM, basis })
}

fn in_queue(facts: &Facts<'_>, position: QueuePosition) -> Option<StartEstimate> {
    let now = facts.now();
    let slots = Slots::of(facts)?;
    let others = slots.others.ahead(facts);
    let own = run_times(facts, |name| *name == facts.job.name);
    let Some(times) = RunTimes::of(&own) else {
        // Without run times, only a job with a free slot is sure to start.
        let is_free = slots.free() > position.ahead + others.1;
        let basis = "a free slot".to_owned();
        return is_free.then(|| StartEstimate { from: now, to: now + CLAIM, basis });
    };
    let known = facts.running.iter().map(|started| Some(now.since(*started)));
    let other_times = slots.others.run_times(facts);
    let pool = Pool {
        slots: slots.total,
        limit: slots.limit,
        running: known.chain(std::iter::repeat(None)).take(slots.running).collect(),
        others_running: slots.others.running,
        own: &times,
        others: other_times.as_ref().unwrap_or(&times),
    };
    let waits = replays(&pool, position.ahead, others);
    let [from, to] = [waits[waits.len() / 20], waits[waits.len() - 1 - waits.len() / 20]];
    let (ahead, attempts) = (position.ahead + others.1, own.count());
    // Few attempts may differ from those to come.
    let unsure = 1.0 + 1.0 / (attempts as f64).sqrt();
    let turns = TURN.mul_f64(ahead as f64 / slots.limit as f64);
    let (jobs, slots) = (count(ahead, "job"), count(slots.limit as u64, "slot"));
    let types = if others.1 > 0 { " of all types" } else { "" };
    let basis = format!("{jobs}{types} ahead, {slots} and the run times of {}", count(attempts, "attempt"));
    Some(StartEstimate { from: now + from.div_f64(unsure), to: now + to.mul_f64(unsure) + turns + CLAIM, basis })
}

/// The waits of all replays, in ascending order.
fn replays(pool: &Pool<'_>, ahead: u64, others: (u64, u64)) -> Vec<Duration> {
    let total = ahead + others.1;
    let stretch = (total as f64 / PLAYED as f64).max(1.0);
    let played = |jobs: u64| (jobs as f64 / stretch) as u64;
    let number = (PLAYED_IN_TOTAL / (played(total) + 1)).clamp(20, REPLAYS);
    // The same facts lead to the same estimate.
    let mut rng = fastrand::Rng::with_seed(0);
    let mut waits: Vec<Duration> = (0..number)
        .map(|_| {
            let ahead = Ahead { own: played(ahead), others: played(rng.u64(others.0..=others.1)) };
            pool.play(ahead, &mut rng).mul_f64(stretch)
        })
        .collect();
    waits.sort_unstable();
    waits
}

/// The slots that the jobs of a type can use.
struct Slots<'a> {
    total: usize,
    /// How many of them may run jobs of the type.
    limit: usize,
    /// Running attempts of the type.
    running: usize,
    others: Others<'a>,
}

impl<'a> Slots<'a> {
    /// `None` without slots for the type.
    fn of(facts: &Facts<'a>) -> Option<Self> {
        let taking = facts.taking();
        let (total, limit) = (sum(&taking, Capacity::slots), sum(&taking, Capacity::limit));
        // The store's number is newer than that of the heartbeats.
        let running = facts.of_type().map_or(0, |of_type| of_type.count(JobStatus::InProgress));
        let running = usize::try_from(running).unwrap_or(usize::MAX).min(limit);
        let mut others = Others::of(facts, &taking);
        others.running = others.running.min(total - running);
        (limit > 0).then_some(Self { total, limit, running, others })
    }

    fn free(&self) -> u64 {
        (self.total - self.running - self.others.running).min(self.limit - self.running) as u64
    }
}

/// Jobs of other types that use the same slots.
struct Others<'a> {
    names: Vec<&'a JobName>,
    /// Number of running attempts.
    running: usize,
}

impl<'a> Others<'a> {
    fn of(facts: &Facts<'a>, taking: &[Capacity<'a>]) -> Self {
        let all = taking.iter().flat_map(|capacity| &capacity.worker.info.types);
        let others: Vec<_> = all.filter(|of_type| of_type.name != facts.job.name).collect();
        let running = others.iter().map(|of_type| of_type.running as usize).sum();
        let mut names: Vec<_> = others.into_iter().map(|of_type| &of_type.name).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !facts.paused.contains(name));
        Self { names, running }
    }

    /// The least and the largest number of jobs that are ahead. Jobs of equal priority start in the order of their acceptance:
    /// those that came later are not ahead.
    fn ahead(&self, facts: &Facts<'_>) -> (u64, u64) {
        let of_name = |name: &JobName, since: i64| {
            let of_type = facts.stats.types.iter().find(|of_type| of_type.name == *name);
            let queued = of_type.map_or(0, |of_type| of_type.count(JobStatus::Queued));
            queued.saturating_sub(arrivals(facts, name, since))
        };
        let minute = facts.runnable_since().minute();
        let total = |since: i64| self.names.iter().map(|name| of_name(name, since)).sum();
        (total(minute), total(minute + 1))
    }

    fn run_times(&self, facts: &Facts<'_>) -> Option<RunTimes> {
        RunTimes::of(&run_times(facts, |name| self.names.contains(&name)))
    }
}

/// Number of jobs of a type that were accepted from a minute on.
fn arrivals(facts: &Facts<'_>, name: &JobName, since: i64) -> u64 {
    of_type(facts, name).filter(|minute| minute.minute >= since).map(|minute| minute.arrivals).sum()
}

/// The run times of the latest attempts.
fn run_times(facts: &Facts<'_>, is_wanted: impl Fn(&JobName) -> bool) -> Histogram {
    let mut times = Histogram::default();
    for minute in facts.minutes.iter().rev().filter(|minute| is_wanted(&minute.name)) {
        if times.count() >= ATTEMPTS {
            break;
        }
        times.merge(&minute.processing_time);
    }
    times
}

fn of_type<'a>(facts: &Facts<'a>, name: &JobName) -> impl Iterator<Item = &'a MinuteStats> {
    facts.minutes.iter().filter(move |minute| minute.name == *name)
}

fn sum<'a>(taking: &[Capacity<'a>], number: impl Fn(&Capacity<'a>) -> u32) -> usize {
    taking.iter().map(|capacity| number(capacity) as usize).sum()
}
