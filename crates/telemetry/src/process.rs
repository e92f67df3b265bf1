//! Process metrics under the names that all Prometheus clients use. They are read from `/proc`: other systems than Linux
//! have [`BUILD_INFO`] alone.
#![allow(missing_docs, reason = "each instrument has a help text")]

#[cfg(target_os = "linux")]
use std::path::Path;

use opentelemetry::{KeyValue, metrics::Meter};

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
    return linux::resident_memory();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Memory limit of this process in bytes: the smallest limit of its cgroup and the cgroups above it, or the memory of the
/// machine if that is less. None on other systems than Linux.
pub fn memory_limit() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return crate::memory_limit::memory_limit(Path::new("/"));
    #[cfg(not(target_os = "linux"))]
    None
}

/// Registers all process metrics. `version` is the service's.
pub(crate) fn register(meter: &Meter, version: &str) {
    let version = version.to_owned();
    BUILD_INFO.observe(meter, move |gauge| {
        let own = KeyValue::new("async_endpoints_version", env!("CARGO_PKG_VERSION"));
        gauge.observe(1.0, &[KeyValue::new("version", version.clone()), own]);
    });
    #[cfg(target_os = "linux")]
    linux::register(meter);
}

#[cfg(target_os = "linux")]
mod linux {
    use opentelemetry::metrics::Meter;
    use procfs::{
        ProcResult, WithCurrentSystemInfo,
        process::{LimitValue, Process, Stat},
    };

    use super::{CPU, MAX_FDS, MEMORY_LIMIT, OPEN_FDS, RESIDENT_MEMORY, START_TIME, THREADS, VIRTUAL_MEMORY};
    use crate::instrument::Instrument;

    pub(super) fn register(meter: &Meter) {
        let cpu = meter.f64_observable_counter(CPU.name).with_unit(CPU.unit).with_description(CPU.help);
        let _registered = cpu
            .with_callback(|counter| {
                if let Some(seconds) = stat().as_ref().and_then(cpu_seconds) {
                    counter.observe(seconds, &[]);
                }
            })
            .build();
        gauge(meter, &RESIDENT_MEMORY, || resident_memory().map(|bytes| bytes as f64));
        gauge(meter, &MEMORY_LIMIT, || super::memory_limit().map(|bytes| bytes as f64));
        gauge(meter, &VIRTUAL_MEMORY, || stat().map(|stat| stat.vsize as f64));
        gauge(meter, &THREADS, || stat().map(|stat| stat.num_threads as f64));
        gauge(meter, &OPEN_FDS, || of(Process::fd_count).map(|count| count as f64));
        gauge(meter, &MAX_FDS, || of(|process| Ok(process.limits()?.max_open_files.soft_limit)).and_then(limit));
        let started = stat().as_ref().and_then(start_seconds);
        gauge(meter, &START_TIME, move || started);
    }

    fn gauge(meter: &Meter, instrument: &Instrument, value: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        instrument.observe(meter, move |gauge| {
            if let Some(value) = value() {
                gauge.observe(value, &[]);
            }
        });
    }

    fn of<T>(read: impl FnOnce(&Process) -> ProcResult<T>) -> Option<T> {
        Process::myself().and_then(|process| read(&process)).ok()
    }

    pub(super) fn resident_memory() -> Option<u64> {
        stat().map(|stat| stat.rss_bytes().get())
    }

    fn stat() -> Option<Stat> {
        of(Process::stat)
    }

    fn cpu_seconds(stat: &Stat) -> Option<f64> {
        Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
    }

    /// `starttime` counts clock ticks since the machine started.
    fn start_seconds(stat: &Stat) -> Option<f64> {
        let booted = procfs::boot_time_secs().ok()? as f64;
        Some(booted + stat.starttime as f64 / procfs::ticks_per_second() as f64)
    }

    fn limit(limit: LimitValue) -> Option<f64> {
        match limit {
            LimitValue::Value(limit) => Some(limit as f64),
            LimitValue::Unlimited => None,
        }
    }
}
