//! Logs to stderr. Stdout has only the address, for scripts.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::settings::{BadSetting, LogFormat, Settings};

/// Starts logging.
///
/// # Panics
/// If called twice.
pub(crate) fn start(settings: &Settings) -> Result<(), BadSetting> {
    let filter = &settings.log_filter;
    let filter = EnvFilter::try_new(filter).map_err(|_| {
        BadSetting::new("RUST_LOG", filter, "expected a level or directives, such as info,async_endpoints=debug")
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.log_format {
        LogFormat::Pretty => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(())
}
