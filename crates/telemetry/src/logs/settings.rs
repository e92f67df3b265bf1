//! Settings of log outputs.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, Layer, registry::LookupSpan};

use super::{
    daily::DailyFile,
    json,
    layer::{OutputLayer, Style},
};
use crate::{error::TelemetryError, log_writer::LogWriter, log_writer::SCOPE_TARGET};

const FILTER: &str = "RUST_LOG";
const FORMAT: &str = "AE_LOG_FORMAT";
const FOLDER: &str = "AE_LOG_DIR";
const DEFAULT_FILTER: &str = "info";
/// Number of daily files that [`Logs::from_env`] keeps.
const KEPT_FILES: usize = 14;

/// Where log lines go, and which.
///
/// Every output writes on a thread of its own, see [`LogWriter`]. Credentials are replaced by `[redacted]` by the names of
/// their fields: `authorization`, `cookie`, `set-cookie`, `x-api-key`, `password`, `token`, `secret`, and names that end in
/// `_password`, `_token` or `_secret`.
///
/// ```
/// use async_endpoints_telemetry::{LogOutput, Logs};
///
/// // Lines of all levels from info for a terminal, warnings and errors in one file a day. The newest 14 are kept.
/// let warnings = LogOutput::daily_files("/var/log/reports", 14).filter("warn");
/// let logs = Logs::new().output(LogOutput::stderr()).output(warnings);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is logged before the builder is given it"]
pub struct Logs {
    outputs: Vec<LogOutput>,
}

/// An output of log lines.
#[derive(Clone, Debug)]
#[must_use = "an output is added to `Logs`"]
pub struct LogOutput {
    destination: Destination,
    format: LogFormat,
    filter: String,
}

/// Format of log lines.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people. Has colors on a terminal.
    Pretty,
    /// One flat JSON object for each line.
    Json,
}

#[derive(Clone, Debug)]
enum Destination {
    Stderr,
    Writer(LogWriter),
    Daily { folder: PathBuf, kept: usize, setting: &'static str },
}

impl Logs {
    /// Without outputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an output.
    pub fn output(mut self, output: LogOutput) -> Self {
        self.outputs.push(output);
        self
    }

    /// Logs to stderr, with these variables:
    ///
    /// | variable | meaning | default |
    /// |---|---|---|
    /// | `RUST_LOG` | levels by target, as [`EnvFilter`] reads them | `info` |
    /// | `AE_LOG_FORMAT` | `pretty` or `json` | `pretty` on a terminal, else `json` |
    /// | `AE_LOG_DIR` | folder of daily JSON files, besides stderr; the newest 14 are kept | no files |
    ///
    /// # Errors
    ///
    /// An invalid value.
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::from_vars(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// Empty variables are unset.
    pub(crate) fn from_vars(vars: impl Fn(&str) -> Option<String>) -> Result<Self, TelemetryError> {
        let value = |name| vars(name).filter(|value| !value.trim().is_empty());
        let filter = value(FILTER).unwrap_or_else(|| DEFAULT_FILTER.to_owned());
        env_filter(FILTER, &filter)?;
        let format = value(FORMAT).map(|format| parse_format(&format)).transpose()?;
        let stderr = LogOutput { format: format.unwrap_or_else(default_format), ..LogOutput::stderr() };
        let files = value(FOLDER).map(|folder| LogOutput::daily(folder.into(), KEPT_FILES, FOLDER));
        let outputs = [stderr].into_iter().chain(files).map(|output| output.filter(&filter));
        Ok(Self { outputs: outputs.collect() })
    }

    /// Starts the outputs. Returns their layers, and their writers to flush.
    ///
    /// # Errors
    ///
    /// An invalid filter, or a folder that cannot be written.
    pub(crate) fn start<S>(
        self,
        service: &str,
        environment: Option<&str>,
    ) -> Result<(Vec<Box<dyn Layer<S> + Send + Sync>>, LogWriters), TelemetryError>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut layers = Vec::new();
        let mut writers = Vec::new();
        for output in self.outputs {
            let filter = env_filter("log filter", &output.filter)?;
            if output.is_off() {
                continue;
            }
            let style = output.style(service, environment);
            let writer = output.destination.start(service)?;
            writers.push(writer.clone());
            layers.push(OutputLayer { style, writer }.with_filter(filter).boxed());
        }
        Ok((layers, LogWriters(writers)))
    }
}

impl LogOutput {
    /// Lines to stderr: pretty on a terminal, else JSON.
    pub fn stderr() -> Self {
        Self::new(Destination::Stderr, default_format())
    }

    /// JSON lines to a writer, such as `LogWriter::start(io::stdout())`.
    pub fn writer(writer: LogWriter) -> Self {
        Self::new(Destination::Writer(writer), LogFormat::Json)
    }

    /// JSON lines to `<folder>/<service name>.YYYY-MM-DD.log`, a file for each UTC day. Keeps the newest `kept` files, at
    /// least 1. The folder is created if it does not exist.
    pub fn daily_files(folder: impl Into<PathBuf>, kept: usize) -> Self {
        Self::daily(folder.into(), kept, "log folder")
    }

    /// `setting` is named in errors.
    fn daily(folder: PathBuf, kept: usize, setting: &'static str) -> Self {
        Self::new(Destination::Daily { folder, kept, setting }, LogFormat::Json)
    }

    fn new(destination: Destination, format: LogFormat) -> Self {
        Self { destination, format, filter: DEFAULT_FILTER.to_owned() }
    }

    /// Sets the format.
    pub fn format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets levels by target, as [`EnvFilter`] reads them, such as `info,async_endpoints=debug`. Defaults to `info`.
    pub fn filter(mut self, directives: impl Into<String>) -> Self {
        self.filter = directives.into();
        self
    }

    /// Whether the filter removes every line.
    fn is_off(&self) -> bool {
        EnvFilter::builder().parse_lossy(&self.filter).max_level_hint() == Some(LevelFilter::OFF)
    }

    fn style(&self, service: &str, environment: Option<&str>) -> Style {
        match self.format {
            LogFormat::Json => Style::Json(json::resource(service, environment)),
            LogFormat::Pretty => {
                let ansi = matches!(self.destination, Destination::Stderr) && io::stderr().is_terminal();
                Style::Pretty { ansi }
            }
        }
    }
}

impl Destination {
    fn start(self, service: &str) -> Result<LogWriter, TelemetryError> {
        match self {
            Self::Stderr => Ok(LogWriter::start(io::stderr())),
            Self::Writer(writer) => Ok(writer),
            Self::Daily { folder, kept, setting } => {
                let file = DailyFile::open(folder.clone(), service, kept).map_err(|error| {
                    let expected = format!("a folder that can be written ({error})");
                    TelemetryError::setting(setting, folder.display().to_string(), &expected)
                })?;
                Ok(LogWriter::start(file))
            }
        }
    }
}

/// The writers of started outputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogWriters(Vec<LogWriter>);

impl LogWriters {
    /// Waits until earlier lines are written, at most `limit` together.
    pub(crate) fn flush_within(&self, limit: Duration) {
        let end = Instant::now() + limit;
        for writer in &self.0 {
            writer.flush_within(end.saturating_duration_since(Instant::now()));
        }
    }
}

fn default_format() -> LogFormat {
    if io::stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json }
}

fn parse_format(value: &str) -> Result<LogFormat, TelemetryError> {
    match value {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err(TelemetryError::setting(FORMAT, value, "pretty or json")),
    }
}

/// A filter that keeps the spans of [`SCOPE_TARGET`].
fn env_filter(setting: &str, directives: &str) -> Result<EnvFilter, TelemetryError> {
    let invalid =
        || TelemetryError::setting(setting, directives, "a level or directives, such as info,async_endpoints=debug");
    let scope = format!("{SCOPE_TARGET}=error").parse().map_err(|_| invalid())?;
    let filter = EnvFilter::try_new(directives).map_err(|_| invalid())?;
    Ok(filter.add_directive(scope))
}
