//! The endpoints and handlers of a process, depending on its role.

use std::{error::Error, net::SocketAddr, sync::Arc};

use async_endpoints::{Access, AccessLevel, AsyncEndpoints, Endpoint, Options, Store, Telemetry, alerts::Alerts};
use axum::Router;

use crate::{
    checks,
    front::Front,
    handlers::{
        monitored::{self, MONITORED},
        performance::{self, Metrics, PERFORMANCE},
        sleep::{self, Sleep},
        traced::{TRACED, Traced},
        unreliable::{UNRELIABLE, Unreliable},
    },
    ledger::Ledger,
    settings::Settings,
    weather::Weather,
};

/// The library's own settings.
pub(crate) struct LibrarySettings {
    pub(crate) options: Options,
    pub(crate) alerts: Alerts,
}

/// Dependencies of the handlers.
pub(crate) struct Parts {
    pub(crate) ledger: Ledger,
    pub(crate) weather: Arc<Weather>,
}

/// Builds the service and the routes for the role of this process. Registers handlers only if `climate`, the address of the
/// climate service, is given.
pub(crate) fn build(
    settings: &Settings,
    library: LibrarySettings,
    parts: Parts,
    climate: Option<SocketAddr>,
    store: Arc<dyn Store>,
    telemetry: &Telemetry,
) -> Result<(AsyncEndpoints, Router), Box<dyn Error>> {
    let sleep = sleep::job_type(settings.job_timeout_is_set);
    let mut builder = AsyncEndpoints::builder(store)
        .options(library.options)
        .alerts(library.alerts)
        .telemetry(telemetry)
        .access(access(settings))
        .endpoint(Endpoint::post("/api/process-data", MONITORED).documented())
        .endpoint(Endpoint::post("/api/traced", TRACED).documented())
        .endpoint(Endpoint::post("/api/performance", PERFORMANCE).documented())
        .endpoint(Endpoint::post("/api/unreliable", UNRELIABLE).documented())
        .endpoint(Endpoint::post("/api/sleep", sleep).documented());
    if let Some(climate) = climate {
        let Parts { ledger, weather } = parts;
        builder = builder
            .health_check("weather", checks::weather(weather.clone()))
            .health_check("climate", checks::climate(climate)?)
            .blocking_handler(MONITORED, monitored::handler(weather.clone(), ledger.clone()))
            .handler(TRACED, Traced::new(climate, weather, ledger.clone())?)
            .blocking_handler(PERFORMANCE, performance::handler(ledger.clone(), Metrics::new(telemetry)))
            .handler(UNRELIABLE, Unreliable(ledger.clone()))
            .handler(sleep, Sleep(ledger));
    } else {
        builder = builder
            .handled_elsewhere(MONITORED)
            .handled_elsewhere(TRACED)
            .handled_elsewhere(PERFORMANCE)
            .handled_elsewhere(UNRELIABLE)
            .handled_elsewhere(sleep);
    }
    let endpoints = builder.build()?;
    let mut app = Front::new(settings)
        .routes()
        .merge(endpoints.job_routes())
        .merge(endpoints.monitoring_routes())
        .merge(endpoints.dashboard_routes());
    if settings.role.accepts() {
        app = app.merge(endpoints.submit_routes());
    }
    Ok((endpoints, app))
}

/// Operators have a token. Without one, callers from this machine are operators.
fn access(settings: &Settings) -> Access {
    let Some(admin_token) = &settings.admin_token else { return Access::loopback() };
    let view_token = settings.view_token.iter().map(|token| (token, AccessLevel::View));
    Access::tokens(view_token.chain([(admin_token, AccessLevel::Operate)]))
}
