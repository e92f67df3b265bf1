//! The expected statistics, counted job by job. Must not know how stores count.

use std::time::Duration;

use async_endpoints_core::{
    JobStatus, Store, Timestamp,
    limits::STATS_MINUTES,
    store::{StatsQuery, TypeCutoffs, TypeStats},
};

use super::{
    compare::{Comparison, answered, odd, same},
    state::{Job, Model},
};
use crate::jobs::name;

/// Compares all counts and minutes.
pub(super) async fn compare(store: &dyn Store, model: &Model) -> Comparison {
    let cutoffs = ["alpha", "beta"].map(|of| TypeCutoffs {
        name: name(of),
        slow_after: odd(3, 1),
        overdue_after: odd(9, 1),
        stuck_after: odd(5, 1),
    });
    let since = model.now.minute() - STATS_MINUTES + 1;
    let query = StatsQuery { since_minute: Some(since), cutoffs: cutoffs.to_vec() };
    let stats = store.stats(&query).await.map_err(answered)?;
    same("the time", &stats.now, &model.now)?;
    same("quarantined", &stats.quarantined, &0)?;
    let minutes = model.minutes.values().filter(|minute| minute.minute >= since).cloned().collect();
    same("the minutes", &stats.minutes, &minutes)?;
    for cutoff in &cutoffs {
        let jobs: Vec<&Job> = model.jobs.iter().filter(|job| job.view.name == cutoff.name).collect();
        match stats.types.iter().find(|of_type| of_type.name == cutoff.name) {
            Some(of_type) => compare_type(of_type, &jobs, cutoff, model)?,
            None => same("jobs of a type that is not counted", &jobs.len(), &0)?,
        }
    }
    Ok(())
}

fn compare_type(of_type: &TypeStats, jobs: &[&Job], cutoff: &TypeCutoffs, model: &Model) -> Comparison {
    for status in JobStatus::ALL {
        let of = || jobs.iter().filter(|job| job.view.status == status);
        let least = of().filter(|job| model.readable(job)).count() as u64;
        // Expired jobs may be counted until they are pruned.
        let most = of().filter(|job| !job.pruned || model.readable(job)).count() as u64;
        if !(least..=most).contains(&of_type.count(status)) {
            return Err(format!("{} {status} counted, {least} to {most} are there", of_type.count(status)));
        }
    }
    let old = |since: Option<Timestamp>, than: Duration| since.is_some_and(|since| model.now.since(since) > than);
    let count = |holds: &dyn Fn(&Job) -> bool| jobs.iter().filter(|job| holds(job)).count() as u64;
    let scheduled = |job: &Job| job.view.status == JobStatus::Scheduled;
    let running = |job: &Job| job.view.status == JobStatus::InProgress;
    let runnable =
        |job: &Job| job.view.status == JobStatus::Queued || scheduled(job) && job.view.scheduled_at <= Some(model.now);
    same("never started", &of_type.never_started, &count(&|job| scheduled(job) && job.view.attempt == 0))?;
    let started = jobs.iter().filter(|job| running(job)).filter_map(|job| job.view.started_at).min();
    same("the longest running", &of_type.oldest_running, &started)?;
    let (slow, overdue) = (cutoff.slow_after, cutoff.overdue_after);
    same("slow", &of_type.slow, &count(&|job| running(job) && old(job.view.started_at, slow)))?;
    same("overdue", &of_type.overdue, &count(&|job| running(job) && old(job.view.started_at, overdue)))?;
    let late = |job: &Job| running(job) && old(Some(job.expires), cutoff.stuck_after);
    same("unrecovered", &of_type.unrecovered, &count(&late))?;
    // A requeued job has an old order number and a short wait. A store that reads only the heads of its indexes may then miss
    // the oldest runnable job, which the contract allows.
    if jobs.iter().any(|job| job.view.status == JobStatus::Queued && job.returned) {
        return Ok(());
    }
    let since = jobs.iter().filter(|job| runnable(job)).map(|job| job.runnable_since).min();
    same("the oldest runnable", &of_type.oldest_runnable, &since)?;
    same("stale", &of_type.stale, &count(&|job| runnable(job) && old(Some(job.runnable_since), cutoff.stuck_after)))
}
