//! Why a job waits.

use async_endpoints_core::Timestamp;

use super::{
    Facts, Found, QueuePosition, Reason, ReasonCode, Viewer, estimate,
    text::{self, count, duration, error, reason},
};
use crate::{
    capacity::{Capacity, is_held_by_limit},
    types::TypePause,
};

pub(super) fn reasons(facts: &Facts<'_>) -> Found {
    let taking = facts.taking();
    let paused = facts.pause.map(|pause| paused(facts, pause));
    let no_worker = taking.is_empty().then(|| no_worker(facts));
    let (verdict, mut reasons) = match facts.due() {
        Some(due) => not_due(facts, due),
        None => runnable(facts, &taking),
    };
    let verdict = match (&paused, &no_worker, facts.due()) {
        (_, _, Some(_)) | (None, None, None) => verdict,
        (Some(_), _, None) => format!("The job waits because {} is paused.", facts.job.name),
        (None, Some(_), None) => format!("The job waits because no live worker runs {}.", facts.job.name),
    };
    // A job that is not due waits for its due time first.
    let at = if facts.due().is_some() { reasons.len() } else { 0 };
    reasons.splice(at..at, paused.into_iter().chain(no_worker));
    (verdict, reasons)
}

fn paused(facts: &Facts<'_>, pause: &TypePause) -> Reason {
    let why = if facts.viewer == Viewer::Operator { format!(": {}", pause.reason) } else { String::new() };
    let detail = format!("An operator paused {}{why}", facts.job.name);
    let end = if detail.ends_with('.') { "" } else { "." };
    reason(ReasonCode::Paused, detail + end).since(pause.since).until(pause.until)
}

fn no_worker(facts: &Facts<'_>) -> Reason {
    let detail = match facts.live().count() {
        0 => "There is no live worker.".to_owned(),
        live => format!("None of {} has a handler for {}.", count(live as u64, "live worker"), facts.job.name),
    };
    reason(ReasonCode::NoWorker, detail)
}

/// A job whose due time is in the future: delayed by its submission, or waiting for a retry.
fn not_due(facts: &Facts<'_>, due: Timestamp) -> Found {
    let job = facts.job;
    let wait = duration(due.since(facts.now()));
    let Some(failed) = facts.last_attempt() else {
        let verdict = format!("The job is delayed. It is due in {wait}.");
        let delay = duration(due.since(job.created_at));
        let detail = format!("Its submission set a delay of {delay}.");
        return (verdict, vec![reason(ReasonCode::Delayed, detail).since(job.created_at).until(due)]);
    };
    let (short, long) = (text::code(failed.error.as_ref()), error(failed.error.as_ref()));
    let attempt = failed.attempt;
    let verdict = format!("Attempt {attempt} failed with {short}. The retry is due in {wait}.");
    let detail =
        format!("Attempt {attempt} failed with {long}. This is retry {} of {}.", job.retry_count, job.max_retries);
    (verdict, vec![reason(ReasonCode::RetryBackoff, detail).since(failed.ended_at).until(due)])
}

/// A runnable job: workers are busy or at their limit, or jobs are ahead of it.
fn runnable(facts: &Facts<'_>, taking: &[Capacity<'_>]) -> Found {
    let since = facts.runnable_since();
    let position = estimate::position(facts);
    let is_free = taking.iter().any(|capacity| capacity.free() > 0);
    let at_limit: Vec<_> = taking.iter().filter(|capacity| capacity.is_at_limit()).collect();
    let busy: Vec<_> = taking.iter().filter(|capacity| capacity.worker.info.slots.idle == 0).collect();
    let (mut reasons, mut verdict) = (Vec::new(), String::new());
    if is_held_by_limit(taking) {
        let workers = count(at_limit.len() as u64, "worker");
        verdict = format!("The job waits because {workers} reached the limit for {}.", facts.job.name);
        reasons.push(reason(ReasonCode::ConcurrencyLimit, limit(facts, &at_limit, &workers)));
    }
    if !is_free && !busy.is_empty() {
        let slots: u64 = busy.iter().map(|capacity| u64::from(capacity.worker.info.slots.busy)).sum();
        let workers = count(busy.len() as u64, "worker");
        let detail = format!("None of {} of {workers} is free.", count(slots, "slot"));
        if verdict.is_empty() {
            verdict = format!("The job waits for a free slot{}.", behind(position));
        }
        reasons.push(reason(ReasonCode::SlotsBusy, detail));
    }
    let ahead = position.map_or(0, |position| position.ahead);
    if ahead > 0 || reasons.is_empty() {
        if verdict.is_empty() {
            verdict = match ahead {
                0 => "The job is next. A worker takes it with its next claim.".to_owned(),
                _ => format!("The job waits{}.", behind(position)),
            };
        }
        let detail = match ahead {
            0 => "No job of its type is ahead of it.".to_owned(),
            _ => format!("The queue of {} has {} ahead of it.", facts.job.name, jobs_ahead(position)),
        };
        reasons.push(reason(ReasonCode::Queued, detail));
    }
    (verdict, reasons.into_iter().map(|reason| reason.since(since)).collect())
}

/// `4 of 4 allowed attempts run: an operator's limit is 2 per process.`
fn limit(facts: &Facts<'_>, at_limit: &[&Capacity<'_>], workers: &str) -> String {
    let sum =
        |number: fn(&Capacity<'_>) -> u32| at_limit.iter().map(|capacity| u64::from(number(capacity))).sum::<u64>();
    let (running, allowed) = (sum(|capacity| capacity.running), sum(|capacity| capacity.allowed));
    let is_operators = |limit: &u32| at_limit.iter().any(|capacity| capacity.allowed == *limit);
    let why = match facts.per_process.filter(is_operators) {
        Some(limit) => format!(": an operator's limit is {limit} per process"),
        None => format!(" in {workers} with free slots"),
    };
    format!("{running} of {allowed} allowed attempts run{why}.")
}

fn behind(position: Option<QueuePosition>) -> String {
    match position.map_or(0, |position| position.ahead) {
        0 => String::new(),
        _ => format!(" behind {}", jobs_ahead(position)),
    }
}

/// `7 jobs`, or `about 7 jobs`.
fn jobs_ahead(position: Option<QueuePosition>) -> String {
    let about = if position.is_none_or(|position| position.exact) { "" } else { "about " };
    format!("{about}{}", count(position.map_or(0, |position| position.ahead), "job"))
}
