//! Every metric of this library, once: its name, kind, unit, labels and meaning. What records them, the table of the docs,
//! the alert rules and the dashboard all go by this list.

use async_endpoints_core::store::BOUNDS;

/// What a metric measures with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins at zero with the process.
    Counter,
    /// A value as it is now.
    Gauge,
    /// How many measurements fell below each bound.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Where a gauge's value comes from, and with it how values of several processes go together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What this process did or has: add the processes up.
    Process,
    /// What the store says of the whole fleet: every process reports the same, so take the largest.
    Fleet,
    /// What this process is: values of several do not go together.
    Single,
}

/// A metric as it is declared: names by OpenTelemetry's rules, from which those of Prometheus follow.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Instrument {
    /// Its name for OpenTelemetry, as `async_job.queue_time`.
    pub name: &'static str,
    /// What it measures with.
    pub kind: Kind,
    /// Its unit: `s`, `By`, `1` for what has none, or what is counted, as `{job}`.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// How values of several processes go together.
    pub scope: Scope,
    /// What it says.
    pub help: &'static str,
}

impl Instrument {
    const fn new(
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, unit, labels, scope: Scope::Process, help }
    }

    const fn counter(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Counter, name, unit, labels, help)
    }

    const fn gauge(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Gauge, name, unit, labels, help)
    }

    const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self::new(Kind::Histogram, name, "s", labels, help)
    }

    const fn fleet(self) -> Self {
        Self { scope: Scope::Fleet, ..self }
    }

    const fn single(self) -> Self {
        Self { scope: Scope::Single, ..self }
    }

    /// Its name for Prometheus, as `async_job_queue_time_seconds`; counters end in `_total`, and a histogram has
    /// `_bucket`, `_sum` and `_count` behind it.
    pub fn prometheus_name(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{total}", super::naming::family_name(self.name, self.unit, self.kind))
    }

    /// Upper bounds of its buckets by default; none unless it is a histogram.
    pub fn bounds(&self) -> &'static [f64] {
        match self.kind {
            Kind::Histogram if self.name.starts_with("async_job.") => &BOUNDS,
            Kind::Histogram if self.name.starts_with("async_store.") => &STORE_BOUNDS,
            Kind::Histogram => &REQUEST_BOUNDS,
            Kind::Counter | Kind::Gauge => &[],
        }
    }
}

/// Bounds for calls of a store, in seconds: they take from microseconds in memory to five seconds, when they are given up.
const STORE_BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// OpenTelemetry's bounds for HTTP requests, in seconds.
const REQUEST_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $instrument:expr;)*) => {
        $($(#[$doc])* pub(crate) const $name: Instrument = $instrument;)*

        /// Every metric that a process can report, in the order of the docs.
        pub const CATALOGUE: &[Instrument] = &[$($name),*];
    };
}

type I = Instrument;

catalogue! {
    QUEUED = I::counter("async_job.queued", "{job}", &["job_type"], "Jobs accepted and stored, operators' retries included.");
    SUBMISSIONS = I::counter("async_job.submissions", "{submission}", &["job_type", "result"],
        "Submissions by what became of them: accepted, duplicate (answered with the job of before), conflict (the key belongs to another request), invalid, rejected (queue full, store unavailable, shutting down).");
    PROCESSED = I::counter("async_job.processed", "{job}", &["job_type"], "Jobs completed.");
    FAILED = I::counter("async_job.failed", "{job}", &["job_type", "error_type"], "Jobs finally failed, by error code.");
    CANCELED = I::counter("async_job.canceled", "{job}", &["job_type"], "Jobs canceled.");
    RETRIES = I::counter("async_job.retries", "{retry}", &["job_type"], "Failed attempts after which the job runs again.");
    RECOVERED = I::counter("async_job.recovered", "{job}", &["job_type"], "Jobs taken from workers that died or were cut off.");
    ATTEMPTS = I::counter("async_job.attempts", "{attempt}", &["job_type", "outcome", "error_type"],
        "Attempts ended: completed, retried, failed, canceled, released (given back by a worker that stopped), lost (with its worker).");
    QUEUE_TIME = I::seconds("async_job.queue_time", &["job_type"], "From when an attempt could have started to its start.");
    PROCESSING_TIME = I::seconds("async_job.processing_time", &["job_type", "outcome"], "How long an attempt ran.");
    TOTAL_TIME = I::seconds("async_job.total_time", &["job_type", "outcome"], "From a job's acceptance to its end.");
    JOBS = I::gauge("async_job.jobs", "{job}", &["job_type", "state"], "Jobs in the store, by state.").fleet();
    OLDEST_QUEUED_AGE = I::gauge("async_job.oldest_queued_age", "s", &["job_type"], "How long the runnable job that waits longest has waited; 0 if none waits.").fleet();
    OLDEST_RUNNING_AGE = I::gauge("async_job.oldest_running_age", "s", &["job_type"], "How long the longest running attempt has run; 0 if none runs.").fleet();
    STUCK = I::gauge("async_job.stuck", "{job}", &["job_type"], "Jobs that nothing moved for ten minutes though something should have: runnable and no live worker takes the type, past the timeout and still running, or left by a worker and not recovered.").fleet();
    WORKERS = I::gauge("async_worker.live", "{worker}", &["job_type"], "Live workers that take jobs of the type.").fleet();
    SLOTS = I::gauge("async_worker.slots", "{slot}", &["state"], "Slots of this process's worker: busy, idle, or leaked (held by a handler that was given up and cannot be stopped).");
    OPERATION_TIME = I::seconds("async_store.operation_time", &["store", "operation", "outcome"], "How long calls of the store took: ok or error.");
    QUARANTINED = I::gauge("async_store.quarantined", "{job}", &["store"], "Stored jobs that cannot be read and were put aside.").fleet();
    MENDED = I::gauge("async_store.mended", "{job}", &["store"], "Jobs whose indexes disagreed with them and were mended, so far.").fleet();
    REQUEST_DURATION = I::seconds("http.server.request.duration", &["http.request.method", "http.route", "http.response.status_code", "url.scheme", "error.type"], "How long HTTP requests took until their answer began.");
    OVERFLOW = I::counter("async_metrics.overflow", "{record}", &[], "Records counted under the label value _other, because their job type is not declared in this process, or is beyond the first 100, or their error code was one too many.");
    CPU = I::counter("process.cpu", "s", &[], "Processor time, user and system.");
    RESIDENT_MEMORY = I::gauge("process.resident_memory", "By", &[], "Memory in RAM.");
    VIRTUAL_MEMORY = I::gauge("process.virtual_memory", "By", &[], "Address space.");
    OPEN_FDS = I::gauge("process.open_fds", "{fd}", &[], "File descriptors in use.");
    MAX_FDS = I::gauge("process.max_fds", "{fd}", &[], "File descriptors that may be in use.");
    THREADS = I::gauge("process.threads", "{thread}", &[], "Threads.");
    START_TIME = I::gauge("process.start_time", "s", &[], "When the process started, in seconds since the Unix epoch.").single();
    BUILD_INFO = I::gauge("build_info", "", &["version", "async_endpoints_version"], "Always 1; which versions of the service and of this library run.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for instrument in CATALOGUE {
            let name = instrument.prometheus_name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), instrument.kind == Kind::Counter, "{name}");
            assert_eq!(name.contains("_seconds"), instrument.unit == "s", "{name}");
            assert_eq!(name.contains("_bytes"), instrument.unit == "By", "{name}");
            assert!(!instrument.name.contains("total") || instrument.name == "async_job.total_time", "{name}");
            assert!(instrument.help.ends_with('.'), "{name}");
            for label in instrument.labels {
                assert!(!["job_id", "worker_id", "user", "path", "message"].contains(label), "{name} {label}");
            }
        }
        assert_eq!(QUEUE_TIME.prometheus_name(), "async_job_queue_time_seconds");
        assert_eq!(CPU.prometheus_name(), "process_cpu_seconds_total");
        assert_eq!(BUILD_INFO.prometheus_name(), "build_info");
    }

    #[test]
    fn names_are_given_once() {
        let mut names: Vec<String> = CATALOGUE.iter().map(Instrument::prometheus_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
    }
}
