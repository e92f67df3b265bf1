//! The demo service: slow work over real weather data behind asynchronous endpoints.
//!
//! | file | owns |
//! |---|---|
//! | `settings` | what the environment says |
//! | `store` | where jobs are kept |
//! | `service` | which endpoint leads to which handler |
//! | `handlers` | the work |
//! | `weather` | the demo's own database |
//! | `climate` | a second HTTP service, which one of the handlers calls |
//! | `ledger` | a record of what really ran |
//!
//! Exit codes: 0 after a clean stop, 2 for a setting that cannot be used, 1 for everything else.

mod climate;
mod day;
mod handlers;
mod ledger;
mod logging;
mod service;
mod settings;
mod store;
mod weather;

use std::{
    io::{self, Write},
    net::SocketAddr,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use async_endpoints::{Options, Telemetry};
use tokio::{net::TcpListener, runtime::Runtime};

use climate::Climate;
use ledger::Ledger;
use service::Parts;
use settings::{BadSetting, Settings};
use store::Jobs;
use weather::Weather;

/// Jobs are made on one thread and dropped on another; the system's allocator takes twice the time for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last figures may take to the collector. With this and the closing of the store, the process is gone within
/// three seconds after its drain.
const FLUSH: Duration = Duration::from_secs(1);

/// Why the process ends with an error. Shown as one line.
enum Failure {
    Setting(String),
    Other(String),
}

impl From<BadSetting> for Failure {
    fn from(bad: BadSetting) -> Self {
        Self::Setting(bad.to_string())
    }
}

impl Failure {
    fn other(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Other(format!("{what}: {error}"))
    }
}

fn main() -> ExitCode {
    let (line, code) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Setting(line)) => (line, 2),
        Err(Failure::Other(line)) => (line, 1),
    };
    eprintln!("{line}");
    ExitCode::from(code)
}

fn run() -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    let options = Options::from_env("AE_").map_err(|error| Failure::Setting(error.to_string()))?;
    logging::start(&settings)?;
    let parts = open(&settings)?;
    let runtime = Runtime::new().map_err(|error| Failure::other("the runtime cannot start", error))?;
    let jobs = runtime.block_on(Jobs::open(&settings))?;
    let served = runtime.block_on(serve(&settings, options, parts, &jobs));
    // A handler that does not stop keeps its thread; the process does not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    jobs.close();
    served
}

/// Opens the files that the handlers work with.
fn open(settings: &Settings) -> Result<Parts, Failure> {
    let Settings { ledger, data, .. } = settings;
    let bad = |name, path: &std::path::Path, error: &dyn std::fmt::Display| {
        BadSetting::new(
            name,
            path.display(),
            format_args!("it cannot be opened ({error}), set a file that can be written"),
        )
    };
    Ok(Parts {
        ledger: Ledger::open(ledger.as_deref())
            .map_err(|error| bad("AE_LEDGER", ledger.as_deref().unwrap_or(data), &error))?,
        weather: Arc::new(Weather::open(data).map_err(|error| bad("AE_DATA", data, &error))?),
    })
}

async fn serve(settings: &Settings, options: Options, parts: Parts, jobs: &Jobs) -> Result<(), Failure> {
    let climate = climate(settings).await?;
    let climate_at = climate.as_ref().map(Climate::address);
    let telemetry = telemetry()?;
    let (endpoints, app) = service::build(settings, options, parts, climate_at, jobs.store.clone(), &telemetry)
        .map_err(|error| Failure::other("the service cannot be built", error))?;
    let refused = |error: io::Error| match error.kind() {
        // Nothing is wrong with the setting.
        io::ErrorKind::AddrInUse => Failure::other(&format!("cannot listen on AE_BIND {:?}", settings.bind), error),
        _ => {
            BadSetting::new("AE_BIND", &settings.bind, format_args!("set an address of this machine ({error})")).into()
        }
    };
    let listener = TcpListener::bind(&settings.bind).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    // Polled in this order: once the address is out, a signal already counts as a request to stop.
    let serving = async { tokio::join!(biased; endpoints.serve(listener, app), async { announce(address) }).0 };
    let serving = unless_refused(serving, jobs, || endpoints.shutdown());
    let served = match climate {
        Some(climate) => climate.serve_during(serving).await,
        None => serving.await,
    };
    telemetry.shutdown(FLUSH).await;
    served
}

/// As OpenTelemetry's own variables say.
fn telemetry() -> Result<Telemetry, Failure> {
    let telemetry =
        Telemetry::builder().service_name(env!("CARGO_PKG_NAME")).service_version(env!("CARGO_PKG_VERSION"));
    telemetry.env().build().map_err(|error| Failure::Setting(error.to_string()))
}

/// Serves until the end, or until it is known that the store will never do: then callers get their last answers, and
/// the process ends as it would have at its start.
async fn unless_refused(
    serving: impl Future<Output = io::Result<()>>,
    jobs: &Jobs,
    stop: impl FnOnce(),
) -> Result<(), Failure> {
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        served = &mut serving => served.map_err(|error| Failure::other("the service failed", error)),
        bad = jobs.refused() => {
            stop();
            drop(serving.await);
            Err(bad.into())
        }
    }
}

/// The second service, where attempts are run.
async fn climate(settings: &Settings) -> Result<Option<Climate>, Failure> {
    if !settings.role.runs() {
        return Ok(None);
    }
    let climate = Climate::open().await;
    climate.map(Some).map_err(|error| Failure::other("the climate service cannot listen on 127.0.0.1", error))
}

/// The one line on stdout. Whoever started this process may have closed its end: no reason to stop.
fn announce(address: SocketAddr) {
    drop(writeln!(io::stdout(), "listening on http://{address}"));
}
