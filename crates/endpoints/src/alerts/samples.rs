//! Sample jobs of alerts, read from the beginning of the store's lists.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, StoreError, Timestamp,
    store::{ListFilter, Page},
};
use tokio::time::timeout;

use super::rule::RuleContext;
use crate::{slow, store_call::within};

/// Number of sample jobs. The alert shows the first three.
pub(super) const SAMPLES: usize = 3;
/// Number of jobs at the beginning of a list among which samples are searched.
const PAGE_JOBS: u32 = 50;
/// Time limit of reading samples. A rule has 10 s in all.
const SAMPLE_TIME: Duration = Duration::from_secs(3);

/// Reads samples within a short time. Without them, the rule still has its value.
pub(super) async fn sampled<T>(read: impl Future<Output = Result<Vec<T>, StoreError>>) -> Vec<T> {
    timeout(SAMPLE_TIME, read).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Ids of the first jobs of these types in these states. A Scheduled job counts from its due time on.
pub(super) async fn of(
    context: &RuleContext,
    statuses: &[JobStatus],
    names: Vec<&JobName>,
) -> Result<Vec<JobId>, StoreError> {
    let mut jobs = Vec::new();
    for name in names {
        for status in statuses {
            if jobs.len() >= SAMPLES {
                return Ok(jobs);
            }
            jobs.extend(first(context, *status, name).await?);
        }
    }
    Ok(jobs)
}

async fn first(context: &RuleContext, status: JobStatus, name: &JobName) -> Result<Vec<JobId>, StoreError> {
    let filter = ListFilter { status: Some(status), name: Some(name.clone()), ..ListFilter::default() };
    let page = within(context.store.list(&filter, &Page { cursor: None, limit: PAGE_JOBS })).await?;
    let is_due = |job: &&JobView| status != JobStatus::Scheduled || job.scheduled_at <= Some(context.now());
    Ok(page.jobs.iter().filter(is_due).take(SAMPLES).map(|job| job.id).collect())
}

/// Ids of jobs with slow attempts that run, or ended since a time.
pub(super) async fn slow(context: &RuleContext, since: Timestamp) -> Result<Vec<JobId>, StoreError> {
    let mut jobs = Vec::new();
    for cutoffs in context.cutoffs.iter() {
        if jobs.len() >= SAMPLES {
            break;
        }
        let found = slow::find(&*context.store, &context.stats, std::slice::from_ref(cutoffs), since, SAMPLES).await?;
        jobs.extend(found.jobs.into_iter().map(|slow| slow.job.id));
    }
    Ok(jobs)
}
