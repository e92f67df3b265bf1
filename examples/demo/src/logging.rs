//! Logs to stderr. Stdout has only the address, for scripts. A blocked or closed output loses lines and nothing else.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic, thread,
};

use async_endpoints::telemetry::LogWriter;
use tracing_subscriber::EnvFilter;

use crate::settings::{BadSetting, LogFormat, Settings};

/// Starts logging to `log`, of panics too.
///
/// # Panics
/// If called twice.
pub(crate) fn start(settings: &Settings, log: &LogWriter) -> Result<(), BadSetting> {
    let filter = &settings.log_filter;
    let filter = EnvFilter::try_new(filter).map_err(|_| {
        BadSetting::new("RUST_LOG", filter, "expected a level or directives, such as info,async_endpoints=debug")
    })?;
    let log = log.clone();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || log.clone());
    match settings.log_format {
        LogFormat::Pretty => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    // The default hook writes to stderr itself, and waits for a blocked one.
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let backtrace = Some(Backtrace::capture()).filter(|trace| trace.status() == BacktraceStatus::Captured);
        let backtrace = backtrace.map(tracing::field::display);
        tracing::error!(thread = thread.name(), backtrace, "{panic}");
    }));
    Ok(())
}
