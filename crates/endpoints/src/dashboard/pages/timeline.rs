//! The life of a job as a bar: waits and attempts, each as wide as it was long.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use super::super::format::duration;
use crate::{
    JobView, Timestamp,
    core::job::{AttemptOutcome, AttemptRecord},
};

/// The least width of a part, of 1 000.
const LEAST: f64 = 12.0;

/// A part of the life of a job.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    /// The attempt; none for a wait.
    attempt: Option<u32>,
    /// None while it lasts.
    outcome: Option<AttemptOutcome>,
    /// So far, if it lasts.
    took: Duration,
    lasts: bool,
}

impl Part {
    fn text(&self) -> String {
        let took = duration(self.took);
        match (self.attempt, self.outcome) {
            // No duration: the page is refreshed too rarely while a job waits, so it would be stale.
            (None, _) if self.lasts => "waiting".to_owned(),
            (None, _) => format!("waited {took}"),
            (Some(attempt), None) => format!("#{attempt} running {took}"),
            (Some(attempt), Some(outcome)) => format!("#{attempt} {} {took}", word(outcome)),
        }
    }

    fn class(&self) -> &'static str {
        match (self.attempt, self.outcome) {
            (None, _) => "wait",
            (_, None) => "running",
            (_, Some(outcome)) => word(outcome),
        }
    }
}

/// The parts of the life of a job until `now`, in order.
fn parts(job: &JobView, now: Timestamp) -> Vec<Part> {
    let mut parts = Vec::new();
    // Of a long history, only the last attempts are kept.
    let is_whole = job.attempts.first().is_none_or(|first| first.attempt == 1);
    let mut last = is_whole.then_some(job.created_at);
    for AttemptRecord { attempt, started_at, ended_at, outcome, .. } in &job.attempts {
        if let Some(waited) = last.map(|last| started_at.since(last)).filter(|waited| !waited.is_zero()) {
            parts.push(Part { attempt: None, outcome: None, took: waited, lasts: false });
        }
        let took = ended_at.unwrap_or(now).since(*started_at);
        parts.push(Part { attempt: Some(*attempt), outcome: *outcome, took, lasts: ended_at.is_none() });
        last = *ended_at;
    }
    let is_over = |last: &Timestamp| job.completed_at.is_some_and(|completed| completed <= *last);
    if let Some(last) = last.filter(|last| !is_over(last)) {
        let took = job.completed_at.unwrap_or(now).since(last);
        parts.push(Part { attempt: None, outcome: None, took, lasts: job.completed_at.is_none() });
    }
    parts
}

/// The widths of parts, which add up to 1 000. Short parts stay visible.
fn widths(parts: &[Part]) -> Vec<f64> {
    let total: f64 = parts.iter().map(|part| part.took.as_secs_f64()).sum();
    let raw = parts.iter().map(|part| (1_000.0 * part.took.as_secs_f64() / total.max(f64::MIN_POSITIVE)).max(LEAST));
    let raw: Vec<f64> = raw.collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|width| 1_000.0 * width / sum).collect()
}

/// Where each part begins, and its width.
fn places(parts: &[Part]) -> Vec<(f64, f64)> {
    let mut end = 0.0;
    let place = |width: f64| {
        let left = end;
        end += width;
        (left, width)
    };
    widths(parts).into_iter().map(place).collect()
}

pub(super) fn section(job: &JobView) -> Markup {
    // The seconds of a running job, so that the region changes once a second at most.
    let now = Timestamp::from(SystemTime::now()).as_micros().div_euclid(1_000_000) * 1_000_000;
    let parts = parts(job, Timestamp::from_micros(now).max(job.last_updated_at));
    html! {
        section {
            h2 { "Timeline" }
            svg.timeline viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true" {
                @for (part, (left, width)) in parts.iter().zip(places(&parts)) {
                    rect class=(part.class()) x=(format!("{left:.1}")) y="2" width=(format!("{:.1}", (width - 2.0).max(2.0)))
                        height="20" { title { (part.text()) } }
                }
            }
            ol.parts { @for part in &parts { li class=(part.class()) { (part.text()) } } }
        }
    }
}

const fn word(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Completed => "completed",
        AttemptOutcome::Retried => "retried",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::Canceled => "canceled",
        AttemptOutcome::Released => "released",
        AttemptOutcome::Lost => "lost",
    }
}

/// How an attempt ended, as a word with a mark.
pub(super) fn outcome(outcome: Option<AttemptOutcome>) -> Markup {
    let (class, text) = match outcome {
        None => ("inprogress", "running"),
        Some(outcome) => (word(outcome), word(outcome)),
    };
    html! { span class={ "status " (class) } { (text) } }
}
