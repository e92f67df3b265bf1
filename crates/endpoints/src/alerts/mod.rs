//! Alerts: rules over jobs, workers and stores, and the notifications that they send.
//!
//! One process of the fleet evaluates the rules. Their state is in the store, so a restart or a change of that process neither
//! repeats a notification nor forgets one.
//!
//! | file | contents |
//! |---|---|
//! | `alert` | the alert that senders send |
//! | `rule` | the interface of a rule, and its settings |
//! | `rules` | the built-in rules |
//! | `burn_rate` | the rule about the error budget of a job type |
//! | `samples` | sample jobs of alerts |
//! | `sender` | the interface of a sender |
//! | `senders` | the senders of this crate |
//! | `silence` | silences of operators |
//! | `plan` | the settings as the engine uses them |
//! | `report` | what operators see |
//! | `document` | the stored documents |
//! | `engine` | evaluates rules and sends notifications |
//! | `store_errors` | counts failed store calls |
//! | `config` | rules, senders and times, put together by the application |
//! | `env` | the same from environment variables |
//! | `instances` | values that each process reports of itself |
//! | `state` | the state of a rule, and how a reading changes it |

mod alert;
mod burn_rate;
mod config;
mod document;
mod engine;
mod env;
mod instances;
mod plan;
mod report;
mod rule;
mod rules;
#[cfg(test)]
mod rules_tests;
mod samples;
mod sender;
mod senders;
mod silence;
mod state;
mod store_errors;

#[cfg(feature = "email")]
pub use self::senders::Email;
#[cfg(feature = "webhook")]
pub use self::senders::{Alertmanager, Slack, Webhook};
pub use self::{
    alert::{Alert, AlertStatus, AlertType, Severity},
    config::Alerts,
    env::AlertsError,
    report::{AlertsReport, RuleReport, TestResult},
    rule::{AlertRule, Reading, Rule, RuleContext},
    sender::{AlertSender, Notification, SendError},
    senders::{Log, SettingError},
    silence::{NewSilence, Silence, SilenceError},
};
pub(crate) use self::{
    engine::{Engine, EngineParts},
    plan::{InvalidSetting, Plan},
    store_errors::CountedStore,
};
pub use crate::health::BoxError;
