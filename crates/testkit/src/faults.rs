//! A random workload while calls fail, before and after they were applied. Must not know any particular store.
//!
//! Inserts, settlements and cancels are repeated until they are answered. A claim whose reply was lost is not repeated: its
//! leases expire and are reclaimed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    job::AttemptOutcome,
    limits::SWEEP_JOBS,
    store::{
        Attempt, CancelOutcome, Claim, InsertOutcome, JobLookup, LeaseToken, NewJob, Outcome, Reclaim, Result, Settled,
        Settlement, TypeQuota, WorkerId,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use crate::{
    Checked, Fixture, FlakyStore, Timeline,
    jobs::{self, completed, error, name},
};

const SUBMITTERS: u64 = 4;
const JOBS: u32 = 15;
const WORKERS: u64 = 4;
/// A lease in units: short, because much of the work is lost.
const LEASE: u32 = 4;
/// Maximum number of checks whether all jobs have ended.
const ROUNDS: u32 = 2_000;

type Flaky = Checked<Arc<FlakyStore>>;

/// The state shared by all tasks.
#[derive(Clone)]
struct Work {
    store: Arc<Flaky>,
    time: Timeline,
    accepted: Arc<Mutex<BTreeSet<JobId>>>,
    settled: Arc<Mutex<Vec<(JobId, JobStatus)>>>,
    over: Arc<AtomicBool>,
}

/// Runs `runs` random workloads on fresh stores. One call in five fails, half of them after they were applied. No accepted
/// job may be lost, each lease is settled once, and every job ends.
///
/// # Panics
/// If a rule is broken. The seed is printed, and `TESTKIT_SEED` repeats its faults; the scheduling of tasks is not repeated.
pub async fn check_faults(fresh: impl AsyncFn() -> Fixture, runs: u32) {
    let first = crate::model::seed();
    for run in 0..u64::from(runs) {
        let seed = first.wrapping_add(run);
        println!("TESTKIT_SEED={seed}");
        let fixture = fresh().await;
        Box::pin(workload(&fixture, seed)).await;
    }
}

async fn workload(fixture: &Fixture, seed: u64) {
    let flaky = Arc::new(FlakyStore::new(Arc::clone(&fixture.store)).random(seed, 0.1, 0.1));
    let work = Work {
        store: Arc::new(Checked::new(Arc::clone(&flaky))),
        time: fixture.time.clone(),
        accepted: Arc::default(),
        settled: Arc::default(),
        over: Arc::default(),
    };
    let submitters: Vec<_> = (0..SUBMITTERS).map(|at| tokio::spawn(work.clone().submit(random(seed, at)))).collect();
    let workers: Vec<_> = (0..WORKERS).map(|at| tokio::spawn(work.clone().run(random(seed, 100 + at)))).collect();
    let sweeper = tokio::spawn(work.clone().sweep());
    for task in submitters {
        task.await.expect("a submitter ends");
    }
    work.drain().await;
    work.over.store(true, Ordering::SeqCst);
    for task in workers {
        task.await.expect("a worker ends");
    }
    sweeper.await.expect("the sweeper ends");
    flaky.calm();
    assert!(flaky.faults() > 0, "calls failed");
    work.check(fixture).await;
}

fn random(seed: u64, task: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(task))
}

/// Repeats a call until it is answered.
macro_rules! until_answered {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(error) => assert!(error.is_transient(), "an error that no fault caused: {error}"),
            }
            tokio::task::yield_now().await;
        }
    };
}

impl Work {
    fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        shared.lock().expect("no task panics while it holds the lock")
    }

    fn job(&self, random: &mut StdRng) -> NewJob {
        let mut job = jobs::job(if random.random() { "alpha" } else { "beta" }, self.time.units(100_000));
        job.delay = if random.random_ratio(1, 3) { self.time.units(random.random_range(1..4)) } else { Duration::ZERO };
        job.key = random.random_ratio(1, 2).then(|| jobs::key(&job.id.to_string()));
        job.terms.max_losses = random.random_range(0..8);
        job
    }

    async fn submit(self, mut random: StdRng) {
        for _ in 0..JOBS {
            let job = self.job(&mut random);
            match until_answered!(self.store.insert(job.clone())) {
                InsertOutcome::Inserted { .. } => {}
                InsertOutcome::Existing(JobLookup::Found(view)) if view.id == job.id => {}
                other => panic!("expected job {}, not {other:?}", job.id),
            }
            Self::lock(&self.accepted).insert(job.id);
            if random.random_ratio(1, 6) {
                let canceled = until_answered!(self.store.cancel(job.id, &error("JOB_CANCELED")));
                assert!(!matches!(canceled, CancelOutcome::NotFound | CancelOutcome::Gone { .. }), "{canceled:?}");
            }
        }
    }

    fn claim(&self, random: &mut StdRng) -> Claim {
        let n = random.random_range(1..4);
        let timeout = self.time.units(100);
        Claim {
            worker: WorkerId(Uuid::new_v4()),
            token: LeaseToken::random(),
            quotas: ["alpha", "beta"].map(|of| TypeQuota { name: name(of), max: n, timeout }).to_vec(),
            max: 4,
            max_bytes: 1 << 20,
            lease: self.time.units(LEASE),
        }
    }

    async fn run(self, mut random: StdRng) {
        while !self.over.load(Ordering::SeqCst) {
            let claim = self.claim(&mut random);
            // If the reply is lost, the claim may have leased jobs that no worker runs.
            let claimed: Result<_> = self.store.claim(&claim).await;
            for attempt in claimed.map(|claimed| claimed.attempts).unwrap_or_default() {
                if random.random_ratio(1, 8) {
                    continue; // The worker dies.
                }
                self.settle(&attempt, &mut random).await;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn settle(&self, attempt: &Attempt, random: &mut StdRng) {
        let outcome = match random.random_range(0..10) {
            0 if attempt.retry_count < attempt.max_retries => {
                Outcome::Retry { delay: self.time.units(1), error: error("AGAIN") }
            }
            1 => Outcome::Failed { error: error("FAILED") },
            2 => Outcome::Released,
            _ => completed("1"),
        };
        let settlements = [Settlement::new(attempt.lease, outcome, error("JOB_CANCELED"))];
        let answers = until_answered!(self.store.settle(&settlements));
        if let [Settled::Settled(status)] = answers.as_slice() {
            Self::lock(&self.settled).push((attempt.lease.job, *status));
        }
    }

    /// Advances time, reclaims leases and prunes.
    async fn sweep(self) {
        let sweep = Reclaim {
            limit: SWEEP_JOBS,
            lease: self.time.units(LEASE),
            lost: error("WORKER_LOST"),
            canceled: error("JOB_CANCELED"),
        };
        while !self.over.load(Ordering::SeqCst) {
            drop(self.store.reclaim(&sweep).await);
            drop(self.store.prune(SWEEP_JOBS).await);
            self.time.advance(1).await;
            tokio::task::yield_now().await;
        }
    }

    /// Waits until all jobs have ended.
    async fn drain(&self) {
        for _ in 0..ROUNDS {
            let stats = until_answered!(self.store.stats(&Default::default()));
            let open = |status: &JobStatus| !status.is_terminal();
            let left: u64 = stats
                .types
                .iter()
                .map(|kind| JobStatus::ALL.iter().filter(|status| open(status)).map(|s| kind.count(*s)).sum::<u64>())
                .sum();
            if left == 0 {
                return;
            }
            // Workers and the sweeper go on meanwhile.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("jobs are left after {ROUNDS} checks");
    }

    /// Checks that every accepted job has ended, and completed once if a worker got that answer.
    async fn check(&self, fixture: &Fixture) {
        self.store.verify().await;
        let accepted = Self::lock(&self.accepted).clone();
        assert_eq!(accepted.len() as u64, SUBMITTERS * u64::from(JOBS));
        let mut completed = BTreeSet::new();
        for id in accepted {
            let Ok(JobLookup::Found(view)) = fixture.store.get(id).await else { panic!("{id} is lost") };
            assert!(view.status.is_terminal(), "{view:?}");
            let times = view.attempts.iter().filter(|one| one.outcome == Some(AttemptOutcome::Completed)).count();
            assert_eq!(times, usize::from(view.status == JobStatus::Completed), "{view:?}");
            if times == 1 {
                completed.insert(id);
            }
        }
        let settled = Self::lock(&self.settled).clone();
        let ended: Vec<JobId> = settled.iter().filter(|(_, s)| s.is_terminal()).map(|(id, _)| *id).collect();
        assert_eq!(ended.len(), ended.iter().collect::<BTreeSet<_>>().len(), "each job ends once");
        let completions = settled.iter().filter(|(_, s)| *s == JobStatus::Completed);
        assert!(completions.clone().all(|(id, _)| completed.contains(id)), "a settlement that was answered is stored");
    }
}
