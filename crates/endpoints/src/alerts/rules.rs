//! The built-in rules.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, StoreError,
    store::{ListFilter, Page, TypeStats},
};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    alert::{AlertType, Severity},
    instances::{InstanceValue, MEMORY, STORE_ERRORS},
    rule::{AlertRule, Reading, Rule, RuleContext},
};
use crate::{health::BoxError, store_call::within, stuck};

/// Number of sample jobs. The alert shows the first three.
const SAMPLES: usize = 3;
/// Number of jobs at the beginning of a list among which samples are searched.
const PAGE_JOBS: u32 = 50;
/// Time limit of reading samples. A rule has 10 s in all.
const SAMPLE_TIME: Duration = Duration::from_secs(3);
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
struct SlowJobs;

#[async_trait]
impl AlertRule for SlowJobs {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let running: u64 = context.stats.types.iter().map(|of_type| of_type.slow).sum();
        let (ended, memory) = ended_slow(context);
        let slow = running + ended;
        let jobs = if slow == 0 { Vec::new() } else { sampled(slow_samples(context, ended)).await };
        let message = format!("slow attempts: {running} running, {ended} ended since the last evaluation");
        let reading = Reading::new(slow as f64, message).with("running", running).with("ended", ended);
        Ok(reading.jobs(jobs).remember(memory))
    }
}

/// Ids of jobs that run slow, then of jobs that ended after a slow attempt since the last evaluation, if there are any.
async fn slow_samples(context: &RuleContext, ended: u64) -> Result<Vec<JobId>, StoreError> {
    let (mut jobs, last) = (Vec::new(), last_evaluation(context).0);
    let statuses = [JobStatus::InProgress, JobStatus::Completed, JobStatus::Failed];
    for status in if ended == 0 { &statuses[..1] } else { &statuses[..] } {
        for cutoffs in context.cutoffs.iter() {
            if jobs.len() >= SAMPLES {
                return Ok(jobs);
            }
            let is_slow = |job: &JobView| {
                let ended = job.completed_at.filter(|end| end.minute() >= last);
                let end = if *status == JobStatus::InProgress { Some(context.now()) } else { ended };
                job.started_at.zip(end).is_some_and(|(start, end)| end.since(start) > cutoffs.slow_after)
            };
            jobs.extend(first(context, *status, &cutoffs.name, is_slow).await?);
        }
    }
    Ok(jobs)
}

/// Slow attempts that ended since the last evaluation, and what the next one must know: a minute with the number that it had.
/// The first evaluation counts the current minute.
fn ended_slow(context: &RuleContext) -> (u64, Value) {
    let slow_from = |from: i64| -> u64 {
        context.stats.minutes.iter().filter(|minute| minute.minute >= from).map(|minute| minute.slow).sum()
    };
    let now = context.now().minute();
    let (since, known) = last_evaluation(context);
    (slow_from(since).saturating_sub(known), json!({ "minute": now, "slow": slow_from(now) }))
}

/// The minute of the last evaluation, and the number of slow attempts that it had. The current minute before the first one.
fn last_evaluation(context: &RuleContext) -> (i64, u64) {
    let last = context.memory();
    (last["minute"].as_i64().unwrap_or(context.now().minute()), last["slow"].as_u64().unwrap_or(0))
}

/// The percentage of failed jobs among the ended ones: of all jobs, or of the type that fails most.
struct FailureRate;

#[async_trait]
impl AlertRule for FailureRate {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let first = crate::stats::covering_minute(context.now(), context.window());
        let rates = ended(context, first);
        let counted = rates.iter().filter(|rate| rate.count() >= context.min_count());
        let worst = counted.max_by(|a, b| a.percent().total_cmp(&b.percent())).or(rates.first());
        let Some(worst) = worst else { return Ok(Reading::new(0.0, "no job ended").count(0)) };
        let of = worst.name.as_ref().map_or_else(|| "all jobs".to_owned(), |name| format!("the jobs of {name}"));
        let message =
            format!("{:.2} % of {of} failed: {} of {} ended jobs", worst.percent(), worst.failed, worst.count());
        let failing = rates.iter().filter(|rate| rate.failed > 0).filter_map(|rate| rate.name.as_ref());
        // Those of the rate alone, unless it is the rate of all jobs.
        let names = failing.filter(|name| worst.name.as_ref().is_none_or(|worst| worst == *name));
        let jobs = sampled(samples(context, &[JobStatus::Failed], names.collect())).await;
        let types: Vec<Value> = rates.iter().filter(|rate| rate.failed > 0).take(20).map(Ended::facts).collect();
        Ok(Reading::new(worst.percent(), message).count(worst.count()).with("rates", types).jobs(jobs))
    }
}

/// Ended jobs of a type, or of all types.
struct Ended {
    name: Option<JobName>,
    completed: u64,
    failed: u64,
}

impl Ended {
    const fn count(&self) -> u64 {
        self.completed + self.failed
    }

    fn percent(&self) -> f64 {
        if self.failed == 0 { 0.0 } else { 100.0 * self.failed as f64 / self.count() as f64 }
    }

    fn facts(&self) -> Value {
        let name = self.name.as_ref().map(ToString::to_string);
        json!({ "name": name, "completed": self.completed, "failed": self.failed, "percent": self.percent() })
    }
}

/// The ended jobs of all types together, then of each type, since a minute.
fn ended(context: &RuleContext, since: i64) -> Vec<Ended> {
    let mut all = vec![Ended { name: None, completed: 0, failed: 0 }];
    for minute in context.stats.minutes.iter().filter(|minute| minute.minute >= since) {
        let [completed, failed, _] = minute.ended;
        let at = all.iter().position(|rate| rate.name.as_ref() == Some(&minute.name)).unwrap_or_else(|| {
            all.push(Ended { name: Some(minute.name.clone()), completed: 0, failed: 0 });
            all.len() - 1
        });
        for i in [0, at] {
            all[i].completed += completed;
            all[i].failed += failed;
        }
    }
    all
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
        let waits = stats.job_types.iter().filter_map(|(name, figures)| Some((figures.queue_time.p95?, name)));
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
        let jobs = sampled(samples(context, &WAITING, vec![&oldest.name])).await;
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
        let message = format!("no live worker runs {}, and jobs wait", names.join(", "));
        let jobs = sampled(samples(context, &WAITING, left.clone())).await;
        Ok(Reading::new(left.len() as f64, message).with("job_types", names).jobs(jobs))
    }
}

fn wait(context: &RuleContext, of_type: &TypeStats) -> Duration {
    of_type.oldest_runnable.map_or(Duration::ZERO, |since| context.now().since(since))
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

/// Reads samples within a short time. Without them, the rule still has its value.
async fn sampled<T>(read: impl Future<Output = Result<Vec<T>, StoreError>>) -> Vec<T> {
    timeout(SAMPLE_TIME, read).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Ids of the first jobs of these types in these states. A Scheduled job counts from its due time on.
async fn samples(
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
            let is_due = |job: &JobView| *status != JobStatus::Scheduled || job.scheduled_at <= Some(context.now());
            jobs.extend(first(context, *status, name, is_due).await?);
        }
    }
    Ok(jobs)
}

/// Ids of the jobs at the beginning of a list that are `wanted`.
async fn first(
    context: &RuleContext,
    status: JobStatus,
    name: &JobName,
    wanted: impl Fn(&JobView) -> bool,
) -> Result<Vec<JobId>, StoreError> {
    let filter = ListFilter { status: Some(status), name: Some(name.clone()), owner: None };
    let page = within(context.store.list(&filter, &Page { cursor: None, limit: PAGE_JOBS })).await?;
    Ok(page.jobs.iter().filter(|job| wanted(job)).take(SAMPLES).map(|job| job.id).collect())
}
