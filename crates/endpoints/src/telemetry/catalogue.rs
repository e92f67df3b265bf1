//! Every metric of this library, declared once. The instruments, the table of the docs, the alert rules and the dashboard
//! follow from this list.

use async_endpoints_telemetry::{
    Combine, Instrument, LOG_DROPPED,
    process::{BUILD_INFO, CPU, MAX_FDS, MEMORY_LIMIT, OPEN_FDS, RESIDENT_MEMORY, START_TIME, THREADS, VIRTUAL_MEMORY},
};

/// Bucket bounds for durations in a job's life, in seconds.
const JOB_BOUNDS: [f64; 18] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Histogram of a duration in a job's life.
const fn job_time(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Instrument {
    Instrument::histogram(name, "s", labels, &JOB_BOUNDS, help)
}

/// Bucket bounds for store calls in seconds: from microseconds in memory to the limit of 5 s.
const STORE_BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// OpenTelemetry's bucket bounds for HTTP requests, in seconds.
const REQUEST_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Series limit of instruments with job type, error code and outcome: 100 job types with 58 codes and two outcomes fit.
const MAX_SERIES: usize = 20_000;

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $instrument:expr;)* | $($process:ident),*) => {
        $($(#[$doc])* pub(crate) const $name: Instrument = $instrument;)*

        /// Every metric that a process can report, in the order of the docs.
        pub const CATALOGUE: &[Instrument] = &[$($name,)* $($process),*];
    };
}

type I = Instrument;

catalogue! {
    QUEUED = I::counter("async_job.queued", "{job}", &["job_type"], "Jobs accepted and stored, including retries by operators.");
    SUBMISSIONS = I::counter("async_job.submissions", "{submission}", &["job_type", "result"],
        "Submissions by result: accepted, duplicate (answered with the existing job), conflict (the idempotency key belongs to another request), invalid, rejected (queue full, store unavailable, process stopping).");
    PROCESSED = I::counter("async_job.processed", "{job}", &["job_type"], "Jobs completed.");
    FAILED = I::counter("async_job.failed", "{job}", &["job_type", "error_type"], "Jobs finally failed, by error code.").max_series(MAX_SERIES);
    CANCELED = I::counter("async_job.canceled", "{job}", &["job_type"], "Jobs canceled.");
    RETRIES = I::counter("async_job.retries", "{retry}", &["job_type"], "Failed attempts whose job is retried.");
    RECOVERED = I::counter("async_job.recovered", "{job}", &["job_type"], "Jobs recovered from workers that died or lost the store.");
    ATTEMPTS = I::counter("async_job.attempts", "{attempt}", &["job_type", "outcome", "error_type"],
        "Attempts ended, by outcome: completed, retried, failed, canceled, released (given back by a stopping worker), lost (the worker died or lost the store).").max_series(MAX_SERIES);
    QUEUE_TIME = job_time("async_job.queue_time", &["job_type"], "Time from when an attempt became runnable to its start.");
    PROCESSING_TIME = job_time("async_job.processing_time", &["job_type", "outcome"], "Duration of an attempt.");
    TOTAL_TIME = job_time("async_job.total_time", &["job_type", "outcome"], "Time from a job's acceptance to its final outcome.");
    JOBS = I::gauge("async_job.jobs", "{job}", &["job_type", "state"], "Jobs in the store, by state.").combine(Combine::Max);
    OLDEST_QUEUED_AGE = I::gauge("async_job.oldest_queued_age", "s", &["job_type"], "Wait of the runnable job that waits longest; 0 without one.").combine(Combine::Max);
    OLDEST_RUNNING_AGE = I::gauge("async_job.oldest_running_age", "s", &["job_type"], "Duration of the longest running attempt; 0 without one.").combine(Combine::Max);
    STUCK = I::gauge("async_job.stuck", "{job}", &["job_type"], "Jobs without progress for ten minutes: runnable without a live worker for the type, running past the timeout, or not recovered from a dead worker.").combine(Combine::Max);
    PAUSED = I::gauge("async_job.paused", "", &["job_type"], "Whether an operator paused the type: 1 or 0. For _other: whether all of its types are paused.").combine(Combine::Max);
    WORKERS = I::gauge("async_worker.live", "{worker}", &["job_type"], "Live workers that run jobs of the type.").combine(Combine::Max);
    SLOTS = I::gauge("async_worker.slots", "{slot}", &["state"], "Slots of this process's worker: busy, idle, or leaked (held by a handler that was abandoned and cannot be stopped).");
    OPERATION_TIME = I::histogram("async_store.operation_time", "s", &["store", "operation", "outcome"], &STORE_BOUNDS, "Duration of store calls, by outcome: ok, error.");
    QUARANTINED = I::gauge("async_store.quarantined", "{job}", &["store"], "Quarantined jobs: their stored records cannot be decoded.").combine(Combine::Max);
    REPAIRED = I::gauge("async_store.repaired", "{job}", &["store"], "Jobs repaired so far: their index entries disagreed with their records.").combine(Combine::Max);
    REQUEST_DURATION = I::histogram("http.server.request.duration", "s", &["http.request.method", "http.route", "http.response.status_code", "url.scheme", "error.type"], &REQUEST_BOUNDS, "Duration of HTTP requests until the response begins.");
    HEALTH = I::gauge("async_health.status", "", &["check"], "Last result of a health check: 2 healthy, 1 degraded, 0 unhealthy.").combine(Combine::Never);
    HEALTH_CHANGES = I::counter("async_health.changes", "{change}", &["check"], "Changes of a health check's status.");
    ALERT_FIRING = I::gauge("async_alert.firing", "", &["rule"], "Whether a rule fires: 1 or 0, as stored for the fleet and read by each process every few seconds.").combine(Combine::Max);
    ALERT_NOTIFICATIONS = I::counter("async_alert.notifications", "{notification}", &["sender", "outcome"],
        "Sent notifications of alerts, by outcome: ok, retried, failed (given up).");
    ALERT_EVALUATION_TIME = I::histogram("async_alert.evaluation_time", "s", &[], &STORE_BOUNDS, "Duration of an evaluation of all alert rules, in the process that evaluates them.");
    ALERT_LAST_EVALUATION = I::gauge("async_alert.last_evaluation", "s", &[], "When the alert rules were evaluated last, by the store's clock, in seconds since the Unix epoch.").combine(Combine::Max);
    OVERFLOW = I::counter("async_metrics.overflow", "{record}", &[], "Measurements recorded under the label value _other: of job types that this process does not declare or that are beyond the first 100, and of further error codes.");
    | LOG_DROPPED, CPU, RESIDENT_MEMORY, MEMORY_LIMIT, VIRTUAL_MEMORY, OPEN_FDS, MAX_FDS, THREADS, START_TIME, BUILD_INFO
}

#[cfg(test)]
mod tests {
    use async_endpoints_telemetry::InstrumentKind;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for instrument in CATALOGUE {
            let name = instrument.prometheus_name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), instrument.kind == InstrumentKind::Counter, "{name}");
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
    fn names_are_unique() {
        let mut names: Vec<String> = CATALOGUE.iter().map(Instrument::prometheus_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
    }
}
