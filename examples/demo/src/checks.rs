//! Health checks of what the handlers need: the demo's database and the climate service.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use async_endpoints::health::{BoxError, Check, CheckResult};
use reqwest::Client;

use crate::weather::Weather;

/// Time limit of a check.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Reads from the database. Its calls block, so the check has a thread.
pub(crate) fn weather(weather: Arc<Weather>) -> Check {
    let check = move || {
        let weather = weather.clone();
        async move {
            let observed = tokio::task::spawn_blocking(move || weather.has_observations()).await??;
            let empty = || CheckResult::unhealthy("the database has no observations");
            Ok::<_, BoxError>(if observed { CheckResult::healthy() } else { empty() })
        }
    };
    Check::new(check).tag("ready").timeout(TIMEOUT)
}

/// Calls the climate service.
pub(crate) fn climate(address: SocketAddr) -> Result<Check, Box<dyn Error>> {
    let client = Client::builder().no_proxy().build()?;
    let check = move || {
        let request = client.get(format!("http://{address}/health"));
        async move { request.send().await?.error_for_status().map(|_| CheckResult::healthy()) }
    };
    Ok(Check::new(check).tag("ready").timeout(TIMEOUT))
}
