//! Process metrics under the names that all Prometheus clients use, and the memory of this process. They are read from
//! `/proc`: other systems than Linux have [`BUILD_INFO`] alone.
#![allow(missing_docs, reason = "each instrument has a help text")]

#[cfg(target_os = "linux")]
use std::path::Path;

use crate::instrument::{Combine, Instrument};

pub const CPU: Instrument = Instrument::counter("process.cpu", "s", &[], "CPU time of the process, user and system.");
pub const RESIDENT_MEMORY: Instrument =
    Instrument::gauge("process.resident_memory", "By", &[], "Resident memory of the process.");
pub const VIRTUAL_MEMORY: Instrument =
    Instrument::gauge("process.virtual_memory", "By", &[], "Virtual memory of the process.");
pub const MEMORY_LIMIT: Instrument = Instrument::gauge(
    "process.memory_limit",
    "By",
    &[],
    "Memory limit of the process: the smallest one of its cgroups, else the memory of the machine.",
)
.combine(Combine::Never);
pub const OPEN_FDS: Instrument = Instrument::gauge("process.open_fds", "{fd}", &[], "Open file descriptors.");
pub const MAX_FDS: Instrument =
    Instrument::gauge("process.max_fds", "{fd}", &[], "Maximum number of open file descriptors.");
pub const THREADS: Instrument = Instrument::gauge("process.threads", "{thread}", &[], "Threads of the process.");
pub const START_TIME: Instrument =
    Instrument::gauge("process.start_time", "s", &[], "Start time of the process in seconds since the Unix epoch.")
        .combine(Combine::Never);
pub const BUILD_INFO: Instrument = Instrument::gauge(
    "build_info",
    "",
    &["version", "async_endpoints_version"],
    "Always 1. The labels are the versions of the service and of AsyncEndpoints.",
);

/// Resident memory of this process in bytes. None on other systems than Linux.
pub fn resident_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return crate::memory::resident(Path::new("/"));
    #[cfg(not(target_os = "linux"))]
    None
}

/// Memory limit of this process in bytes: the smallest limit of its cgroup and the cgroups above it, or the memory of the
/// machine if that is less. None on other systems than Linux.
pub fn memory_limit() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return crate::memory::limit(Path::new("/"));
    #[cfg(not(target_os = "linux"))]
    None
}
