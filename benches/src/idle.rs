//! The processor time of an idle process that serves and works. References, measured at the same time: a process with the
//! memory store, and axum alone.

use std::time::Duration;

use crate::{
    process::{Server, cpu_with_children},
    report::{Result, row, title},
};

/// Duration of the measurement. A tick of the clock is a twentieth of a percent of it.
pub(crate) const TIME: Duration = Duration::from_secs(20);
/// Time for processes to start.
const START: Duration = Duration::from_secs(3);

/// Prints the processor time of a process with the store that `serve <store>` opens, and of the store's server.
pub(crate) async fn on(name: &str, store: &[&str], server: Option<u32>, time: Duration) -> Result<()> {
    title(&format!("Idle {name}: processes that serve and wait, for {time:?}, at the same time"));
    let names = ["axum alone (reference)", "serving and working, in memory (reference)", "serving and working"];
    let servers = [Server::start(&["bare"])?, Server::start(&["endpoints"])?, Server::start(store)?];
    tokio::time::sleep(START).await;
    let now = || -> Result<Vec<Duration>> {
        let mut used = servers.iter().map(Server::cpu).collect::<std::io::Result<Vec<_>>>()?;
        used.extend(server.map(cpu_with_children).transpose()?);
        Ok(used)
    };
    let before = now()?;
    tokio::time::sleep(time).await;
    let after = now()?;
    for (name, (before, after)) in names.iter().chain(&["the store's server"]).zip(before.iter().zip(&after)) {
        let share = (*after - *before).as_secs_f64() / time.as_secs_f64() * 100.0;
        row(name, &format!("{share:>9.2} % of a core"));
    }
    Ok(())
}
