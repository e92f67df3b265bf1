//! The burn rate of a job type's error budget, as a rule.

use std::time::Duration;

use async_endpoints_core::{JobName, JobStatus};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    alert::{AlertType, Severity},
    plan::NAME,
    rule::{AlertRule, Reading, Rule, RuleContext},
    samples::{self, sampled},
    senders::SettingError,
};
use crate::{
    failure_rate::{self, FailureRate},
    health::BoxError,
    job_type::JobType,
    stats,
};

/// Two windows in which the burn rate must be above a limit.
#[derive(Clone, Copy)]
struct Windows {
    long: Duration,
    /// Lets the alert resolve soon after the failures have ended.
    short: Duration,
    limit: f64,
}

/// The windows of the SRE workbook for pages. At its limit, the first pair uses up 2 % of the error budget of 30 days in an
/// hour, the second one 5 % in six hours.
const WINDOWS: [Windows; 2] = [
    Windows { long: Duration::from_secs(60 * 60), short: Duration::from_secs(5 * 60), limit: 14.4 },
    Windows { long: Duration::from_secs(6 * 60 * 60), short: Duration::from_secs(30 * 60), limit: 6.0 },
];

/// The lowest objective. With less than 83.4 %, failures of all jobs would burn the budget slower than any limit.
const LOWEST_OBJECTIVE: f64 = 84.0;

impl Rule {
    /// A rule that fires while failures use up the error budget of a job type too fast.
    ///
    /// `objective` is the percentage of a type's jobs that should complete, such as 99.5. The rest, here 0.5 %, is the error
    /// budget. The burn rate is the percentage of jobs that fail, divided by the budget: at a rate of 1, exactly the budget is
    /// used up. As the SRE workbook recommends, the rule compares it in two pairs of windows:
    ///
    /// | windows | fires above a burn rate of |
    /// |---|---|
    /// | 1 h and 5 min | 14.4 |
    /// | 6 h and 30 min | 6 |
    ///
    /// Both windows of a pair must be above the limit. The value of a pair is the lower burn rate, divided by the limit. The
    /// rule's value is the higher one of both pairs, rounded to 1e-9, and its threshold is 1. A pair counts if at least
    /// [`min_count`](Self::min_count) jobs ended in its long window. Windows are whole minutes, as in
    /// [`RuleContext::job_stats`]; canceled jobs do not count. The rule reads the minute statistics of the store and no jobs
    /// except samples. [`window`](Self::window) has no effect on it.
    ///
    /// Defaults: severity Critical, type Error.
    ///
    /// ```
    /// # use async_endpoints::{JobType, alerts::{Alerts, Rule, SettingError}};
    /// # struct Order; struct Receipt;
    /// const EXPORT: JobType<Order, Receipt> = JobType::new("Export");
    ///
    /// # fn main() -> Result<(), SettingError> {
    /// let alerts = Alerts::new().rule("export_budget", Rule::burn_rate(EXPORT, 99.5)?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The objective is not from 84 to below 100, or the type's name is invalid. With a lower objective, the rule could not fire
    /// even if all jobs failed.
    pub fn burn_rate<Req, Res>(job_type: JobType<Req, Res>, objective: f64) -> Result<Self, SettingError> {
        let name = JobName::new(job_type.name()).map_err(|_| SettingError {
            setting: "job type of a burn rate",
            value: Some(job_type.name().to_owned()),
            reason: format!("expected {NAME}"),
        })?;
        Self::burn_rate_of(name, objective)
    }

    pub(super) fn burn_rate_of(name: JobName, objective: f64) -> Result<Self, SettingError> {
        if !(LOWEST_OBJECTIVE..100.0).contains(&objective) {
            return Err(SettingError {
                setting: "objective of a burn rate",
                value: Some(objective.to_string()),
                reason: "expected a percentage from 84 to below 100".to_owned(),
            });
        }
        let title = format!("{name} burns its error budget");
        let rule = Self::above(1.0, BurnRate { name, objective })
            .severity(Severity::Critical)
            .alert_type(AlertType::Error)
            .title(title)
            .next_step("Read the error and the log lines of a failed job: GET /jobs/{id} and /jobs/{id}/logs.");
        Ok(rule)
    }
}

/// How fast failures of a type use up its error budget, in multiples of what fires.
struct BurnRate {
    name: JobName,
    /// Percentage of jobs that should complete.
    objective: f64,
}

#[async_trait]
impl AlertRule for BurnRate {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let burns = WINDOWS.map(|windows| self.burn(context, windows));
        let counted = burns.iter().filter(|burn| burn.ended >= context.min_count());
        let worst = counted.max_by(|a, b| a.value.total_cmp(&b.value)).unwrap_or(&burns[0]);
        let is_burning = worst.value > 0.0;
        let jobs = samples::of(context, &[JobStatus::Failed], is_burning.then_some(&self.name).into_iter().collect());
        let reading = Reading::new(worst.value, self.message(worst)).count(worst.ended).jobs(sampled(jobs).await);
        let facts: Vec<Value> = burns.iter().map(Burn::facts).collect();
        Ok(reading.with("job_type", self.name.as_str()).with("objective", self.objective).with("windows", facts))
    }
}

impl BurnRate {
    fn burn(&self, context: &RuleContext, windows: Windows) -> Burn {
        let ended = |window| {
            let since = stats::covering_minute(context.now(), window);
            failure_rate::of_type(&context.stats, &self.name, since)
        };
        let burn_rate = |ended: FailureRate| ended.percent() / (100.0 - self.objective);
        let (long, short) = (ended(windows.long), ended(windows.short));
        let (long_rate, short_rate) = (burn_rate(long), burn_rate(short));
        // A burn rate of exactly the limit must not fire because of the rounding of a division.
        let value = (long_rate.min(short_rate) / windows.limit * 1e9).round() / 1e9;
        Burn { windows, long_rate, short_rate, ended: long.ended(), value }
    }

    fn message(&self, burn: &Burn) -> String {
        let Burn { windows: Windows { long, short, limit }, long_rate, short_rate, .. } = burn;
        format!(
            "the burn rate of the error budget of {} is {long_rate:.1} over {} min and {short_rate:.1} over {} min: the limit is \
             {limit} at an objective of {} %",
            self.name,
            long.as_secs() / 60,
            short.as_secs() / 60,
            self.objective,
        )
    }
}

/// What a pair of windows shows.
struct Burn {
    windows: Windows,
    long_rate: f64,
    short_rate: f64,
    /// Jobs that ended in the long window.
    ended: u64,
    /// The lower burn rate, divided by the limit.
    value: f64,
}

impl Burn {
    fn facts(&self) -> Value {
        let Windows { long, short, limit } = self.windows;
        json!({
            "long_seconds": long.as_secs(),
            "short_seconds": short.as_secs(),
            "long_burn_rate": self.long_rate,
            "short_burn_rate": self.short_rate,
            "limit": limit,
            "ended": self.ended,
        })
    }
}
