//! Alerts from environment variables.

use std::{fmt, sync::Arc, time::Duration};

use async_endpoints_core::JobName;

#[cfg(feature = "email")]
use super::senders::Email;
#[cfg(feature = "webhook")]
use super::senders::{Alertmanager, Slack, Webhook};
use super::{
    alert::Severity,
    config::Alerts,
    rule::Rule,
    sender::{AlertSender, Route},
    senders::{Log, SettingError},
};
use crate::options::{OptionsError, SECONDS, Vars, duration, env_var};

/// The shortest interval of evaluations.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest window: statistics of earlier minutes are not kept.
const MAX_WINDOW: Duration = Duration::from_secs(6 * 60 * 60);

/// A variable of alerts is invalid or missing. Shows no secret.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AlertsError {
    /// A value is invalid.
    #[error(transparent)]
    Value(#[from] OptionsError),
    /// A setting of a sender is invalid.
    #[error("invalid {name}{}: {reason}", value.as_ref().map_or_else(String::new, |value| format!(" {value:?}")))]
    Sender {
        /// The variable.
        name: String,
        /// The invalid value; none if it may contain a secret.
        value: Option<String>,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A variable is set without another one that it needs.
    #[error("{name} is not set: expected {expected}, because {other} is set")]
    Missing {
        /// The missing variable.
        name: String,
        /// A description of valid values.
        expected: &'static str,
        /// The variable that is set.
        other: String,
    },
    /// A sender is not compiled in.
    #[error("{name} is set, but this program is built without the feature {feature} of async-endpoints")]
    Feature {
        /// The variable.
        name: String,
        /// The cargo feature.
        feature: &'static str,
    },
}

/// As [`Display`](fmt::Display): `main` prints this form of an error that it returns.
impl fmt::Debug for AlertsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes a sender from the values of its variables, in their order.
type Make = fn(&[String]) -> Result<Arc<dyn AlertSender>, SettingError>;

/// A sender that variables switch on.
struct EnvSender {
    name: &'static str,
    /// The first one switches the sender on and needs all others.
    variables: &'static [Variable],
    min_severity: &'static str,
    feature: &'static str,
    /// None without the feature.
    make: Option<Make>,
}

/// A variable of a sender.
struct Variable {
    name: &'static str,
    expected: &'static str,
    /// The setting in errors of the sender.
    setting: &'static str,
}

#[cfg(feature = "email")]
const EMAIL: Option<Make> = Some(|values| Ok(Arc::new(Email::new(&values[0], &values[1], &values[2])?)));
#[cfg(not(feature = "email"))]
const EMAIL: Option<Make> = None;

#[cfg(feature = "webhook")]
const WEBHOOK: Option<Make> = Some(|values| Ok(Arc::new(Webhook::new(&values[0], &values[1])?)));
#[cfg(not(feature = "webhook"))]
const WEBHOOK: Option<Make> = None;
#[cfg(feature = "webhook")]
const SLACK: Option<Make> = Some(|values| Ok(Arc::new(Slack::new(&values[0])?)));
#[cfg(not(feature = "webhook"))]
const SLACK: Option<Make> = None;
#[cfg(feature = "webhook")]
const ALERTMANAGER: Option<Make> = Some(|values| Ok(Arc::new(Alertmanager::new(&values[0])?)));
#[cfg(not(feature = "webhook"))]
const ALERTMANAGER: Option<Make> = None;

const SENDERS: [EnvSender; 4] = [
    EnvSender {
        name: "webhook",
        variables: &[
            Variable { name: "ALERT_WEBHOOK_URL", expected: "an http or https URL", setting: "webhook URL" },
            Variable {
                name: "ALERT_WEBHOOK_SECRET",
                expected: "whsec_ and a key in base64",
                setting: "webhook secret",
            },
        ],
        min_severity: "ALERT_WEBHOOK_MIN_SEVERITY",
        feature: "webhook",
        make: WEBHOOK,
    },
    EnvSender {
        name: "email",
        variables: &[
            Variable { name: "ALERT_SMTP_URL", expected: "the URL of an SMTP server", setting: "SMTP URL" },
            Variable { name: "ALERT_EMAIL_FROM", expected: "an e-mail address", setting: "sender address" },
            Variable {
                name: "ALERT_EMAIL_TO",
                expected: "e-mail addresses, separated by commas",
                setting: "recipient address",
            },
        ],
        min_severity: "ALERT_EMAIL_MIN_SEVERITY",
        feature: "email",
        make: EMAIL,
    },
    EnvSender {
        name: "slack",
        variables: &[Variable { name: "ALERT_SLACK_URL", expected: "an http or https URL", setting: "Slack URL" }],
        min_severity: "ALERT_SLACK_MIN_SEVERITY",
        feature: "webhook",
        make: SLACK,
    },
    EnvSender {
        name: "alertmanager",
        variables: &[Variable {
            name: "ALERT_ALERTMANAGER_URL",
            expected: "an http or https URL",
            setting: "Alertmanager URL",
        }],
        min_severity: "ALERT_ALERTMANAGER_MIN_SEVERITY",
        feature: "webhook",
        make: ALERTMANAGER,
    },
];

impl Alerts {
    /// The built-in rules and senders with the settings in `<prefix>ALERT_INTERVAL_SECONDS` and other variables. Unset and
    /// empty variables keep their defaults.
    ///
    /// | variable | default | meaning |
    /// |---|---|---|
    /// | `ALERT_INTERVAL_SECONDS` | 300 | interval of evaluations, 0.1 or more |
    /// | `ALERT_FOR_SECONDS` | 0 | how long a value must be above its threshold before its rule fires |
    /// | `ALERT_REPEAT_SECONDS` | 14400 | interval of repeated notifications while a rule fires |
    /// | `ALERT_WINDOW_SECONDS` | 3600 | window of rates, at most 21600 |
    /// | `ALERT_FAILURE_PERCENT` | 10 | threshold of the rule `failure_rate`, which resolves below half of it |
    /// | `ALERT_MIN_JOBS` | 20 | number of ended jobs from which on the failure rate counts |
    /// | `ALERT_MEMORY_PERCENT` | 80 | threshold of the rule `memory` |
    /// | `ALERT_QUEUE_WAIT_SECONDS` | 60 | threshold of the rule `queue_wait` |
    /// | `ALERT_OLDEST_QUEUED_SECONDS` | 300 | threshold of the rule `oldest_queued` |
    /// | `ALERT_OBJECTIVES` | none | objectives of job types in percent, such as `Export=99.5,Import=99`; each adds the rule `burn_rate.<job type>` ([`Rule::burn_rate`]) |
    /// | `ALERT_LOG_MIN_SEVERITY` | `Low` | least severity that the sender `log` gets: `Low`, `Medium`, `High` or `Critical` |
    /// | `ALERT_WEBHOOK_URL` | none | receiver of the sender `webhook` (feature `webhook`) |
    /// | `ALERT_WEBHOOK_SECRET` | none | key of its signatures: `whsec_` and base64 |
    /// | `ALERT_WEBHOOK_MIN_SEVERITY` | `Low` | least severity that the sender `webhook` gets |
    /// | `ALERT_SMTP_URL` | none | server of the sender `email`: `smtps://…`, or `smtp://…?tls=required` for STARTTLS (feature `email`) |
    /// | `ALERT_EMAIL_FROM` | none | address that mails come from |
    /// | `ALERT_EMAIL_TO` | none | addresses that mails go to, separated by commas |
    /// | `ALERT_EMAIL_MIN_SEVERITY` | `Low` | least severity that the sender `email` gets |
    /// | `ALERT_SLACK_URL` | none | incoming webhook of the sender `slack` (feature `webhook`) |
    /// | `ALERT_SLACK_MIN_SEVERITY` | `Low` | least severity that the sender `slack` gets |
    /// | `ALERT_ALERTMANAGER_URL` | none | Alertmanager of the sender `alertmanager` (feature `webhook`) |
    /// | `ALERT_ALERTMANAGER_MIN_SEVERITY` | `Low` | least severity that the sender `alertmanager` gets |
    ///
    /// `ALERT_SLOW_SECONDS` and `ALERT_STUCK_SECONDS` belong to [`Options`](crate::Options).
    ///
    /// # Errors
    ///
    /// A value is invalid, a variable is set without another one that it needs, or a sender is not compiled in.
    pub fn from_env(prefix: &str) -> Result<Self, AlertsError> {
        Self::from_vars(prefix, env_var)
    }

    /// Reads the variables of [`from_env`](Self::from_env) from another source.
    pub fn from_vars(prefix: &str, vars: impl Fn(&str) -> Option<String>) -> Result<Self, AlertsError> {
        let vars = Vars { prefix, vars: &vars };
        let mut alerts = Self::new();
        read_times(&vars, &mut alerts)?;
        let log = min_severity(&vars, "ALERT_LOG_MIN_SEVERITY")?.unwrap_or(Severity::Low);
        let mut alerts = read_thresholds(&vars, alerts)?.sender_from(log, "log", Log);
        for sender in &SENDERS {
            alerts.routes.extend(sender.read(&vars)?);
        }
        Ok(alerts)
    }
}

fn read_times(vars: &Vars<'_>, alerts: &mut Alerts) -> Result<(), OptionsError> {
    let read = |name, into: &mut Duration, expected, fits: fn(Duration) -> bool| {
        vars.read(name, into, expected, |text| duration(text.parse().ok()?).filter(|time| fits(*time)))
    };
    let interval = "a number of seconds, 0.1 or more";
    read("ALERT_INTERVAL_SECONDS", &mut alerts.interval, interval, |time| time >= MIN_INTERVAL)?;
    vars.seconds("ALERT_FOR_SECONDS", &mut alerts.pending_for)?;
    read("ALERT_REPEAT_SECONDS", &mut alerts.repeat, "a number of seconds above 0", |time| !time.is_zero())?;
    let window = "a number of seconds above 0, at most 21600";
    read("ALERT_WINDOW_SECONDS", &mut alerts.window, window, |time| !time.is_zero() && time <= MAX_WINDOW)
}

fn read_thresholds(vars: &Vars<'_>, mut alerts: Alerts) -> Result<Alerts, OptionsError> {
    vars.number("ALERT_MIN_JOBS", &mut alerts.min_count)?;
    if let Some(percent) = percent(vars, "ALERT_FAILURE_PERCENT")? {
        alerts = alerts.change("failure_rate", |rule| rule.threshold(percent).clear_below(percent / 2.0));
    }
    if let Some(percent) = percent(vars, "ALERT_MEMORY_PERCENT")? {
        alerts = alerts.change("memory", |rule| rule.threshold(percent));
    }
    for (rule, name) in [("queue_wait", "ALERT_QUEUE_WAIT_SECONDS"), ("oldest_queued", "ALERT_OLDEST_QUEUED_SECONDS")] {
        if let Some(seconds) = seconds(vars, name)? {
            alerts = alerts.change(rule, |rule| rule.threshold(seconds));
        }
    }
    let mut burn_rates = Vec::new();
    let expected = "job types with objectives in percent, from 84 to below 100, such as Export=99.5,Import=99";
    vars.read("ALERT_OBJECTIVES", &mut burn_rates, expected, |text| text.split(',').map(burn_rate).collect())?;
    Ok(burn_rates.into_iter().fold(alerts, |alerts, (name, rule)| alerts.rule(name, rule)))
}

/// The rule of `Export=99.5`, with its name.
fn burn_rate(text: &str) -> Option<(String, Rule)> {
    let (job_type, objective) = text.split_once('=')?;
    let job_type = JobName::new(job_type.trim()).ok()?;
    // The prefix may make the name too long.
    let name = JobName::new(&format!("burn_rate.{job_type}")).ok()?;
    let rule = Rule::burn_rate_of(job_type, objective.trim().parse().ok()?).ok()?;
    Some((name.into(), rule))
}

fn percent(vars: &Vars<'_>, name: &str) -> Result<Option<f64>, OptionsError> {
    let mut percent = None;
    vars.read(name, &mut percent, "a percentage from 0 to 100", |text| {
        let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
        Some(Some(percent))
    })?;
    Ok(percent)
}

fn seconds(vars: &Vars<'_>, name: &str) -> Result<Option<f64>, OptionsError> {
    let mut seconds = None;
    vars.read(name, &mut seconds, SECONDS, |text| {
        let seconds = duration(text.parse().ok()?)?.as_secs_f64();
        Some(Some(seconds))
    })?;
    Ok(seconds)
}

fn min_severity(vars: &Vars<'_>, name: &str) -> Result<Option<Severity>, OptionsError> {
    let mut severity = None;
    vars.read(name, &mut severity, "Low, Medium, High or Critical", |text| text.parse().ok().map(Some))?;
    Ok(severity)
}

impl EnvSender {
    /// The sender, if its first variable is set.
    fn read(&self, vars: &Vars<'_>) -> Result<Option<Route>, AlertsError> {
        let min_severity = min_severity(vars, self.min_severity)?;
        let values: Vec<Option<String>> = self.variables.iter().map(|variable| vars.text(variable.name)).collect();
        let names = self.variables.iter().map(|variable| variable.name);
        let mut set = names.zip(&values).filter(|(_, value)| value.is_some()).map(|(name, _)| name);
        let Some(set) = set.next().or(min_severity.map(|_| self.min_severity)) else { return Ok(None) };
        let Some(make) = self.make else {
            return Err(AlertsError::Feature { name: vars.name(set), feature: self.feature });
        };
        let values = values.into_iter().zip(self.variables).map(|(value, variable)| {
            let value = value.map(|value| value.trim().to_owned());
            let Variable { name, expected, .. } = *variable;
            value.ok_or_else(|| AlertsError::Missing { name: vars.name(name), expected, other: vars.name(set) })
        });
        let values: Vec<String> = values.collect::<Result<_, _>>()?;
        let sender = make(&values).map_err(|error| self.invalid(vars, error))?;
        let min_severity = min_severity.unwrap_or(Severity::Low);
        Ok(Some(Route { name: self.name.to_owned(), sender, min_severity }))
    }

    fn invalid(&self, vars: &Vars<'_>, error: SettingError) -> AlertsError {
        let SettingError { setting, value, reason } = error;
        let variable = self.variables.iter().find(|variable| variable.setting == setting);
        // The URL counts for errors of no variable, such as missing certificate authorities.
        let name = variable.unwrap_or(&self.variables[0]).name;
        AlertsError::Sender { name: vars.name(name), value, reason }
    }
}

#[cfg(test)]
mod tests;
