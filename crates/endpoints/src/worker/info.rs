//! How a worker describes itself in its heartbeats.

use std::time::SystemTime;

use async_endpoints_core::store::{WorkerId, WorkerInfo, WorkerSlots};

/// Describes a worker that this process creates now. `version` is that of the program.
pub(crate) fn describe(id: WorkerId, version: String) -> WorkerInfo {
    WorkerInfo {
        id,
        host: host(),
        pid: std::process::id(),
        version,
        started_at: SystemTime::now().into(),
        slots: WorkerSlots::default(),
        types: Vec::new(),
    }
}

#[cfg(unix)]
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}
