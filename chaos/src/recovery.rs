//! Recovery times after the kill of a process, after an outage, and after a disconnection.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    document::{attempts, text},
    fault::Fault,
    history::{FaultEvent, FaultHistory, after, between},
    ledger::Line,
    load::ANSWER_LIMIT,
};

#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Number of attempts that a kill interrupted. Kills during outages do not count.
    pub(crate) interrupted: usize,
    /// From the kill to the start of the next attempt, for each of them.
    pub(crate) after_kill: Vec<Duration>,
    /// From the end of an outage to the next start of any attempt.
    pub(crate) after_outage: Vec<Duration>,
    /// From the end of a disconnection to the next start by the same worker.
    pub(crate) after_cut: Vec<Duration>,
    /// Recoveries that took longer than the limit.
    pub(crate) late_after_outage: Vec<String>,
    pub(crate) late_after_cut: Vec<String>,
}

impl Recovery {
    /// `end` is the time of the last submission.
    pub(crate) fn of(history: &FaultHistory, lines: &[Line], jobs: &[Value], end: Timestamp) -> Self {
        let mut recovery = Self::default();
        for job in jobs {
            recovery.kills(history, lines, job);
        }
        for event in &history.events {
            let limit = after(event.until, ANSWER_LIMIT);
            let took = match event.fault {
                fault if fault.is_outage() && event.alone => started(lines, event.until, None),
                // A process that is in the next outage already cannot recover in time.
                Fault::CutOff(..) if !history.is_outage(event.until, limit) => {
                    started(lines, event.until, event.process)
                }
                _ => continue,
            };
            // After the last submission there may be no job left to start.
            if limit < end || took.is_some_and(|took| took <= ANSWER_LIMIT) {
                recovery.recovered(event, took);
            }
        }
        recovery
    }

    fn recovered(&mut self, event: &FaultEvent, took: Option<Duration>) {
        let (times, late) = match event.process {
            None => (&mut self.after_outage, &mut self.late_after_outage),
            Some(_) => (&mut self.after_cut, &mut self.late_after_cut),
        };
        times.extend(took);
        if took.is_none_or(|took| took > ANSWER_LIMIT) {
            late.push(format!("{took:?} after {event:?}"));
        }
    }

    /// Records recovery times of the attempts that a kill interrupted.
    fn kills(&mut self, history: &FaultHistory, lines: &[Line], job: &Value) {
        let attempts = attempts(job);
        for attempt in attempts.iter().filter(|attempt| attempt["outcome"] == "lost") {
            let number = attempt["attempt"].as_u64().unwrap_or_default();
            let start = lines.iter().find(|line| !line.is_end && line.attempt == number && line.job == text(job, "id"));
            let Some(killed) = start.and_then(|start| history.killed.get(&start.process)) else { continue };
            let next = attempts.iter().find(|next| next["attempt"].as_u64() == Some(number + 1));
            let next = next.and_then(|next| text(next, "startedAt").parse::<Timestamp>().ok());
            if next.is_some_and(|next| history.is_outage(*killed, next)) {
                continue;
            }
            self.interrupted += 1;
            // Attempts that were lost before the kill do not count.
            self.after_kill.extend(next.filter(|next| next > killed).map(|next| between(*killed, next)));
        }
    }
}

/// Time from `from` to the next start of an attempt, by any process or by the given one.
fn started(lines: &[Line], from: Timestamp, process: Option<u32>) -> Option<Duration> {
    let by = |line: &&Line| process.is_none_or(|process| line.process == process);
    let next = lines.iter().filter(by).find(|line| !line.is_end && line.at >= from)?;
    Some(between(from, next.at))
}

/// The `q` quantile; `None` without values.
pub(crate) fn quantile(times: &[Duration], q: f64) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * q).round() as usize).copied()
}
