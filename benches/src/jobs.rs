//! Jobs of the benches. Calls with and without the product carry equal jobs.

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    AsyncEndpoints, JobContext, JobType,
    core::{
        JobId, JobName, JobStatus, MemoryStore, Store,
        job::{Digest, ErrorRecord, JobTerms},
        store::{
            Attempt, Claim, InsertOutcome, LeaseToken, NewJob, Outcome, Settlement, StatsQuery, TypeQuota, WorkerId,
        },
    },
};
use bytes::Bytes;

use crate::report::Result;

pub(crate) const NOOP: JobType<String, ()> = JobType::new("Noop");
/// Size of a request in bytes, including the quotes of JSON.
pub(crate) const PAYLOAD: usize = 200;
/// Number of concurrent callers.
pub(crate) const CALLERS: u32 = 64;

pub(crate) fn request() -> String {
    "x".repeat(PAYLOAD - 2)
}

/// A job for direct calls of a store. Each insert gets a new id.
#[derive(Clone)]
pub(crate) struct Template(NewJob);

impl Template {
    /// A job with a payload that no handler can read.
    pub(crate) fn plain(name: &str) -> Result<Self> {
        let payload = Bytes::from(vec![b'x'; PAYLOAD]);
        let name = JobName::new(name)?;
        Ok(Self(NewJob::new(JobId::random(), name, payload, JobTerms::default(), Digest([7; 32]))))
    }

    /// A job as the product submits it, including the envelope around the request.
    pub(crate) async fn submitted() -> Result<Self> {
        let store = Arc::new(MemoryStore::new());
        let endpoints =
            AsyncEndpoints::builder(store.clone()).handler(NOOP, async |_: JobContext<String>| Ok(())).build()?;
        endpoints.submit(NOOP, request()).await?;
        let mut template = Self::plain(NOOP.name())?;
        let claimed = claim(&*store, &template.0.name, 1).await?;
        template.0.payload = claimed.first().ok_or("the submitted job is missing")?.payload.clone();
        template.0.queue_limit = Some(u64::MAX);
        Ok(template)
    }

    pub(crate) fn name(&self) -> &JobName {
        &self.0.name
    }

    /// A copy of the job. Its id is not unique.
    pub(crate) fn job(&self) -> NewJob {
        self.0.clone()
    }

    pub(crate) async fn insert(&self, store: &dyn Store) -> Result<()> {
        match store.insert(NewJob { id: JobId::random(), ..self.0.clone() }).await? {
            InsertOutcome::Inserted { .. } => Ok(()),
            other => Err(format!("unexpected outcome of an insert: {other:?}").into()),
        }
    }

    /// Inserts jobs with concurrent callers, each with one call at a time.
    pub(crate) async fn fill(&self, store: &Arc<dyn Store>, jobs: u32, callers: u32) -> Result<()> {
        at_once(callers, |caller| {
            let (store, template, share) = (store.clone(), self.clone(), share(jobs, callers, caller));
            async move {
                for _ in 0..share {
                    template.insert(&*store).await?;
                }
                Ok(())
            }
        })
        .await
    }
}

/// Number of jobs for one of the callers.
pub(crate) const fn share(jobs: u32, callers: u32, caller: u32) -> u32 {
    jobs / callers + (caller < jobs % callers) as u32
}

/// Runs this number of tasks and waits for all of them.
pub(crate) async fn at_once<F>(tasks: u32, task: impl Fn(u32) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    for n in 0..tasks {
        running.spawn(task(n));
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// Claims at most `batch` jobs, with leases that outlast the bench.
pub(crate) async fn claim(store: &(impl Store + ?Sized), name: &JobName, batch: u32) -> Result<Vec<Attempt>> {
    let claim = Claim {
        worker: WorkerId(uuid::Uuid::from_u128(7)),
        token: LeaseToken::random(),
        quotas: vec![TypeQuota { name: name.clone(), max: batch, timeout: Duration::from_secs(60) }],
        max: batch,
        max_bytes: 4 << 20,
        lease: Duration::from_secs(3600),
    };
    Ok(store.claim(&claim).await?.attempts)
}

/// Settles attempts as completed.
pub(crate) async fn settle(store: &(impl Store + ?Sized), attempts: &[Attempt]) -> Result<()> {
    let if_canceled = ErrorRecord {
        code: "JOB_CANCELED".into(),
        title: "The job was canceled".into(),
        status: 409,
        detail: None,
        retryable: false,
        sources: Vec::new(),
    };
    let settle = |attempt: &Attempt| {
        let outcome = Outcome::Completed { result: Bytes::from_static(b"null") };
        Settlement::new(attempt.lease, outcome, if_canceled.clone())
    };
    store.settle(&attempts.iter().map(settle).collect::<Vec<_>>()).await?;
    Ok(())
}

/// Number of jobs with this status, of all types.
pub(crate) async fn count(store: &dyn Store, status: JobStatus) -> Result<u64> {
    let stats = store.stats(&StatsQuery::default()).await?;
    Ok(stats.types.iter().map(|entry| entry.count(status)).sum())
}
