//! What operators do with alerts, and the task that evaluates them.

use async_endpoints_core::StoreError;
use uuid::Uuid;

use super::AsyncEndpoints;
use crate::{
    alerts::{AlertsReport, NewSilence, Silence, SilenceError, TestResult},
    worker::supervise,
};

impl AsyncEndpoints {
    /// Returns what each alert rule saw last, and the silences. Empty without [`Builder::alerts`](crate::Builder::alerts).
    ///
    /// One process of the fleet evaluates the rules and stores what they saw, so every process returns the same. Makes three
    /// store calls.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore, alerts::Alerts};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).alerts(Alerts::new()).build()?;
    /// for rule in endpoints.alert_status().await?.rules {
    ///     println!("{} is {}, the last value {:?}", rule.rule, rule.state, rule.value);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn alert_status(&self) -> Result<AlertsReport, StoreError> {
        match &self.0.alerts {
            Some(alerts) => alerts.status().await,
            None => Ok(AlertsReport { rules: Vec::new(), silences: Vec::new() }),
        }
    }

    /// Silences a rule: it sends no firing notification until the silence ends. An alert that still fires then is notified.
    ///
    /// # Errors
    ///
    /// The rule is unknown, a text is empty or longer than 1 KiB, the end is past or more than a year ahead, or there are 100
    /// silences.
    pub async fn silence(&self, silence: NewSilence) -> Result<Silence, SilenceError> {
        match &self.0.alerts {
            Some(alerts) => alerts.silence(silence).await,
            None => Err(SilenceError::unknown_rule(&silence.rule, &[])),
        }
    }

    /// Ends a silence. Returns whether there was one with this id that had not ended.
    pub async fn end_silence(&self, id: Uuid) -> Result<bool, StoreError> {
        match &self.0.alerts {
            Some(alerts) => alerts.unsilence(id).await,
            None => Ok(false),
        }
    }

    /// Sends a test alert with every sender of this process, side by side, and returns one result for each. Takes at most
    /// 11 s and makes no store call.
    pub async fn test_alerts(&self) -> Vec<TestResult> {
        match &self.0.alerts {
            Some(alerts) => alerts.test().await,
            None => Vec::new(),
        }
    }

    /// The names of this process's senders, as the audit trail shows them; none without senders.
    pub(crate) fn alert_senders(&self) -> Option<String> {
        self.0.alerts.as_ref().map(|alerts| alerts.senders().join(", ")).filter(|names| !names.is_empty())
    }

    /// Whether the application has alerts.
    pub(crate) fn has_alerts(&self) -> bool {
        self.0.alerts.is_some()
    }

    /// Starts the alerts, if the application has any. The future returns when they have ended, which is after the begin of
    /// the drain and within its time.
    pub(super) fn start_alerts(&self) -> impl Future<Output = ()> + use<> {
        let task = self.0.alerts.clone().map(|engine| {
            let (worker, shutdown) = (self.0.worker.clone(), self.0.options.shutdown);
            tokio::spawn(async move {
                let limit = || {
                    let worker = worker.clone();
                    async move {
                        worker.stopping().cancelled().await;
                        let _ = tokio::time::timeout(shutdown, worker.stop_now().cancelled()).await;
                    }
                };
                supervise("alerts", worker.restarts(), || engine.run(worker.stopping(), limit())).await;
            })
        });
        async move {
            if let Some(task) = task {
                let _ = task.await;
            }
        }
    }
}
