//! Simulates queues in virtual time, and compares estimated starts with the true ones.

use std::{collections::VecDeque, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus, JobView, Timestamp,
    store::{LiveWorker, MinuteStats, Stats, TypeCapacity, TypeStats, WorkerId, WorkerInfo, WorkerSlots},
};
use async_endpoints_testkit::jobs::{self, name};
use uuid::Uuid;

use super::{Facts, StartEstimate, Viewer, explain};

/// Jobs of all scenarios together.
const JOBS: usize = 500;
const SECOND: u64 = 1_000_000;
/// The present at the begin of a simulation, in microseconds.
const START: u64 = 1_000_000 * 60 * SECOND;

/// How long a job of a type runs, in seconds.
#[derive(Copy, Clone, Debug)]
enum Runs {
    Always(f64),
    Exponential(f64),
    /// One in ten jobs takes the second time, the others the first.
    OneInTen(f64, f64),
    /// e to the power of a number around the first, with this deviation: a few jobs take very long.
    LogNormal(f64, f64),
}

impl Runs {
    fn draw(self, rng: &mut fastrand::Rng) -> u64 {
        let seconds = match self {
            Self::Always(seconds) => seconds,
            Self::Exponential(mean) => -mean * (1.0 - rng.f64()).ln(),
            Self::OneInTen(most, some) => {
                if rng.u8(..10) == 0 {
                    some
                } else {
                    most
                }
            }
            Self::LogNormal(middle, deviation) => {
                let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
                (middle.ln() + deviation * normal).exp()
            }
        };
        (seconds * SECOND as f64) as u64
    }
}

/// How jobs arrive.
#[derive(Copy, Clone, Debug)]
enum Arrives {
    /// At random, so many in a second.
    AtRandom(f64),
    /// So many at once, with a pause of so many seconds.
    InBursts(u32, f64),
}

#[derive(Copy, Clone, Debug)]
struct Scenario {
    arrives: Arrives,
    /// Run times of type A, whose jobs are estimated.
    runs: Runs,
    /// Run times of type B, and the share of its jobs.
    other: Option<(Runs, f64)>,
    slots: u32,
    /// How many slots may run jobs of type A.
    limit: u32,
}

const fn scenario(arrives: Arrives, runs: Runs, slots: u32) -> Scenario {
    Scenario { arrives, runs, other: None, slots, limit: slots }
}

const SCENARIOS: [Scenario; 10] = [
    scenario(Arrives::AtRandom(4.2), Runs::Exponential(2.0), 8),
    scenario(Arrives::AtRandom(4.0), Runs::Always(2.0), 8),
    scenario(Arrives::AtRandom(3.0), Runs::OneInTen(0.5, 20.0), 8),
    scenario(Arrives::AtRandom(0.8), Runs::LogNormal(3.0, 1.0), 4),
    scenario(Arrives::AtRandom(60.0), Runs::Exponential(0.25), 16),
    scenario(Arrives::InBursts(60, 40.0), Runs::Exponential(4.0), 8),
    scenario(Arrives::InBursts(40, 180.0), Runs::Always(30.0), 8),
    scenario(Arrives::InBursts(200, 20.0), Runs::LogNormal(0.5, 0.5), 8),
    Scenario {
        other: Some((Runs::Exponential(6.0), 0.4)),
        ..scenario(Arrives::InBursts(50, 60.0), Runs::Exponential(2.0), 4)
    },
    Scenario {
        limit: 2,
        other: Some((Runs::Always(1.0), 0.5)),
        ..scenario(Arrives::AtRandom(2.2), Runs::Exponential(1.5), 6)
    },
];

/// A job that waits or runs.
#[derive(Copy, Clone)]
struct SimJob {
    number: usize,
    is_own: bool,
    accepted: u64,
    started: u64,
    ends: u64,
}

/// The simulated service: a queue, slots, and the statistics of its store.
struct Service {
    scenario: Scenario,
    rng: fastrand::Rng,
    now: u64,
    queue: VecDeque<SimJob>,
    running: Vec<SimJob>,
    minutes: Vec<MinuteStats>,
    /// The last heartbeat, which is up to a second old.
    worker: LiveWorker,
    starts: Vec<Option<u64>>,
}

impl Service {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let info = jobs::worker(WorkerId(Uuid::from_u128(7)));
        let worker = LiveWorker { info, last_heartbeat_at: time(START) };
        let mut service = Self {
            scenario,
            rng: fastrand::Rng::with_seed(seed),
            now: START,
            queue: VecDeque::new(),
            running: Vec::new(),
            minutes: Vec::new(),
            worker,
            starts: Vec::new(),
        };
        service.send_heartbeat();
        service
    }

    /// Lets time pass until `until`: attempts end, jobs start, and the worker sends a heartbeat each second.
    fn pass(&mut self, until: u64) {
        loop {
            let end = self.running.iter().map(|job| job.ends).min().unwrap_or(u64::MAX);
            let heartbeat = self.worker.last_heartbeat_at.as_micros().unsigned_abs() + SECOND;
            let next = end.min(heartbeat);
            if next > until {
                break;
            }
            self.now = next;
            if next == heartbeat {
                self.send_heartbeat();
            } else if let Some(at) = self.running.iter().position(|job| job.ends == end) {
                let ended = self.running.swap_remove(at);
                self.minute(ended.is_own).processing_time.record(Duration::from_micros(end - ended.started));
                self.start_jobs();
            }
        }
        self.now = until;
    }

    fn send_heartbeat(&mut self) {
        let count = |is_own: bool| self.running.iter().filter(|job| job.is_own == is_own).count() as u32;
        let (own, others) = (count(true), count(false));
        let Scenario { slots, limit, .. } = self.scenario;
        let mut types = vec![TypeCapacity { name: name("A"), running: own, limit }];
        if self.scenario.other.is_some() {
            types.push(TypeCapacity { name: name("B"), running: others, limit: slots });
        }
        let slots = WorkerSlots { busy: own + others, idle: slots - own - others, leaked: 0 };
        self.worker.info = WorkerInfo { slots, types, ..self.worker.info.clone() };
        self.worker.last_heartbeat_at = time(self.now);
    }

    fn start_jobs(&mut self) {
        while self.running.len() < self.scenario.slots as usize {
            let own = self.running.iter().filter(|job| job.is_own).count();
            let may_start = |job: &SimJob| !job.is_own || own < self.scenario.limit as usize;
            let Some(mut job) = self.queue.iter().position(may_start).and_then(|at| self.queue.remove(at)) else {
                break;
            };
            job.started = self.now;
            let runs = self.scenario.other.filter(|_| !job.is_own).map_or(self.scenario.runs, |(runs, _)| runs);
            job.ends = self.now + runs.draw(&mut self.rng);
            self.starts[job.number] = Some(self.now);
            let waited = Duration::from_micros(self.now - job.accepted);
            self.minute(job.is_own).queue_time.record(waited);
            self.running.push(job);
        }
    }

    /// The minute bucket of a type.
    fn minute(&mut self, is_own: bool) -> &mut MinuteStats {
        let (minute, name) = (time(self.now).minute(), of(is_own));
        let known = self.minutes.iter().rposition(|bucket| bucket.minute == minute && bucket.name == name);
        let at = known.unwrap_or_else(|| {
            self.minutes.push(MinuteStats::new(minute, name));
            self.minutes.len() - 1
        });
        &mut self.minutes[at]
    }

    /// Accepts a job. Returns its number and, if it is of type A and waits, its estimate where one is wanted.
    fn accept(&mut self, is_wanted: bool) -> (usize, Option<StartEstimate>) {
        let is_own = self.scenario.other.is_none_or(|(_, share)| self.rng.f64() >= share);
        let number = self.starts.len();
        let ahead = self.queue.iter().filter(|job| job.is_own).count() as u64;
        self.starts.push(None);
        self.minute(is_own).arrivals += 1;
        self.queue.push_back(SimJob { number, is_own, accepted: self.now, started: 0, ends: 0 });
        self.start_jobs();
        let waits = is_own && self.starts[number].is_none();
        (number, (waits && is_wanted).then(|| self.estimate(ahead)).flatten())
    }

    fn estimate(&self, ahead: u64) -> Option<StartEstimate> {
        let now = time(self.now);
        let view = jobs::job("A", Duration::from_secs(60)).view(now, 1, Some(ahead));
        let job = JobView { status: JobStatus::Queued, ..view };
        let types = [true, false].map(|is_own| self.counts(is_own)).to_vec();
        let stats = Stats { now, types, workers: vec![self.worker.clone()], ..Stats::default() };
        let mut running: Vec<u64> = self.running.iter().filter(|job| job.is_own).map(|job| job.started).collect();
        running.sort_unstable();
        let running: Vec<_> = running.into_iter().map(time).collect();
        let (minutes, lease) = (self.minutes.as_slice(), Duration::from_secs(8));
        let facts = Facts {
            job: &job,
            stats: &stats,
            minutes,
            running: &running,
            pause: None,
            per_process: None,
            paused: Vec::new(),
            lease,
            timeout: None,
            viewer: Viewer::Caller,
        };
        explain(&facts).estimate
    }

    fn counts(&self, is_own: bool) -> TypeStats {
        let queued = self.queue.iter().filter(|job| job.is_own == is_own).count() as u64;
        let running = self.running.iter().filter(|job| job.is_own == is_own).count() as u64;
        TypeStats {
            name: of(is_own),
            counts: [queued, 0, running, 0, 0, 0],
            never_started: 0,
            oldest_runnable: None,
            oldest_running: None,
            slow: 0,
            overdue: 0,
            stale: 0,
            unrecovered: 0,
        }
    }
}

fn of(is_own: bool) -> JobName {
    name(if is_own { "A" } else { "B" })
}

fn time(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros.cast_signed())
}

/// What became of the estimates of one scenario.
struct Outcome {
    /// Estimates that cover the true start.
    covered: usize,
    /// For each estimate: the true wait and the width of the estimate, in seconds.
    waits: Vec<(f64, f64)>,
}

/// Runs a scenario for 5 minutes, then until so many waiting jobs have estimates.
fn simulate(scenario: Scenario, jobs: usize, seed: u64) -> Outcome {
    let mut service = Service::new(scenario, seed);
    let mut estimates = Vec::new();
    let warm = START + 5 * 60 * SECOND;
    while estimates.len() < jobs {
        let (burst, pause) = match scenario.arrives {
            Arrives::AtRandom(rate) => (1, -(1.0 - service.rng.f64()).ln() / rate),
            Arrives::InBursts(jobs, pause) => (jobs, pause),
        };
        service.pass(service.now + (pause * SECOND as f64) as u64);
        for _ in 0..burst {
            // Every seventh job, so that the jobs of many moments are compared.
            let is_compared = service.now > warm && service.rng.u8(..7) == 0 && estimates.len() < jobs;
            let accepted = service.now;
            let (number, estimate) = service.accept(is_compared);
            estimates.extend(estimate.map(|estimate| (number, accepted, estimate)));
        }
    }
    while estimates.iter().any(|(number, ..)| service.starts[*number].is_none()) {
        service.pass(service.now + SECOND);
    }
    let seconds = |from: Timestamp, to: Timestamp| to.since(from).as_secs_f64();
    let mut outcome = Outcome { covered: 0, waits: Vec::new() };
    for (number, accepted, estimate) in estimates {
        let start = time(service.starts[number].expect("the loop above waits for it"));
        outcome.covered += usize::from((estimate.from..=estimate.to).contains(&start));
        outcome.waits.push((seconds(time(accepted), start), seconds(estimate.from, estimate.to)));
    }
    outcome
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

#[test]
fn estimates_cover_true_starts() {
    let seed = 1;
    let (mut covered, mut report) = (0, String::new());
    for (number, scenario) in SCENARIOS.into_iter().enumerate() {
        let outcome = simulate(scenario, JOBS / SCENARIOS.len(), seed + number as u64);
        let wait = median(outcome.waits.iter().map(|(wait, _)| *wait));
        let width = median(outcome.waits.iter().map(|(_, width)| *width));
        covered += outcome.covered;
        report += &format!(
            "{:3} of {} covered, median wait {wait:6.2} s, median width {width:6.2} s: {scenario:?}\n",
            outcome.covered,
            outcome.waits.len()
        );
        assert!(width < 3.0 + 2.0 * wait, "seed {seed}: too wide to help\n{report}");
    }
    assert!(covered * 100 >= JOBS * 80, "seed {seed}: {covered} of {JOBS} covered\n{report}");
    println!("{covered} of {JOBS} covered\n{report}");
}
