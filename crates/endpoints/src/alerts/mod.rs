//! Alerts: rules over jobs, workers and stores, and the notifications that they send.
//!
//! One process of the fleet evaluates the rules. Their state is in the store, so a restart or a change of that process neither
//! repeats a notification nor forgets one.
//!
//! | file | contents |
//! |---|---|
//! | `alert` | the alert that senders send |
//! | `rule` | the interface of a rule, and its settings |
//! | `sender` | the interface of a sender |
//! | `senders` | the senders of this crate |
//! | `silence` | silences of operators |
//! | `config` | rules, senders and times, put together by the application |
//! | `instances` | values that each process reports of itself |
//! | `state` | the state of a rule, and how a reading changes it |

mod alert;
mod config;
mod instances;
mod rule;
mod sender;
mod senders;
mod silence;
mod state;

#[cfg(feature = "email")]
pub use self::senders::Email;
pub use self::{
    alert::{Alert, AlertStatus, AlertType, Severity},
    config::Alerts,
    rule::{AlertRule, Reading, Rule, RuleContext},
    sender::{AlertSender, Notification, SendError},
    senders::{Log, SettingError},
    silence::Silence,
};
pub use crate::health::BoxError;
