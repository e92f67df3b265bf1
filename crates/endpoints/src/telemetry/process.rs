//! What the process uses, as every Prometheus client names it. Read from `/proc`, and so on Linux only.

use opentelemetry::{KeyValue, metrics::Meter};

use super::{catalogue as c, gauges::observe};

/// Registers the gauges of this process, and which versions run.
pub(crate) fn register(meter: &Meter, version: &str) {
    let version = version.to_owned();
    observe(meter, &c::BUILD_INFO, move |gauge| {
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

    use super::super::{
        catalogue::{self as c, Instrument},
        gauges::observe,
    };

    pub(super) fn register(meter: &Meter) {
        let cpu = meter.f64_observable_counter(c::CPU.name).with_unit(c::CPU.unit).with_description(c::CPU.help);
        let _registered = cpu
            .with_callback(|counter| {
                if let Some(seconds) = stat().as_ref().and_then(cpu_seconds) {
                    counter.observe(seconds, &[]);
                }
            })
            .build();
        gauge(meter, &c::RESIDENT_MEMORY, || stat().map(|stat| stat.rss_bytes().get() as f64));
        gauge(meter, &c::VIRTUAL_MEMORY, || stat().map(|stat| stat.vsize as f64));
        gauge(meter, &c::THREADS, || stat().map(|stat| stat.num_threads as f64));
        gauge(meter, &c::OPEN_FDS, || of(Process::fd_count).map(|count| count as f64));
        gauge(meter, &c::MAX_FDS, || of(|process| Ok(process.limits()?.max_open_files.soft_limit)).and_then(limit));
        let started = stat().as_ref().and_then(start_seconds);
        gauge(meter, &c::START_TIME, move || started);
    }

    fn gauge(meter: &Meter, instrument: &Instrument, value: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        observe(meter, instrument, move |gauge| {
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

    /// The stat has ticks since the machine started.
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
