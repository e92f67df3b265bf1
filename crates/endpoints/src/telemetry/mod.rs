//! Everything the library tells its operators. Must not know how jobs are decided; never panics, never blocks,
//! never fails a job.
//!
//! | file | owns |
//! |---|---|
//! | `catalogue` | every metric: name, kind, unit, labels, meaning |
//! | `instruments` | the metrics of jobs and stores, bound to their labels |
//! | `store`, `job`, `http` | the three places where telemetry is attached |
//! | `running` | what ends of attempts are measured from |
//! | `gauges`, `process` | what is read when somebody looks |
//! | `exemplars` | the latest job behind a series |
//! | `provider`, `otlp` | where metrics go |
//! | `encode`, `naming` | metrics as Prometheus reads them, and what they are called there |
//! | `events` | the log lines |
#![allow(clippy::disallowed_macros, reason = "the one room that may write telemetry")]

mod catalogue;
pub(crate) mod encode;
pub(crate) mod events;
mod exemplars;
mod gauges;
mod http;
mod instruments;
mod job;
mod naming;
#[cfg(feature = "otlp")]
mod otlp;
mod process;
mod provider;
mod running;
mod store;

use std::sync::Arc;

pub use opentelemetry;

use async_endpoints_core::{
    JobName, Store,
    store::{Stats, WorkerSlots},
};

pub(crate) use self::instruments::Submission;
#[cfg(feature = "otlp")]
pub use self::otlp::Otlp;
pub use self::{
    catalogue::{CATALOGUE, Instrument, Kind, Scope},
    provider::{Telemetry, TelemetryBuilder, TelemetryError},
};
use self::{
    http::RequestDuration, instruments::Instruments, job::Observed, provider::Attached, running::Running,
    store::Instrumented,
};
use crate::middleware::Middleware;

/// What one set of endpoints is measured with.
pub(crate) struct Measured {
    pub(crate) telemetry: Telemetry,
    _attached: Attached,
    instruments: Arc<Instruments>,
    running: Arc<Running>,
    requests: RequestDuration,
    store: &'static str,
}

impl Measured {
    /// None if the telemetry measures others.
    pub(crate) fn new<'a>(
        telemetry: Telemetry,
        store: &'static str,
        types: impl Iterator<Item = &'a JobName>,
    ) -> Option<Self> {
        let _attached = telemetry.attach()?;
        let meter = telemetry.own_meter();
        let instruments = Instruments::new(&meter, telemetry.exemplars(), telemetry.bounds(), store, types);
        let requests = RequestDuration::new(&meter);
        Some(Self {
            instruments: Arc::new(instruments),
            running: Arc::default(),
            requests,
            store,
            telemetry,
            _attached,
        })
    }

    /// The store, counted and timed.
    pub(crate) fn store(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Instrumented::new(inner, self.instruments.clone(), self.running.clone()))
    }

    /// What goes around every attempt.
    pub(crate) fn middleware(&self) -> Arc<dyn Middleware> {
        Arc::new(Observed(self.running.clone()))
    }

    /// What goes around every route.
    pub(crate) fn layer(&self) -> RequestDuration {
        self.requests.clone()
    }

    /// Registers the observable gauges. A closure returns none when there is no value.
    pub(crate) fn gauges(
        &self,
        stats: impl Fn() -> Option<Arc<Stats>> + Send + Sync + 'static,
        worker_slots: impl Fn() -> Option<WorkerSlots> + Send + Sync + 'static,
    ) {
        let meter = self.telemetry.own_meter();
        gauges::register(&meter, &self.instruments, self.store, Arc::new(stats), worker_slots);
    }

    /// A submission that did not come to the store.
    pub(crate) fn refused(&self, name: &JobName, result: Submission) {
        self.instruments.of(name).submission(result);
    }
}
