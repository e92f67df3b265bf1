//! `Sleep`: waits, reports progress and can be canceled.

use std::time::Duration;

use async_endpoints::{JobContext, JobError, JobHandler, JobType};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::{now, number_within};
use crate::ledger::Ledger;

const SLEEP: JobType<SleepRequest, SleepResult> = JobType::new("Sleep");

const MAX_SLEEP: Duration = Duration::from_secs(3600);
/// Interval of progress reports.
const TICK: Duration = Duration::from_millis(200);

/// The job type. Its timeout allows the longest sleep, unless the operator has set `AE_JOB_TIMEOUT_SECONDS`.
pub(crate) fn job_type(job_timeout_is_set: bool) -> JobType<SleepRequest, SleepResult> {
    if job_timeout_is_set { SLEEP } else { SLEEP.timeout(MAX_SLEEP + Duration::from_secs(60)) }
}

#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SleepRequest {
    /// Duration in seconds: 0 to 3600, fractions allowed.
    #[serde(deserialize_with = "seconds")]
    #[schema(minimum = 0, maximum = 3600, example = 2.5)]
    seconds: f64,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number_within(deserializer, &(0.0..=MAX_SLEEP.as_secs_f64()))
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SleepResult {
    slept_seconds: f64,
    processed_at: String,
}

/// The handler.
pub(crate) struct Sleep(pub(crate) Ledger);

impl JobHandler<SleepRequest, SleepResult> for Sleep {
    async fn run(&self, ctx: JobContext<SleepRequest>) -> Result<SleepResult, JobError> {
        let _running = self.0.enter(ctx.job_id(), ctx.attempt());
        let (total, started) = (Duration::from_secs_f64(ctx.request().seconds), Instant::now());
        tracing::info!(seconds = total.as_secs_f64(), "sleep started");
        let slept = sleep_for(&ctx, total).await;
        let slept_seconds = started.elapsed().as_secs_f64();
        tracing::info!(slept_seconds, canceled = slept.is_err(), "sleep ended");
        slept.map(|()| SleepResult { slept_seconds, processed_at: now() })
    }
}

/// Sleeps in ticks and reports progress in milliseconds after each of them.
async fn sleep_for(ctx: &JobContext<SleepRequest>, total: Duration) -> Result<(), JobError> {
    let end = Instant::now() + total;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        ctx.progress().set(millis(total - left), millis(total));
        if left.is_zero() {
            return Ok(());
        }
        let tick = sleep(left.min(TICK));
        ctx.cancellation().run_until_cancelled(tick).await.ok_or_else(JobError::canceled)?;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_reported_until_the_end() {
        let ctx = JobContext::for_test(SleepRequest { seconds: 1.1 });
        let progress = ctx.progress().clone();
        let (sleep, mut seen) = (Sleep(Ledger::default()), Vec::new());
        let mut run = std::pin::pin!(sleep.run(ctx));
        let slept = loop {
            match tokio::time::timeout(Duration::from_millis(100), &mut run).await {
                Ok(slept) => break slept.unwrap(),
                Err(_) => seen.extend(progress.current().map(|progress| progress.completed)),
            }
        };
        seen.dedup();
        assert_eq!(seen, [0, 200, 400, 600, 800, 1000]);
        assert_eq!(progress.current().unwrap().percent, Some(100.0));
        assert!((slept.slept_seconds - 1.1).abs() < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_ends_the_sleep() {
        let ctx = JobContext::for_test(SleepRequest { seconds: 3600.0 });
        let token = ctx.cancellation().clone();
        let (sleep, started) = (Sleep(Ledger::default()), Instant::now());
        let stop = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel();
        };
        let (slept, ()) = tokio::join!(sleep.run(ctx), stop);
        assert!(slept.unwrap_err().to_string().starts_with("JOB_CANCELED"));
        assert_eq!(started.elapsed(), Duration::from_millis(300));
    }

    #[test]
    fn length_out_of_range_is_rejected() {
        let read = |seconds: f64| serde_json::from_value::<SleepRequest>(serde_json::json!({ "seconds": seconds }));
        for right in [0.0, 0.25, 3600.0] {
            assert_eq!(read(right).unwrap().seconds, right);
        }
        for wrong in [-0.001, 3600.001] {
            assert!(read(wrong).unwrap_err().to_string().contains("expected 0 to 3600"), "{wrong}");
        }
    }
}
