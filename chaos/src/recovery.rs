//! How long it took to come back: after the kill of a process, after an outage, after one was cut off.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    diary::{Happened, Pages, after, between},
    fault::Fault,
    ledger::Line,
    load::PROMISED,
    report::{attempts, text},
};

#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Attempts that a kill cut off, outages apart: nobody recovers anything during those.
    pub(crate) cut_off: usize,
    /// From the kill to the start of the next attempt, of each of them.
    pub(crate) after_kill: Vec<Duration>,
    /// From the end of an outage to the next start of any attempt.
    pub(crate) after_outage: Vec<Duration>,
    /// From the end of its being cut off to the next start by that worker.
    pub(crate) after_cut: Vec<Duration>,
    /// Those that took longer than was promised.
    pub(crate) late_after_outage: Vec<String>,
    pub(crate) late_after_cut: Vec<String>,
}

impl Recovery {
    /// Of a run whose clients submitted until it was `over`.
    pub(crate) fn of(pages: &Pages, lines: &[Line], jobs: &[Value], over: Timestamp) -> Self {
        let mut recovery = Self::default();
        for job in jobs {
            recovery.kills(pages, lines, job);
        }
        for happened in &pages.happened {
            let limit = after(happened.until, PROMISED);
            let came = match happened.fault {
                fault if fault.is_outage() && happened.alone => started(lines, happened.until, None),
                // Who is in the next outage already does not come back in time.
                Fault::CutOff(..) if !pages.is_outage(happened.until, limit) => {
                    started(lines, happened.until, happened.process)
                }
                _ => continue,
            };
            // At the very end there may be nothing left to start.
            if limit < over || came.is_some_and(|came| came <= PROMISED) {
                recovery.came_back(happened, came);
            }
        }
        recovery
    }

    fn came_back(&mut self, happened: &Happened, came: Option<Duration>) {
        let (times, late) = match happened.process {
            None => (&mut self.after_outage, &mut self.late_after_outage),
            Some(_) => (&mut self.after_cut, &mut self.late_after_cut),
        };
        times.extend(came);
        if came.is_none_or(|came| came > PROMISED) {
            late.push(format!("{came:?} after {happened:?}"));
        }
    }

    /// How long it took until an attempt followed those that a kill cut off.
    fn kills(&mut self, pages: &Pages, lines: &[Line], job: &Value) {
        let attempts = attempts(job);
        for attempt in attempts.iter().filter(|attempt| attempt["outcome"] == "lost") {
            let number = attempt["attempt"].as_u64().unwrap_or_default();
            let start = lines.iter().find(|line| !line.is_end && line.attempt == number && line.job == text(job, "id"));
            let Some(killed) = start.and_then(|start| pages.killed.get(&start.process)) else { continue };
            let next = attempts.iter().find(|next| next["attempt"].as_u64() == Some(number + 1));
            let next = next.and_then(|next| text(next, "startedAt").parse::<Timestamp>().ok());
            if next.is_some_and(|next| pages.is_outage(*killed, next)) {
                continue;
            }
            self.cut_off += 1;
            // One that was lost before its process was killed says nothing about the kill.
            self.after_kill.extend(next.filter(|next| next > killed).map(|next| between(*killed, next)));
        }
    }
}

/// How long after that moment the next attempt started, of any process or of that one.
fn started(lines: &[Line], from: Timestamp, process: Option<u32>) -> Option<Duration> {
    let by = |line: &&Line| process.is_none_or(|process| line.process == process);
    let next = lines.iter().filter(by).find(|line| !line.is_end && line.at >= from)?;
    Some(between(from, next.at))
}

/// The share `q` is no longer.
pub(crate) fn quantile(times: &[Duration], q: f64) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * q).round() as usize).copied()
}
