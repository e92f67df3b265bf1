//! Prints a report: faults, jobs, violated guarantees and recovery times.

use std::{fmt, time::Duration};

use crate::{Report, recovery::quantile};

/// Maximum number of examples of each violation.
const EXAMPLES: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.faults {
            row(f, what, *times)?;
        }
        writeln!(f)?;
        row(f, "jobs accepted", self.accepted)?;
        row(f, "  found at the end", self.found)?;
        row(f, "  read by clients after their end", self.seen_ended)?;
        row(f, "submissions answered 5xx and repeated", self.refused.len())?;
        if !self.lost_by_failover.is_empty() {
            row(f, "affected by a promotion's lost second", self.lost_by_failover.len())?;
        }
        for (violation, found) in self.violations() {
            row(f, &format!("  {violation}"), found.len())?;
        }
        let ends: Vec<String> = self.ends.iter().map(|(status, n)| format!("{n} {status}")).collect();
        writeln!(f, "  ended: {}", ends.join(", "))?;
        writeln!(f)?;
        row(f, "attempts interrupted by a kill, outside outages", self.recovery.interrupted)?;
        let times = [
            ("from a kill to the next attempt", &self.recovery.after_kill),
            ("from the end of an outage to the next attempt", &self.recovery.after_outage),
            ("from reconnection to the worker's next attempt", &self.recovery.after_cut),
            ("until a submission was answered 5xx", &self.refused),
        ];
        for (what, times) in times.iter().filter(|(_, times)| !times.is_empty()) {
            writeln!(f, "  {what:<46}{}", quantiles(times))?;
        }
        self.examples(f)
    }
}

impl Report {
    fn examples(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (violation, found) in self.violations() {
            for example in found.iter().take(EXAMPLES) {
                writeln!(f, "  {violation}: {example}")?;
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
