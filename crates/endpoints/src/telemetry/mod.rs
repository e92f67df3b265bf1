//! Telemetry of endpoints and jobs. It never decides about jobs, panics, blocks, or fails a job.
//!
//! The set-up is `Telemetry`'s, which needs the feature `telemetry`. [`CATALOGUE`] declares every metric.
//!
//! ```
//! use async_endpoints::{AsyncEndpoints, MemoryStore, Telemetry};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::builder().service_name("reports").build()?;
//! let endpoints = AsyncEndpoints::builder(MemoryStore::new()).telemetry(&telemetry).build()?;
//! // Metrics of handlers take the same way.
//! let pages = telemetry.meter("reports").u64_counter("report.pages").build();
//! pages.add(7, &[]);
//! # Ok(()) }
//! ```
//!
//! | file | contains |
//! |---|---|
//! | `catalogue` | every metric: name, kind, unit, labels, description |
//! | `instruments`, `series` | the metrics of jobs and stores, bound to their labels |
//! | `store`, `job`, `http` | the three places where telemetry is attached |
//! | `alerts` | the metrics of alerts |
//! | `outage` | log lines about a store that does not answer |
//! | `running` | the running attempts, for their durations |
//! | `gauges` | observable gauges |
//! | `spans`, `calls`, `semconv` | the spans of jobs and of store calls, and the attribute keys of all spans |
//! | `scope` | trace context and correlation fields of a request or an attempt |
//! | `cause` | the job and trace behind an exemplar |
//! | `capture` | log lines that are kept with their job |
//! | `events`, `failure` | log lines; the one of a failed attempt |
#![allow(clippy::disallowed_macros, reason = "the one module that may write telemetry")]

mod alerts;
mod calls;
mod capture;
mod catalogue;
mod cause;
pub(crate) mod events;
mod failure;
mod gauges;
mod http;
mod instruments;
mod job;
mod outage;
mod running;
pub(crate) mod scope;
mod semconv;
mod series;
mod spans;
mod store;

use std::sync::Arc;

use async_endpoints_core::{
    JobName, Store,
    store::{Stats, WorkerSlots},
};
use async_endpoints_telemetry::Attachment;
#[cfg(feature = "otlp")]
pub use async_endpoints_telemetry::Otlp;
#[cfg(not(feature = "telemetry"))]
pub(crate) use async_endpoints_telemetry::Telemetry;
pub use async_endpoints_telemetry::{
    Combine, Instrument, InstrumentKind, LOG_DROPPED, LogWriter, opentelemetry, trace,
};
#[cfg(feature = "telemetry")]
pub use async_endpoints_telemetry::{
    ExpositionError, Format, LogFormat, LogOutput, Logs, Sampler, Signal, Telemetry, TelemetryBuilder, TelemetryError,
    TelemetryGuard, capture::capture_layer,
};

pub(crate) use self::alerts::{AlertMeter, SendOutcome};
pub use self::catalogue::CATALOGUE;
pub(crate) use self::failure::FailedAttempt;
pub(crate) use self::outage::OutageLog;
pub(crate) use self::series::SubmissionResult;
use self::{
    capture::Capture,
    http::Requests,
    instruments::Instruments,
    spans::{Sending, Spans},
    store::Instrumented,
};
pub(crate) use self::{
    job::run_handler,
    running::RunningTable,
    scope::{current_trace_id, run_in, traceparent},
    spans::lost,
};
use crate::{
    health::{HealthStatus, OnChange},
    options::Options,
};

fn health_label(check: &str) -> opentelemetry::KeyValue {
    opentelemetry::KeyValue::new("check", check.to_owned())
}

/// The telemetry of one set of endpoints.
pub(crate) struct Measured {
    pub(crate) telemetry: Telemetry,
    attachment: Attachment,
    instruments: Arc<Instruments>,
    running: Arc<RunningTable>,
    requests: Requests,
    spans: Arc<Spans>,
    capture: Capture,
    store: &'static str,
}

impl Measured {
    /// `types` has the job types with their error codes. None if the telemetry is attached to other endpoints.
    pub(crate) fn new<'a>(
        telemetry: Telemetry,
        store: &'static str,
        options: &Options,
        types: impl Iterator<Item = (&'a JobName, &'static [&'static str])>,
    ) -> Option<Self> {
        let attachment = telemetry.attach(CATALOGUE)?;
        let instruments = Arc::new(Instruments::new(&attachment, store, types));
        let spans = Arc::new(Spans::new(telemetry.tracing().clone(), options.propagation));
        Some(Self {
            running: Arc::new(RunningTable::new(spans.clone(), instruments.measures)),
            instruments,
            requests: Requests::new(&attachment, &telemetry, options),
            spans,
            capture: Capture::new(options.capture_level),
            store,
            telemetry,
            attachment,
        })
    }

    /// Wraps the store, to count and time its calls.
    pub(crate) fn store(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        let (instruments, running, spans) = (self.instruments.clone(), self.running.clone(), self.spans.clone());
        Arc::new(Instrumented::new(inner, instruments, running, spans, self.capture))
    }

    /// The layer around every route.
    pub(crate) fn layer(&self) -> Requests {
        self.requests.clone()
    }

    /// The running attempts, with their scopes.
    pub(crate) fn running(&self) -> Arc<RunningTable> {
        self.running.clone()
    }

    /// Starts the span of a submission. The name is not known for a retry by an operator.
    pub(crate) fn send(&self, name: Option<&JobName>) -> Sending {
        self.spans.send(name)
    }

    /// Registers the observable gauges. A closure returns none when there is no value.
    pub(crate) fn gauges(
        &self,
        stats: impl Fn() -> Option<Arc<Stats>> + Send + Sync + 'static,
        is_paused: impl Fn(&JobName) -> bool + Send + Sync + 'static,
        worker_slots: impl Fn() -> Option<WorkerSlots> + Send + Sync + 'static,
    ) {
        let (stats, is_paused) = (Arc::new(stats), Arc::new(is_paused));
        gauges::register(&self.attachment, &self.instruments, self.store, stats, is_paused, worker_slots);
    }

    /// Registers the gauge of health checks. `read` passes name and status of each check to its argument.
    pub(crate) fn health_gauge(&self, read: impl Fn(&mut dyn FnMut(&str, HealthStatus)) + Send + Sync + 'static) {
        self.attachment.gauge(&catalogue::HEALTH, move |gauge| {
            read(&mut |check, status| gauge.observe(f64::from(status as u8), &[health_label(check)]));
        });
    }

    /// Returns what logs and counts changes of these health checks.
    pub(crate) fn health_changes<'a>(&self, checks: impl Iterator<Item = &'a str>) -> OnChange {
        let changes = self.attachment.counter(&catalogue::HEALTH_CHANGES);
        checks.for_each(|check| changes.add(0, &[health_label(check)]));
        Box::new(move |check, status, description| {
            changes.add(1, &[health_label(check)]);
            events::health_changed(check, status, description);
        })
    }

    /// Counts and logs a submission that did not reach the store. The code is none for a response of the application.
    pub(crate) fn refused(&self, name: &JobName, result: SubmissionResult, code: Option<&str>) {
        self.instruments.of(name).submission(result);
        events::job_rejected(name, result, code);
    }
}
