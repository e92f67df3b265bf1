//! Traces, metrics and logs for [AsyncEndpoints](https://docs.rs/async-endpoints), without any knowledge of jobs:
//! OpenTelemetry set-up, OTLP, Prometheus and OpenMetrics text with exemplars, log outputs that never block, process metrics.
//!
//! [`Telemetry::from_env`] and [`TelemetryBuilder`] set everything up. For a program, hold the guard in `main`:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use async_endpoints_telemetry::Telemetry;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::builder().service_name("reports").service_version(env!("CARGO_PKG_VERSION")).env().install()?;
//! let _flushed = telemetry.flush_on_drop(Duration::from_secs(2));
//! # Ok(()) }
//! ```
//!
//! An application's own metrics go where all metrics go:
//!
//! ```
//! use async_endpoints_telemetry::{Format, Telemetry, opentelemetry::KeyValue};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::builder().service_name("reports").build()?;
//! let pages = telemetry.meter("reports").u64_counter("report.pages").with_unit("{page}").build();
//! pages.add(7, &[KeyValue::new("paper", "A4")]);
//!
//! let text = telemetry.exposition(Format::Text)?;
//! assert!(text.contains("report_pages_total{paper=\"A4\"} 7\n"));
//! # Ok(()) }
//! ```
//!
//! A library declares its [`Instrument`]s in a catalogue and gets them from an [`Attachment`]:
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use async_endpoints_telemetry::{Format, Instrument, Telemetry};
//!
//! const RENDER_TIME: Instrument =
//!     Instrument::histogram("report.render_time", "s", &[], &[0.1, 1.0], "Time to render a report.");
//! const CATALOGUE: &[Instrument] = &[RENDER_TIME];
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::builder().build()?;
//! let attachment = telemetry.attach(CATALOGUE).ok_or("another library is attached")?;
//! let timer = attachment.timer(&RENDER_TIME, &[]);
//! timer.record(Duration::from_millis(500), Instant::now(), || vec![("report_id", "r-17".to_owned())]);
//!
//! let text = telemetry.exposition(Format::OpenMetrics)?;
//! assert!(text.contains("report_render_time_seconds_bucket{le=\"1.0\"} 1 # {report_id=\"r-17\"} 0.5 "));
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | default | adds | brings in |
//! |---|---|---|---|
//! | `sdk` | yes | `Telemetry`: set-up, exposition, log outputs, process metrics | opentelemetry_sdk, tracing-subscriber, procfs |
//! | `otlp` | no | export over OTLP, by gRPC and HTTP | opentelemetry-otlp, opentelemetry-http |
//! | `otlp-tls` | no | OTLP over TLS | rustls with its ring provider |
//! | `console` | no | exporters that print, for development | opentelemetry-stdout |
//! | `reqwest` | no | trace contexts and client spans for requests of reqwest | reqwest |
//!
//! Without `sdk` there are trace ids and log lines, and nothing is measured.

#![cfg_attr(
    not(feature = "sdk"),
    allow(dead_code, rustdoc::broken_intra_doc_links, reason = "without the SDK, nothing reads what is measured")
)]
#![cfg_attr(
    not(all(feature = "otlp", feature = "console")),
    allow(clippy::unused_self, reason = "without exporters, some methods have nothing to read")
)]
#![allow(clippy::disallowed_macros, reason = "a telemetry crate may log")]

mod attachment;
#[cfg(feature = "otlp")]
mod batch;
#[cfg(feature = "sdk")]
mod build;
#[cfg(feature = "sdk")]
mod builder;
pub mod capture;
#[cfg(feature = "console")]
mod console;
#[cfg(feature = "otlp")]
mod delivery;
#[cfg(feature = "sdk")]
mod destinations;
#[cfg(feature = "sdk")]
mod encode;
#[cfg(feature = "sdk")]
mod env;
#[cfg(feature = "sdk")]
mod error;
mod exemplars;
#[cfg(feature = "otlp")]
mod exporter;
mod instrument;
#[cfg(feature = "sdk")]
mod layers;
#[cfg(feature = "sdk")]
mod log_records;
mod log_writer;
#[cfg(feature = "sdk")]
mod logs;
#[cfg(target_os = "linux")]
mod memory;
mod naming;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "sdk")]
mod panic_log;
mod panics;
pub mod process;
#[cfg(feature = "sdk")]
mod process_metrics;
mod provider;
#[cfg(feature = "sdk")]
mod providers;
#[cfg(feature = "otlp")]
mod push;
#[cfg(feature = "sdk")]
mod reader;
#[cfg(feature = "sdk")]
mod resource;
#[cfg(feature = "otlp")]
mod runtime;
mod scope;
#[cfg(feature = "sdk")]
mod sdk;
#[cfg(not(feature = "sdk"))]
#[path = "no_sdk.rs"]
mod sdk;
#[cfg(feature = "sdk")]
mod shutdown;
#[cfg(feature = "sdk")]
mod signal;
mod sync;
pub mod trace;
#[cfg(feature = "sdk")]
mod views;

#[cfg(feature = "otlp")]
pub use self::otlp::Otlp;
pub use self::{
    attachment::{Attachment, Timer},
    exemplars::{ExemplarLabels, Exemplars, SeriesExemplars},
    instrument::{Combine, Instrument, InstrumentKind},
    log_writer::{LOG_DROPPED, LogWriter, OWN_TARGET, SCOPE_TARGET, is_logging, log_safely, logs_own_lines},
    panics::{panic_message, restore_panic_location, take_panic_location, watch_panics},
    provider::Telemetry,
    scope::Scope,
};
#[cfg(feature = "sdk")]
pub use self::{
    builder::TelemetryBuilder,
    encode::Format,
    error::{ExpositionError, TelemetryError},
    logs::{LogFormat, LogOutput, Logs},
    shutdown::TelemetryGuard,
    signal::Signal,
};
pub use opentelemetry;
#[cfg(feature = "sdk")]
pub use opentelemetry_sdk::trace::Sampler;
