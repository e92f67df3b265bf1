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

#![allow(clippy::disallowed_macros, reason = "a telemetry crate may log")]

mod attachment;
#[cfg(feature = "otlp")]
mod batch;
mod build;
mod builder;
pub mod capture;
#[cfg(feature = "console")]
mod console;
#[cfg(feature = "otlp")]
mod delivery;
mod destinations;
mod encode;
mod env;
mod error;
mod exemplars;
#[cfg(feature = "otlp")]
mod exporter;
mod instrument;
mod layers;
mod log_records;
mod log_writer;
mod logs;
#[cfg(target_os = "linux")]
mod memory_limit;
mod naming;
#[cfg(feature = "otlp")]
mod otlp;
mod panics;
pub mod process;
mod provider;
#[cfg(feature = "otlp")]
mod push;
mod reader;
mod resource;
#[cfg(feature = "otlp")]
mod runtime;
mod scope;
mod shutdown;
mod signal;
mod sync;
pub mod trace;
mod views;

#[cfg(feature = "otlp")]
pub use self::otlp::Otlp;
pub use self::{
    attachment::{Attachment, Timer},
    builder::TelemetryBuilder,
    encode::Format,
    error::{ExpositionError, TelemetryError},
    exemplars::{ExemplarLabels, Exemplars, SeriesExemplars},
    instrument::{Combine, Instrument, InstrumentKind},
    log_writer::{LOG_DROPPED, LogWriter, OWN_TARGET, is_logging, log_safely, logs_own_lines},
    logs::{LogFormat, LogOutput, Logs, SCOPE_TARGET},
    panics::{panic_message, restore_panic_location, take_panic_location, watch_panics},
    provider::Telemetry,
    scope::Scope,
    shutdown::TelemetryGuard,
    signal::Signal,
};
pub use opentelemetry;
pub use opentelemetry_sdk::trace::Sampler;
