//! Stores with many jobs: some of each state, accepted over the last six hours, or waiting ones alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_endpoints::core::{
    Clock, JobId, JobName, Store, SystemClock, Timestamp,
    job::{Digest, ErrorRecord},
    store::{Attempt, InsertOutcome, NewJob, Outcome, ReportedProgress, Settlement},
};

use crate::{
    jobs::{self, CALLERS, Template, at_once, share},
    report::Result,
};

/// The types of the jobs. No process has a handler for them.
pub(crate) const TYPES: [&str; 3] = ["Export", "Import", "Report"];
/// The number of owners, each with as many jobs as the others.
const OWNERS: u32 = 20;
/// The error codes of failed jobs.
pub(crate) const CODES: [&str; 4] = ["DISK_FULL", "INVALID_ROW", "TIMEOUT", "UPSTREAM_DOWN"];
/// How long ago the first jobs were accepted: nearly as long as stores keep statistics by minute.
const PAST: Duration = Duration::from_secs(350 * 60);
/// The number of parts in which jobs are accepted and run.
const STEPS: u32 = 200;
/// Of each hundred jobs, this number is run. The others wait.
const RUN: u32 = 90;
/// Of each hundred jobs, this number is delayed by a day.
const DELAYED: u32 = 4;
/// Maximum number of jobs that stay in progress.
const RUNNING: u32 = 100;
const DRIVERS: u32 = 4;
const BATCH: u32 = 64;

/// The system's clock, behind by a time that shrinks. Clones share it.
#[derive(Clone)]
pub(crate) struct PastClock {
    system: Arc<SystemClock>,
    behind_micros: Arc<AtomicU64>,
}

impl PastClock {
    pub(crate) fn new() -> Self {
        Self { system: Arc::default(), behind_micros: Arc::new(AtomicU64::new(PAST.as_micros() as u64)) }
    }

    /// Sets how much of the past is left, in `parts` of `STEPS`.
    fn set_left(&self, parts: u32) {
        self.behind_micros.store((PAST / STEPS * parts).as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for PastClock {
    fn now(&self) -> Timestamp {
        self.system.now().before(Duration::from_micros(self.behind_micros.load(Ordering::Relaxed)))
    }
}

/// The hash of an owner.
pub(crate) fn owner(number: u32) -> Digest {
    Digest([(number % OWNERS) as u8; 32])
}

/// Fills a store that has the clock: 86 % of the jobs end, 10 % wait and 4 % are delayed.
pub(crate) async fn fill(store: &Arc<dyn Store>, clock: &PastClock, jobs: u32) -> Result<()> {
    let payload = Template::plain(TYPES[0])?;
    let names = TYPES.map(JobName::new).into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    for step in 0..STEPS {
        let (first, end) = (part(jobs, step), part(jobs, step + 1));
        at_once(CALLERS, |caller| {
            let (store, payload, names) = (store.clone(), payload.clone(), names.clone());
            async move {
                for number in (first..end).skip(caller as usize).step_by(CALLERS as usize) {
                    insert(&*store, payload.job(), &names, number).await?;
                }
                Ok(())
            }
        })
        .await?;
        let waiting = RUNNING.min(jobs / 20);
        let wanted = (end - first) * (RUN - DELAYED) / 100;
        let wanted = if step + 1 == STEPS { wanted.saturating_sub(waiting) } else { wanted };
        at_once(DRIVERS, |driver| {
            let (store, names) = (store.clone(), names.clone());
            let left = share(wanted, DRIVERS, driver);
            async move { run(&*store, &names, left, first).await }
        })
        .await?;
        clock.set_left(STEPS - 1 - step);
    }
    let mut started = 0;
    for name in &names {
        started += jobs::claim(&**store, name, (RUNNING.min(jobs / 20) - started).min(BATCH)).await?.len() as u32;
    }
    Ok(())
}

/// The number of jobs in the first `steps` parts.
fn part(jobs: u32, steps: u32) -> u32 {
    (u64::from(jobs) * u64::from(steps) / u64::from(STEPS)) as u32
}

async fn insert(store: &dyn Store, job: NewJob, names: &[JobName], number: u32) -> Result<()> {
    let name = names[number as usize % names.len()].clone();
    // Spread over types and owners.
    let is_delayed = number.wrapping_mul(37) % 100 < DELAYED;
    let delay = if is_delayed { Duration::from_secs(24 * 60 * 60) } else { Duration::ZERO };
    let job = NewJob { id: JobId::random(), name, ..job }.owner(owner(number / 7)).delay(delay);
    match store.insert(job).await? {
        InsertOutcome::Inserted { .. } => Ok(()),
        other => Err(format!("unexpected outcome of an insert: {other:?}").into()),
    }
}

/// Claims and settles about this number of jobs.
async fn run(store: &dyn Store, names: &[JobName], mut left: u32, seed: u32) -> Result<()> {
    let (mut ended, mut empty, mut turn) = (seed, 0, seed as usize);
    while left > 0 && empty < names.len() {
        turn += 1;
        let batch = left.min(BATCH);
        let attempts = jobs::claim(store, &names[turn % names.len()], batch).await?;
        empty = if attempts.is_empty() { empty + 1 } else { 0 };
        left -= attempts.len() as u32;
        let settlements = attempts.iter().map(|attempt| {
            ended += 1;
            settlement(attempt, ended)
        });
        store.settle(&settlements.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Most attempts complete, one of ten fails, and one of fifty is canceled.
fn settlement(attempt: &Attempt, number: u32) -> Settlement {
    let code = CODES[number as usize / 50 % CODES.len()];
    let detail = format!("Row {number} of disk {} could not be written.", number % 7);
    let error = |code: &'static str| ErrorRecord {
        code: code.into(),
        title: "The job failed".into(),
        status: 500,
        detail: Some(detail.clone()),
        retryable: false,
        sources: Vec::new(),
    };
    let outcome = match number % 50 {
        0..5 => Outcome::Failed { error: error(code) },
        5 => Outcome::Canceled { error: error("JOB_CANCELED") },
        _ => Outcome::Completed { result: bytes::Bytes::from_static(b"null") },
    };
    let message = Some(format!("Row {number} written"));
    let progress = ReportedProgress { completed: 12, total: Some(12), percent: Some(100.0), message };
    Settlement { progress: Some(progress), ..Settlement::new(attempt.lease, outcome, error("JOB_CANCELED")) }
}
