//! The tools of a conformance case: a checked store, its time, and calls with expected answers.
//! Must not know any particular store.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobStore as _, JobView, Store,
    job::ErrorRecord,
    limits::{PAGE_JOBS, SWEEP_JOBS},
    store::{
        Attempt, CancelOutcome, Claim, Claimed, Fenced, Heartbeat, InsertOutcome, JobLookup, Lease, LeaseToken,
        ListFilter, NewJob, Outcome, Page, Reclaim, Reclaimed, Recovered, Renewed, Report, RetryAs, RetryOutcome,
        Settled, Settlement, Stats, StatsQuery, TypeQuota, TypeStats, WorkerId,
    },
};
use uuid::Uuid;

use crate::{
    Checked, Fixture, Timeline,
    jobs::{self, error},
};

/// More units than any test takes: for leases that must not expire, and retention.
pub(crate) const LONG: u32 = 10_000;

/// A checked store and its time, for one test.
pub struct Rig {
    /// The store. Every answer is recorded.
    pub store: Arc<Checked<Arc<dyn Store>>>,
    /// Its time.
    pub time: Timeline,
    /// The worker that claims.
    pub worker: WorkerId,
}

/// Runs one case on a fresh store, then checks all answers for contradictions.
pub async fn run(fixture: Fixture, case: impl AsyncFnOnce(&Rig)) {
    let rig = Rig::new(&fixture);
    case(&rig).await;
    rig.store.verify().await;
    drop(fixture);
}

const NO_FAULTS: &str = "the store answers";

impl Rig {
    /// A rig on this store.
    #[must_use]
    pub fn new(fixture: &Fixture) -> Self {
        let store = Arc::new(Checked::new(Arc::clone(&fixture.store)));
        Self { store, time: fixture.time.clone(), worker: WorkerId(Uuid::new_v4()) }
    }

    /// The duration of that many units.
    #[must_use]
    pub fn units(&self, n: u32) -> Duration {
        self.time.units(n)
    }

    /// Lets that many units pass.
    pub async fn advance(&self, n: u32) {
        self.time.advance(n).await;
    }

    /// A runnable job of that type.
    #[must_use]
    pub fn job(&self, name: &str) -> NewJob {
        jobs::job(name, self.units(LONG))
    }

    /// Inserts.
    pub async fn insert(&self, job: &NewJob) -> InsertOutcome {
        self.store.insert(job.clone()).await.expect(NO_FAULTS)
    }

    /// Inserts a job that must be new.
    pub async fn put(&self, job: &NewJob) -> JobId {
        let answer = self.insert(job).await;
        assert!(matches!(answer, InsertOutcome::Inserted { .. }), "a new job is accepted, not {answer:?}");
        job.id
    }

    /// Inserts a new runnable job of that type.
    pub async fn queue(&self, name: &str) -> JobId {
        self.put(&self.job(name)).await
    }

    /// Reads a job.
    pub async fn lookup(&self, id: JobId) -> JobLookup {
        self.store.get(id).await.expect(NO_FAULTS)
    }

    /// Reads a job that must exist.
    pub async fn view(&self, id: JobId) -> JobView {
        match self.lookup(id).await {
            JobLookup::Found(view) => *view,
            other => panic!("expected job {id}, not {other:?}"),
        }
    }

    /// The job's state.
    pub async fn status(&self, id: JobId) -> JobStatus {
        self.view(id).await.status
    }

    /// A claim of up to `max` jobs of these types, with long leases.
    #[must_use]
    pub fn wanting(&self, names: &[&str], max: u32) -> Claim {
        let timeout = self.units(LONG);
        let quotas = names.iter().map(|name| TypeQuota { name: jobs::name(name), max, timeout }).collect();
        let token = LeaseToken::random();
        Claim { worker: self.worker, token, quotas, max, max_bytes: 4 << 20, lease: self.units(LONG) }
    }

    /// Claims.
    pub async fn claim(&self, claim: &Claim) -> Claimed {
        self.store.claim(claim).await.expect(NO_FAULTS)
    }

    /// Claims up to `max` jobs of these types, with long leases.
    pub async fn claim_any(&self, names: &[&str], max: u32) -> Vec<Attempt> {
        self.claim(&self.wanting(names, max)).await.attempts
    }

    /// Claims all runnable jobs of these types, and returns their ids in order.
    pub async fn claim_ids(&self, names: &[&str]) -> Vec<JobId> {
        self.claim_any(names, 64).await.iter().map(|attempt| attempt.lease.job).collect()
    }

    /// Claims the one runnable job of that type.
    pub async fn take(&self, name: &str) -> Attempt {
        self.take_for(name, LONG).await
    }

    /// Claims the one runnable job of that type, with a lease of so many units.
    pub async fn take_for(&self, name: &str, units: u32) -> Attempt {
        let claim = Claim { lease: self.units(units), ..self.wanting(&[name], 1) };
        let mut taken = self.claim(&claim).await.attempts;
        assert_eq!(taken.len(), 1, "one job of {name} is claimed");
        taken.remove(0)
    }

    /// Queues a job of that type and claims it.
    pub async fn start(&self, name: &str) -> Attempt {
        let id = self.queue(name).await;
        let attempt = self.take(name).await;
        assert_eq!(attempt.lease.job, id, "the only runnable job is claimed");
        attempt
    }

    /// A settlement.
    #[must_use]
    pub fn settlement(&self, lease: Lease, outcome: Outcome) -> Settlement {
        Settlement::new(lease, outcome, error("JOB_CANCELED"))
    }

    /// Ends an attempt.
    pub async fn settle(&self, lease: Lease, outcome: Outcome) -> Settled {
        self.settle_one(self.settlement(lease, outcome)).await
    }

    /// Ends an attempt.
    pub async fn settle_one(&self, settle: Settlement) -> Settled {
        let answers = self.store.settle(&[settle]).await.expect(NO_FAULTS);
        assert_eq!(answers.len(), 1, "an answer for each");
        answers[0]
    }

    /// Ends an attempt with a result.
    pub async fn complete(&self, lease: Lease) {
        assert_eq!(self.settle(lease, jobs::completed("1")).await, Settled::Settled(JobStatus::Completed));
    }

    /// Ends an attempt as failed for good.
    pub async fn fail(&self, lease: Lease) {
        let settled = self.settle(lease, Outcome::Failed { error: error("TEST_FAILED") }).await;
        assert_eq!(settled, Settled::Settled(JobStatus::Failed));
    }

    /// Ends an attempt of a job whose cancellation was requested.
    pub async fn fail_canceled(&self, lease: Lease) {
        let settled = self.settle(lease, Outcome::Failed { error: error("TEST_FAILED") }).await;
        assert_eq!(settled, Settled::Settled(JobStatus::Canceled));
    }

    /// Ends an attempt with a retry after so many units.
    pub async fn again(&self, lease: Lease, units: u32) {
        let outcome = Outcome::Retry { delay: self.units(units), error: error("TEST_AGAIN") };
        assert_eq!(self.settle(lease, outcome).await, Settled::Settled(JobStatus::Scheduled));
    }

    /// Releases an attempt.
    pub async fn release(&self, lease: Lease) {
        assert_eq!(self.settle(lease, Outcome::Released).await, Settled::Settled(JobStatus::Queued));
    }

    /// Cancels.
    pub async fn cancel(&self, id: JobId) -> CancelOutcome {
        self.store.cancel(id, &error("JOB_CANCELED")).await.expect(NO_FAULTS)
    }

    /// Retries a job as a new one with this id.
    pub async fn retry_as(&self, of: JobId, id: JobId) -> RetryOutcome {
        self.store.retry(of, &RetryAs { id, trace: None }).await.expect(NO_FAULTS)
    }

    /// A heartbeat without types.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat { worker: jobs::worker(self.worker), ttl: self.units(LONG) }
    }

    /// Renews one lease for so many units.
    pub async fn renew(&self, lease: Lease, units: u32) -> Renewed {
        let answers = self.store.renew(&self.heartbeat(), &[lease], self.units(units)).await.expect(NO_FAULTS);
        assert_eq!(answers.len(), 1, "an answer for each");
        answers[0]
    }

    /// Reports.
    pub async fn report(&self, report: Report) -> Fenced {
        let answers = self.store.report(&[report]).await.expect(NO_FAULTS);
        assert_eq!(answers.len(), 1, "an answer for each");
        answers[0]
    }

    /// A sweep with the largest limit, for leases of so many units.
    #[must_use]
    pub fn sweeper(&self, lease: u32) -> Reclaim {
        let lease = self.units(lease);
        Reclaim { limit: SWEEP_JOBS, lease, lost: lost(), canceled: error("JOB_CANCELED") }
    }

    /// Sweeps.
    pub async fn reclaim(&self, reclaim: &Reclaim) -> Reclaimed {
        self.store.reclaim(reclaim).await.expect(NO_FAULTS)
    }

    /// Sweeps until the store no longer pauses for workers that were cut off, as a fresh store may. Later sweeps with long
    /// leases reclaim at once.
    pub async fn warm(&self) {
        for _ in 0..100 {
            match self.reclaim(&self.sweeper(4)).await {
                Reclaimed::Done { .. } => return,
                Reclaimed::Waiting(_) => self.advance(1).await,
            }
        }
        panic!("a sweep waits no longer than a lease");
    }

    /// Sweeps a warm store, and returns the recovered jobs.
    pub async fn sweep(&self) -> Vec<Recovered> {
        match self.reclaim(&self.sweeper(LONG)).await {
            Reclaimed::Done { recovered, more: false } => recovered,
            other => panic!("a warm store sweeps all expired leases, not {other:?}"),
        }
    }

    /// Claims the one runnable job of that type, lets its lease expire and sweeps. The store must be warm.
    pub async fn lose(&self, name: &str) -> (Attempt, Recovered) {
        let attempt = self.take_for(name, 1).await;
        self.advance(2).await;
        let mut recovered = self.sweep().await;
        assert_eq!(recovered.len(), 1, "the expired lease is reclaimed");
        (attempt, recovered.remove(0))
    }

    /// Prunes until nothing is left to prune.
    pub async fn prune(&self) -> u32 {
        let mut pruned = 0;
        loop {
            let step = self.store.prune(SWEEP_JOBS).await.expect(NO_FAULTS);
            pruned += step;
            if step < SWEEP_JOBS {
                return pruned;
            }
        }
    }

    /// All pages of a list of all owners' jobs, `limit` jobs each.
    pub async fn list(&self, status: Option<JobStatus>, name: Option<JobName>, limit: u32) -> Vec<JobView> {
        self.pages(&ListFilter { status, name, ..ListFilter::default() }, limit).await
    }

    /// All pages of a list, `limit` jobs each.
    pub async fn pages(&self, filter: &ListFilter, limit: u32) -> Vec<JobView> {
        let (mut jobs, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.store.list(filter, &Page { cursor, limit }).await.expect(NO_FAULTS);
            assert!(page.jobs.len() <= limit as usize, "a page has at most `limit` jobs");
            assert!(page.jobs.len() <= page.scanned as usize && page.scanned <= PAGE_JOBS, "{} checked", page.scanned);
            jobs.extend(page.jobs);
            cursor = page.next;
            if cursor.is_none() {
                return jobs;
            }
        }
    }

    /// The ids of all jobs in a list.
    pub async fn ids(&self, status: Option<JobStatus>) -> Vec<JobId> {
        self.list(status, None, 2).await.iter().map(|job| job.id).collect()
    }

    /// The version of a job.
    pub async fn version(&self, id: JobId) -> Option<u64> {
        let versions = self.store.versions(&[id]).await.expect(NO_FAULTS);
        assert_eq!(versions.len(), 1, "an answer for each");
        versions[0]
    }

    /// Statistics.
    pub async fn stats(&self, query: &StatsQuery) -> Stats {
        self.store.stats(query).await.expect(NO_FAULTS)
    }

    /// The statistics of one type.
    pub async fn counts(&self, name: &str) -> TypeStats {
        let stats = self.stats(&StatsQuery::default()).await;
        stats.types.into_iter().find(|kind| kind.name.as_str() == name).expect("a type that has jobs is counted")
    }
}

/// The error of a job that lost too many leases.
#[must_use]
pub(crate) fn lost() -> ErrorRecord {
    error("WORKER_LOST")
}
