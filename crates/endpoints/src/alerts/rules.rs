//! The built-in rules.

use std::{iter, time::Duration};

use async_endpoints_core::{JobName, JobStatus, Timestamp, store::TypeStats};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    alert::{AlertType, Severity},
    instances::{InstanceValue, MEMORY, STORE_ERRORS},
    rule::{AlertRule, Reading, Rule, RuleContext},
    samples::{self, SAMPLES, sampled},
};
use crate::{
    failure_rate::{self, FailureRate as Rate},
    health::BoxError,
    slow, stats, stuck,
};
/// States of jobs that wait for a worker.
const WAITING: [JobStatus; 2] = [JobStatus::Queued, JobStatus::Scheduled];
/// Wait of a runnable job from which on a missing worker is a problem: workers of a deployment start within it.
const WORKER_START: Duration = Duration::from_secs(60);
/// Longest window of queue times: an alert follows the present.
const QUEUE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// The built-in rules by name.
pub(super) fn defaults() -> Vec<(String, Rule)> {
    let performance = |rule: Rule| rule.alert_type(AlertType::Performance);
    let rules = [
        (
            "slow_jobs",
            performance(Rule::above(0.0, SlowJobs)).unit("jobs").title("Slow job processing detected").next_step(
                "Check what the handlers of these jobs wait for. Set AE_ALERT_SLOW_SECONDS if they may take longer.",
            ),
        ),
        (
            "failure_rate",
            Rule::above(10.0, FailureRate)
                .clear_below(5.0)
                .unit("%")
                .alert_type(AlertType::Error)
                .title("High job failure rate")
                .next_step("Read the error and the log lines of a failed job: GET /jobs/{id} and /jobs/{id}/logs."),
        ),
        (
            "stuck_jobs",
            Rule::above(5.0, StuckJobs)
                .unit("jobs")
                .severity(Severity::Medium)
                .title("Stuck jobs detected")
                .next_step("Check that workers with these job types run and reach the store: GET /ops/workers."),
        ),
        (
            MEMORY,
            Rule::above(80.0, Worst { rule: MEMORY, says: "a process uses much of its memory limit" })
                .min_count(0)
                .unit("%")
                .title("High memory usage")
                .next_step("Lower the concurrency, check for large payloads, or raise the limit."),
        ),
        (
            "queue_wait",
            performance(Rule::above(60.0, QueueWait))
                .min_count(0)
                .unit("s")
                .severity(Severity::Medium)
                .title("Jobs wait long")
                .next_step("If the slots are busy, start more workers. If they are idle, check the store's latency."),
        ),
        (
            "oldest_queued",
            performance(Rule::above(300.0, OldestQueued))
                .unit("s")
                .severity(Severity::Medium)
                .title("A job waits long")
                .next_step("Start more workers, or find out why their slots stay busy."),
        ),
        (
            "no_workers",
            Rule::above(0.0, NoWorkers)
                .unit("job types")
                .severity(Severity::Critical)
                .title("No worker runs a job type")
                .next_step(
                    "Start a worker with the handler of the type. If one runs, check why it cannot reach the store.",
                ),
        ),
        (
            STORE_ERRORS,
            Rule::above(5.0, Worst { rule: STORE_ERRORS, says: "calls of the store fail" })
                .min_count(10)
                .independent_of_store()
                .unit("%")
                .severity(Severity::Critical)
                .alert_type(AlertType::Error)
                .title("Store calls fail")
                .next_step(
                    "Check that the store runs, is reachable, and has free disk space and memory. Jobs continue when it is back.",
                ),
        ),
    ];
    rules.into_iter().map(|(name, rule)| (name.to_owned(), rule)).collect()
}

/// Attempts that run for longer than `slow_after`, or ended since the last evaluation after running for so long.
///
/// The memory has the minute of the evaluation and the slow attempts that had ended in it by then. The first evaluation counts
/// the current minute.
struct SlowJobs;

#[async_trait]
impl AlertRule for SlowJobs {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let (stats, minute) = (&context.stats, context.now().minute());
        let last = context.memory();
        let since = last["minute"].as_i64().unwrap_or(minute);
        let running = slow::running(stats);
        let ended = slow::ended(stats, since).saturating_sub(last["slow"].as_u64().unwrap_or(0));
        // Attempts that an earlier evaluation counted are no samples.
        let from = if ended == 0 { minute + 1 } else { since };
        let jobs = match running + ended {
            0 => Vec::new(),
            _ => sampled(samples::slow(context, Timestamp::from_minute(from))).await,
        };
        let message = format!("slow attempts: {running} running, {ended} ended since the last evaluation");
        let reading = Reading::new((running + ended) as f64, message).with("running", running).with("ended", ended);
        Ok(reading.jobs(jobs).remember(json!({ "minute": minute, "slow": slow::ended(stats, minute) })))
    }
}

/// The percentage of failed jobs among the ended ones: of all jobs, or of the type that fails most.
struct FailureRate;

#[async_trait]
impl AlertRule for FailureRate {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let by_type = failure_rate::by_type(&context.stats, stats::covering_minute(context.now(), context.window()));
        let all = (None, failure_rate::total(&by_type));
        let rates = || iter::once(all).chain(by_type.iter().map(|(name, rate)| (Some(*name), *rate)));
        let counted = rates().filter(|(_, rate)| rate.ended() >= context.min_count());
        let (of, worst) = counted.max_by(|(_, a), (_, b)| a.percent().total_cmp(&b.percent())).unwrap_or(all);
        let whose = of.map_or_else(|| "all jobs".to_owned(), |name| format!("the jobs of {name}"));
        let (percent, failed, ended) = (worst.percent(), worst.failed, worst.ended());
        let message = format!("{percent:.2} % of {whose} failed: {failed} of {ended} ended jobs");
        // Those of the rate alone, unless it is the rate of all jobs.
        let names = by_type.iter().filter(|(name, rate)| rate.failed > 0 && of.is_none_or(|of| of == **name));
        let jobs = samples::of(context, &[JobStatus::Failed], names.map(|(name, _)| *name).collect());
        let facts: Vec<Value> = rates().filter(|(_, rate)| rate.failed > 0).take(20).map(facts).collect();
        Ok(Reading::new(percent, message).count(ended).with("rates", facts).jobs(sampled(jobs).await))
    }
}

fn facts((name, rate): (Option<&JobName>, Rate)) -> Value {
    let (name, percent) = (name.map(JobName::as_str), rate.percent());
    json!({ "name": name, "completed": rate.completed, "failed": rate.failed, "percent": percent })
}

/// Jobs that nothing moves although something should.
struct StuckJobs;

#[async_trait]
impl AlertRule for StuckJobs {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let count = stuck::total(&context.stats);
        let found = match count {
            0 => Vec::new(),
            _ => sampled(stuck::list(&*context.store, &context.stats, &context.cutoffs, SAMPLES)).await,
        };
        let reasons: Vec<String> = found.iter().map(|stuck| format!("{:?}", stuck.reason)).collect();
        let jobs = found.into_iter().map(|stuck| stuck.job.id);
        Ok(Reading::new(count as f64, format!("{count} jobs are stuck")).with("reasons", reasons).jobs(jobs))
    }
}

/// The 95th percentile of the queue time, in seconds, of the type that waits longest. Jobs that started during or soon after
/// an outage of the store do not count: they waited for the store.
struct QueueWait;

#[async_trait]
impl AlertRule for QueueWait {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let Some(stats) = context.stats_after_outage(context.window().min(QUEUE_WINDOW)) else {
            return Ok(Reading::no_data());
        };
        let types = stats.job_types.iter().filter(|(name, _)| !context.is_paused(name));
        let waits = types.filter_map(|(name, figures)| Some((figures.queue_time.p95?, name)));
        let Some((wait, name)) = waits.max() else { return Ok(Reading::new(0.0, "no job started")) };
        let seconds = wait.as_secs_f64();
        let message = format!("the p95 of the queue time of {name} is {seconds:.1} s");
        Ok(Reading::new(seconds, message).with("job_type", name.as_str()))
    }
}

/// The wait of the runnable job that waits longest, in seconds.
struct OldestQueued;

#[async_trait]
impl AlertRule for OldestQueued {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let wait = |of_type: &&TypeStats| wait(context, of_type);
        let oldest = context.stats.types.iter().max_by_key(wait).filter(|of_type| !wait(of_type).is_zero());
        let Some(oldest) = oldest else { return Ok(Reading::new(0.0, "no job waits")) };
        let seconds = wait(&oldest).as_secs_f64();
        let message = format!("a job of {} has waited for {seconds:.1} s", oldest.name);
        let jobs = sampled(samples::of(context, &WAITING, vec![&oldest.name])).await;
        Ok(Reading::new(seconds, message).with("job_type", oldest.name.as_str()).jobs(jobs))
    }
}

/// Types with waiting jobs that no live worker runs.
struct NoWorkers;

#[async_trait]
impl AlertRule for NoWorkers {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let stats = &context.stats;
        let is_left = |of_type: &&TypeStats| {
            let cutoffs = context.cutoffs.iter().find(|cutoffs| cutoffs.name == of_type.name);
            let patience = cutoffs.map_or(WORKER_START, |cutoffs| cutoffs.stuck_after.min(WORKER_START));
            wait(context, of_type) > patience && !stats.workers.iter().any(|worker| worker.runs(&of_type.name))
        };
        let left: Vec<&JobName> = stats.types.iter().filter(is_left).map(|of_type| &of_type.name).collect();
        let names: Vec<&str> = left.iter().map(|name| name.as_str()).collect();
        let message = match names.is_empty() {
            true => "every job type with waiting jobs has a live worker".to_owned(),
            false => format!("no live worker runs {}, and jobs wait", names.join(", ")),
        };
        let jobs = sampled(samples::of(context, &WAITING, left.clone())).await;
        Ok(Reading::new(left.len() as f64, message).with("job_types", names).jobs(jobs))
    }
}

/// How long a type's jobs wait, counted from the end of the last outage of the store if that is later. Those of a paused type
/// wait because an operator decided so.
fn wait(context: &RuleContext, of_type: &TypeStats) -> Duration {
    let oldest = of_type.oldest_runnable.filter(|_| !context.is_paused(of_type.name.as_str()));
    let since = oldest.map(|oldest| context.muted_at.map_or(oldest, |muted_at| oldest.max(muted_at)));
    since.map_or(Duration::ZERO, |since| context.now().since(since))
}

/// The largest value that a process reported for a rule. One of too few events counts only if there is no other.
struct Worst {
    rule: &'static str,
    says: &'static str,
}

#[async_trait]
impl AlertRule for Worst {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let is_counted = |value: &InstanceValue| value.count.is_none_or(|count| count >= context.min_count());
        let values = context.instances.iter().filter(|value| value.rule == self.rule);
        let worst = values.max_by(|a, b| is_counted(a).cmp(&is_counted(b)).then_with(|| a.value.total_cmp(&b.value)));
        let Some(worst) = worst else { return Ok(Reading::new(0.0, self.says).count(0)) };
        let message = format!("{}: {:.1} % in process {}", self.says, worst.value, worst.instance);
        let reading = Reading::new(worst.value, message).with("instance", worst.instance.as_str());
        Ok(match worst.count {
            Some(count) => reading.count(count),
            None => reading,
        })
    }
}
