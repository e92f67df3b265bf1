//! Observable gauges: the store's statistics and the worker's slots.

use std::sync::Arc;

use async_endpoints_core::{
    JobName,
    store::{Stats, TypeStats, WorkerSlots},
};
use async_endpoints_telemetry::{
    Attachment, Instrument,
    opentelemetry::{KeyValue, metrics::AsyncInstrument},
};

use super::{
    catalogue as c,
    instruments::{Instruments, OTHER},
};
use crate::stuck;

/// Returns the store's statistics; none without recent ones.
type ReadStats = Arc<dyn Fn() -> Option<Arc<Stats>> + Send + Sync>;

/// Whether an operator paused a type.
type IsPaused = Arc<dyn Fn(&JobName) -> bool + Send + Sync>;

/// Values of the label `state`, in the order of `JobStatus::ALL`.
const STATES: [&str; 6] = ["queued", "scheduled", "in_progress", "completed", "failed", "canceled"];

/// Registers the gauges. They have no values while the closures return none.
pub(crate) fn register(
    attachment: &Attachment,
    instruments: &Arc<Instruments>,
    store: &'static str,
    stats: ReadStats,
    is_paused: IsPaused,
    worker_slots: impl Fn() -> Option<WorkerSlots> + Send + Sync + 'static,
) {
    let fleet = Fleet { attachment, stats, is_paused, instruments };
    fleet.jobs();
    fleet.by_type(&c::OLDEST_QUEUED_AGE, |row| row.oldest_queued);
    fleet.by_type(&c::OLDEST_RUNNING_AGE, |row| row.oldest_running);
    fleet.by_type(&c::STUCK, |row| row.stuck as f64);
    fleet.by_type(&c::PAUSED, |row| f64::from(u8::from(row.is_paused)));
    fleet.by_type(&c::WORKERS, |row| row.workers as f64);
    fleet.of_store(&c::QUARANTINED, store, |stats| stats.quarantined);
    fleet.of_store(&c::REPAIRED, store, |stats| stats.repaired);
    slots(attachment, worker_slots);
}

/// Values of one job type, or of all types without own series.
#[derive(Debug, Default, PartialEq)]
struct Row {
    counts: [u64; 6],
    oldest_queued: f64,
    oldest_running: f64,
    stuck: u64,
    is_paused: bool,
    workers: usize,
}

impl Row {
    fn of(of_type: &TypeStats, stats: &Stats, is_paused: &IsPaused) -> Self {
        let age = |since: Option<_>| since.map_or(0.0, |since| stats.now.since(since).as_secs_f64());
        Self {
            counts: of_type.counts,
            oldest_queued: age(of_type.oldest_runnable),
            oldest_running: age(of_type.oldest_running),
            stuck: stuck::count(of_type, &stats.workers),
            is_paused: is_paused(&of_type.name),
            workers: stats.workers.iter().filter(|worker| worker.runs(&of_type.name)).count(),
        }
    }

    /// Adds another type. The number of workers is the smallest of all types with queued jobs, because workers of one type
    /// cannot run jobs of another.
    fn merged(mut self, other: &Self) -> Self {
        let workers = match (self.counts[0], other.counts[0]) {
            (1.., 1..) => self.workers.min(other.workers),
            (1.., 0) => self.workers,
            (0, 1..) => other.workers,
            (0, 0) => self.workers.max(other.workers),
        };
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, more)| *mine += more);
        self.oldest_queued = self.oldest_queued.max(other.oldest_queued);
        self.oldest_running = self.oldest_running.max(other.oldest_running);
        self.stuck += other.stuck;
        self.is_paused &= other.is_paused;
        self.workers = workers;
        self
    }
}

/// One row per declared type, whether the store knows it or not, and one for all other types.
fn rows(stats: &Stats, instruments: &Instruments, is_paused: &IsPaused) -> Vec<(KeyValue, Row)> {
    let label = |name: &str| KeyValue::new("job_type", name.to_owned());
    let known = |name: &JobName| stats.types.iter().find(|of_type| of_type.name == *name);
    let declared = instruments.names().map(|name| {
        let without_jobs = || Row { is_paused: is_paused(name), ..Row::default() };
        let row = known(name).map_or_else(without_jobs, |of_type| Row::of(of_type, stats, is_paused));
        (label(name.as_str()), row)
    });
    let mut rows: Vec<_> = declared.collect();
    let others = stats.types.iter().filter(|of_type| !instruments.is_declared(&of_type.name));
    let others = others.map(|of_type| Row::of(of_type, stats, is_paused)).reduce(|all, row| all.merged(&row));
    rows.extend(others.map(|other| (label(OTHER), other)));
    rows
}

struct Fleet<'a> {
    attachment: &'a Attachment,
    stats: ReadStats,
    is_paused: IsPaused,
    instruments: &'a Arc<Instruments>,
}

impl Fleet<'_> {
    fn jobs(&self) {
        let is_paused = self.is_paused.clone();
        self.observe(&c::JOBS, move |gauge, stats, instruments| {
            for (name, row) in rows(stats, instruments, &is_paused) {
                for (count, state) in row.counts.iter().zip(STATES) {
                    gauge.observe(*count as f64, &[name.clone(), KeyValue::new("state", state)]);
                }
            }
        });
    }

    fn by_type(&self, instrument: &Instrument, value: impl Fn(&Row) -> f64 + Send + Sync + 'static) {
        let is_paused = self.is_paused.clone();
        self.observe(instrument, move |gauge, stats, instruments| {
            for (name, row) in rows(stats, instruments, &is_paused) {
                gauge.observe(value(&row), &[name]);
            }
        });
    }

    fn of_store(
        &self,
        instrument: &Instrument,
        store: &'static str,
        value: impl Fn(&Stats) -> u64 + Send + Sync + 'static,
    ) {
        self.observe(instrument, move |gauge, stats, _| {
            gauge.observe(value(stats) as f64, &[KeyValue::new("store", store)]);
        });
    }

    /// Registers a gauge over the store's statistics.
    fn observe(
        &self,
        instrument: &Instrument,
        observe: impl Fn(&dyn AsyncInstrument<f64>, &Stats, &Instruments) + Send + Sync + 'static,
    ) {
        let (stats, instruments) = (self.stats.clone(), self.instruments.clone());
        self.attachment.gauge(instrument, move |gauge| {
            if let Some(stats) = stats() {
                observe(gauge, &stats, &instruments);
            }
        });
    }
}

fn slots(attachment: &Attachment, worker_slots: impl Fn() -> Option<WorkerSlots> + Send + Sync + 'static) {
    attachment.gauge(&c::SLOTS, move |gauge| {
        let Some(slots) = worker_slots() else { return };
        for (count, state) in [(slots.busy, "busy"), (slots.idle, "idle"), (slots.leaked, "leaked")] {
            gauge.observe(f64::from(count), &[KeyValue::new("state", state)]);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_endpoints_core::{
        Timestamp,
        store::{LiveWorker, TypeCapacity, WorkerId, WorkerInfo},
    };
    use async_endpoints_testkit::jobs;
    use uuid::Uuid;

    use super::*;
    use crate::telemetry::Telemetry;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn name(name: &str) -> JobName {
        JobName::new(name).expect("a name")
    }

    fn of_type(of: &str, queued: u64, ages: [u64; 2]) -> TypeStats {
        let [oldest_runnable, oldest_running] = ages.map(|age| Some(NOW.before(Duration::from_secs(age))));
        TypeStats {
            name: name(of),
            counts: [queued, 2, 3, 4, 5, 6],
            never_started: 0,
            oldest_runnable,
            oldest_running,
            slow: 90,
            overdue: 3,
            stale: 10,
            unrecovered: 2,
        }
    }

    /// A worker of these types.
    fn worker(types: &[&str]) -> LiveWorker {
        let types = types.iter().map(|of| TypeCapacity { name: name(of), running: 0, limit: 1 }).collect();
        let info = WorkerInfo { types, ..jobs::worker(WorkerId(Uuid::new_v4())) };
        LiveWorker { info, last_heartbeat_at: NOW }
    }

    #[test]
    fn undeclared_types_share_a_row() {
        let telemetry = Telemetry::builder().build().expect("telemetry");
        let declared = ["Idle", "Taken"].map(name);
        let attachment = telemetry.attach(c::CATALOGUE).expect("the only attachment");
        let instruments = Instruments::new(&attachment, "memory", declared.iter().map(|name| (name, &[][..])));
        let types = [("Busy", 0, [7, 8]), ("Left", 20, [70, 8]), ("Rare", 1, [7, 80]), ("Taken", 1, [7, 8])];
        let stats = Stats {
            now: NOW,
            types: types.map(|(of, queued, ages)| of_type(of, queued, ages)).into(),
            workers: vec![worker(&["Taken", "Busy"]), worker(&["Taken", "Busy", "Rare"])],
            ..Stats::default()
        };
        let is_paused: IsPaused = Arc::new(|name| ["Idle", "Rare"].contains(&name.as_str()));
        let mut rows: Vec<(String, Row)> = rows(&stats, &instruments, &is_paused)
            .into_iter()
            .map(|(label, row)| (label.value.to_string(), row))
            .collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let idle = Row { is_paused: true, ..Row::default() };
        let counts = [1, 2, 3, 4, 5, 6];
        let taken = Row { counts, oldest_queued: 7.0, oldest_running: 8.0, stuck: 3, is_paused: false, workers: 2 };
        // Left has ten stuck jobs and no worker. The workers of Busy and Rare do not change that.
        let counts = [21, 6, 9, 12, 15, 18];
        let other = Row { counts, oldest_queued: 70.0, oldest_running: 80.0, stuck: 19, is_paused: false, workers: 0 };
        let expected = [("Idle", idle), ("Taken", taken), (OTHER, other)];
        assert_eq!(rows, expected.map(|(label, row)| (label.to_owned(), row)));
    }
}
