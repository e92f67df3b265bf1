//! How a report is printed: what happened, set by set what became of the jobs, and how long it took to come back.

use std::{fmt, time::Duration};

use crate::{Report, recovery::quantile};

/// So many examples of each broken promise.
const EXAMPLES: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.happened {
            row(f, what, *times)?;
        }
        writeln!(f)?;
        row(f, "jobs accepted", self.accepted)?;
        row(f, "  found in the end", self.found)?;
        row(f, "  seen to have ended by clients meanwhile", self.seen_ended)?;
        row(f, "submissions refused, and repeated", self.refused.len())?;
        if !self.tail.is_empty() {
            row(f, "gone with the last second before a promotion", self.tail.len())?;
        }
        for (promise, broken) in self.broken() {
            row(f, &format!("  {promise}"), broken.len())?;
        }
        let ends: Vec<String> = self.ends.iter().map(|(status, n)| format!("{n} {status}")).collect();
        writeln!(f, "  ended: {}", ends.join(", "))?;
        writeln!(f)?;
        row(f, "attempts that a kill cut off, outages apart", self.recovery.cut_off)?;
        let times = [
            ("from a kill to the next attempt", &self.recovery.after_kill),
            ("from an outage's end to the next attempt", &self.recovery.after_outage),
            ("from a cut's end to the worker's next attempt", &self.recovery.after_cut),
            ("until a submission was refused", &self.refused),
        ];
        for (what, times) in times.iter().filter(|(_, times)| !times.is_empty()) {
            writeln!(f, "  {what:<46}{}", quantiles(times))?;
        }
        self.examples(f)
    }
}

impl Report {
    fn examples(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (promise, broken) in self.broken() {
            for example in broken.iter().take(EXAMPLES) {
                writeln!(f, "  {promise}: {example}")?;
            }
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, what: &str, number: usize) -> fmt::Result {
    writeln!(f, "  {what:<52}{number:>10}")
}

fn quantiles(times: &[Duration]) -> String {
    let seconds = |q| quantile(times, q).map_or("-".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()));
    format!("p50 {}, p99 {}, at most {}", seconds(0.5), seconds(0.99), seconds(1.0))
}
