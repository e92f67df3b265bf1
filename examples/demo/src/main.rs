//! The demo service: slow jobs over real weather data behind asynchronous endpoints.
//!
//! | module | contents |
//! |---|---|
//! | `settings` | environment variables |
//! | `front` | what is printed at the start, and the page at `/` |
//! | `store` | opens the job store |
//! | `service` | endpoints and handlers |
//! | `handlers` | the jobs |
//! | `checks` | health checks of the database and the climate service |
//! | `weather` | the demo's database |
//! | `climate` | a second HTTP service, which one of the handlers calls |
//! | `ledger` | a record of attempts outside the store |
//!
//! Exit codes: 0 after a clean stop, 2 for an invalid setting, 1 for other errors.

mod checks;
mod climate;
mod day;
mod front;
mod handlers;
mod ledger;
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

use async_endpoints::{Options, Telemetry, alerts::Alerts, telemetry::LogWriter};
use tokio::{net::TcpListener, runtime::Runtime};

use climate::Climate;
use front::Front;
use ledger::Ledger;
use service::{LibrarySettings, Parts};
use settings::{BadSetting, Settings};
use store::StoreHandle;
use weather::Weather;

/// Jobs are allocated on one thread and freed on another, which takes the system's allocator twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Timeout for the last telemetry, log lines included. The process exits within three seconds of its drain.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for the error that ends the process, should stderr be blocked.
const ERROR_TIMEOUT: Duration = Duration::from_millis(500);

/// An error that ends the process. Printed as one line.
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
    let mut stderr = LogWriter::start(io::stderr());
    drop(stderr.write(format!("{line}\n").as_bytes()));
    stderr.flush_within(ERROR_TIMEOUT);
    ExitCode::from(code)
}

fn run() -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    let library = LibrarySettings {
        options: Options::from_env("AE_").map_err(|error| Failure::Setting(error.to_string()))?,
        alerts: Alerts::from_env("AE_").map_err(|error| Failure::Setting(error.to_string()))?,
    };
    let telemetry = telemetry()?;
    let _flushed = telemetry.flush_on_drop(FLUSH_TIMEOUT);
    let parts = open(&settings)?;
    let runtime = Runtime::new().map_err(|error| Failure::other("cannot start the runtime", error))?;
    let store = runtime.block_on(StoreHandle::open(&settings))?;
    let served = runtime.block_on(serve(&settings, library, parts, &store, &telemetry));
    // The process does not wait for a blocking handler that ignores cancellation.
    runtime.shutdown_timeout(Duration::from_millis(100));
    store.close();
    served
}

/// Logs, traces and metrics by `RUST_LOG`, `AE_LOG_*` and `OTEL_*`.
fn telemetry() -> Result<Telemetry, Failure> {
    let telemetry = Telemetry::builder()
        .service_name(env!("CARGO_PKG_NAME"))
        .service_version(env!("CARGO_PKG_VERSION"))
        .environment("development");
    telemetry.env().install().map_err(|error| Failure::Setting(error.to_string()))
}

/// Opens the files that the handlers work with.
fn open(settings: &Settings) -> Result<Parts, Failure> {
    let Settings { ledger, data, .. } = settings;
    let bad = |name, path: &std::path::Path, error: &dyn std::fmt::Display| {
        BadSetting::new(name, path.display(), format_args!("cannot open the file ({error}), expected a writable file"))
    };
    Ok(Parts {
        ledger: Ledger::open(ledger.as_deref())
            .map_err(|error| bad("AE_LEDGER", ledger.as_deref().unwrap_or(data), &error))?,
        weather: Arc::new(Weather::open(data).map_err(|error| bad("AE_DATA", data, &error))?),
    })
}

async fn serve(
    settings: &Settings,
    library: LibrarySettings,
    parts: Parts,
    store: &StoreHandle,
    telemetry: &Telemetry,
) -> Result<(), Failure> {
    let climate = climate(settings).await?;
    let climate_at = climate.as_ref().map(Climate::address);
    let (endpoints, app) = service::build(settings, library, parts, climate_at, store.store.clone(), telemetry)
        .map_err(|error| Failure::other("cannot build the service", error))?;
    let refused = |error: io::Error| match error.kind() {
        // The setting is valid.
        io::ErrorKind::AddrInUse => Failure::Other(taken(&settings.bind)),
        _ => BadSetting::new("AE_BIND", &settings.bind, format_args!("expected an address of this machine ({error})"))
            .into(),
    };
    let listener = TcpListener::bind(&settings.bind).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    if settings.admin_token.is_none() {
        tracing::info!("AE_ADMIN_TOKEN is not set: callers from this machine are operators");
    }
    // `serve` is polled first and installs the signal handlers before the address is printed.
    let serving = async {
        tokio::join!(biased; endpoints.serve(listener, app), async { announce(Front::new(settings), address) }).0
    };
    let serving = until_store_fails(serving, store, || endpoints.shutdown());
    match climate {
        Some(climate) => climate.serve_during(serving).await,
        None => serving.await,
    }
}

/// Serves until the end, or until the store is permanently unusable. Then shuts down gracefully and returns the same error
/// as at start.
async fn until_store_fails(
    serving: impl Future<Output = io::Result<()>>,
    store: &StoreHandle,
    stop: impl FnOnce(),
) -> Result<(), Failure> {
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        served = &mut serving => served.map_err(|error| Failure::other("the service failed", error)),
        bad = store.refused() => {
            stop();
            drop(serving.await);
            Err(bad.into())
        }
    }
}

/// Opens the climate service in roles that run attempts.
async fn climate(settings: &Settings) -> Result<Option<Climate>, Failure> {
    if !settings.role.runs() {
        return Ok(None);
    }
    let climate = Climate::open().await;
    climate.map(Some).map_err(|error| Failure::other("the climate service cannot listen on 127.0.0.1", error))
}

/// Prints the address and what to do with it on stdout, which may be closed or blocked.
fn announce(front: Front, address: SocketAddr) {
    drop(LogWriter::start(io::stdout()).write(front.greeting(&format!("http://{address}")).as_bytes()));
}

/// The error of a port that another program listens on.
fn taken(bind: &str) -> String {
    let free = bind.rsplit_once(':').map_or(bind, |(host, _)| host);
    format!(
        "cannot listen on {bind}: another program uses this port. Set AE_BIND to another address; AE_BIND={free}:0 picks a \
         free port"
    )
}
