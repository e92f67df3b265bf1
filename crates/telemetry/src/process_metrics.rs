//! Registers the process metrics.

use opentelemetry::{KeyValue, metrics::Meter};

use crate::process::BUILD_INFO;

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
        ProcResult,
        process::{LimitValue, Process, Stat},
    };

    use crate::{
        instrument::Instrument,
        process::{self, CPU, MAX_FDS, MEMORY_LIMIT, OPEN_FDS, RESIDENT_MEMORY, START_TIME, THREADS, VIRTUAL_MEMORY},
    };

    pub(super) fn register(meter: &Meter) {
        let cpu = meter.f64_observable_counter(CPU.name).with_unit(CPU.unit).with_description(CPU.help);
        let _registered = cpu
            .with_callback(|counter| {
                if let Some(seconds) = stat().as_ref().and_then(cpu_seconds) {
                    counter.observe(seconds, &[]);
                }
            })
            .build();
        gauge(meter, &RESIDENT_MEMORY, || process::resident_memory().map(|bytes| bytes as f64));
        gauge(meter, &MEMORY_LIMIT, || process::memory_limit().map(|bytes| bytes as f64));
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
