//! `PerformanceProcess`: keeps a processor busy and can be canceled.

use std::{
    collections::HashSet,
    hint::black_box,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_endpoints::{
    JobContext, JobError, JobType, Telemetry,
    telemetry::opentelemetry::{
        KeyValue,
        metrics::{Counter, Histogram},
    },
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{now, number_within};
use crate::ledger::Ledger;

pub(crate) const PERFORMANCE: JobType<PerformanceRequest, PerformanceResult> = JobType::new("PerformanceProcess");

/// Number of items between checks of the cancellation token.
const STEP: u64 = 10_000;
const MAX_ITEMS: u64 = 50_000_000;
/// Maximum number of task types with their own metric series.
const MAX_TASK_TYPES: usize = 20;
const SIMULATED_IO: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PerformanceRequest {
    /// Value of the metric label `task_type`.
    #[serde(default)]
    task_type: String,
    #[serde(deserialize_with = "item_count")]
    #[schema(minimum = 0, maximum = 50_000_000, example = 100_000)]
    item_count: u64,
    /// Adds a wait of 100 ms, like that for a disk.
    #[serde(default)]
    include_io_simulation: bool,
}

fn item_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    number_within(deserializer, &(0..=MAX_ITEMS))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PerformanceResult {
    processed_item_count: u64,
    processed_at: String,
}

/// Metrics of this handler, besides those of the library.
pub(crate) struct Metrics {
    processing_time: Histogram<f64>,
    processed_items: Counter<u64>,
    memory_usage: Histogram<f64>,
    task_types: Mutex<HashSet<String>>,
}

impl Metrics {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let meter = telemetry.meter("async_endpoints_demo.performance");
        let sizes = (24..=34).map(|power| f64::from(power).exp2()).collect();
        Self {
            processing_time: meter
                .f64_histogram("performance.processing_time")
                .with_unit("s")
                .with_description("How long the items of a request took.")
                .with_boundaries(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0])
                .build(),
            processed_items: meter
                .u64_counter("performance.processed_items")
                .with_unit("{item}")
                .with_description("Items processed.")
                .build(),
            memory_usage: meter
                .f64_histogram("performance.memory_usage")
                .with_unit("By")
                .with_description("Memory of the process in RAM when a request was processed.")
                .with_boundaries(sizes)
                .build(),
            task_types: Mutex::default(),
        }
    }

    fn record(&self, task_type: &str, items: u64, took: Duration) {
        let labels = [KeyValue::new("task_type", self.label(task_type))];
        self.processing_time.record(took.as_secs_f64(), &labels);
        self.processed_items.add(items, &labels);
        if let Ok(bytes) = resident_bytes() {
            self.memory_usage.record(bytes as f64, &labels);
        }
    }

    /// The label for a task type. Clients choose task types and each label is a permanent series, so only the first ones
    /// have their own label.
    fn label(&self, task_type: &str) -> String {
        let mut known = self.task_types.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_TASK_TYPES && task_type.len() <= 64 {
            known.insert(task_type.to_owned());
        }
        known.get(task_type).map_or("_other", String::as_str).to_owned()
    }
}

fn resident_bytes() -> procfs::ProcResult<u64> {
    let pages = procfs::process::Process::myself()?.statm()?.resident;
    Ok(pages * procfs::page_size())
}

/// The handler, which blocks its thread.
pub(crate) fn handler(
    ledger: Ledger,
    metrics: Metrics,
) -> impl Fn(JobContext<PerformanceRequest>) -> Result<PerformanceResult, JobError> + Send + Sync + 'static {
    move |ctx| {
        let _running = ledger.enter(ctx.job_id(), ctx.attempt());
        let PerformanceRequest { task_type, item_count, include_io_simulation } = ctx.request();
        tracing::info!(task_type, item_count, "performance task started");
        let began = Instant::now();
        let processed_item_count = process(*item_count, |done| {
            ctx.progress().set(done, *item_count);
            ctx.check_canceled()
        })?;
        if *include_io_simulation {
            thread::sleep(SIMULATED_IO);
            ctx.check_canceled()?;
        }
        metrics.record(task_type, processed_item_count, began.elapsed());
        Ok(PerformanceResult { processed_item_count, processed_at: now() })
    }
}

/// Squares every number below `items`. Calls `step` with the number of processed items after every [`STEP`] items, and
/// stops if `step` fails.
fn process(items: u64, mut step: impl FnMut(u64) -> Result<(), JobError>) -> Result<u64, JobError> {
    let mut sum = 0_u64;
    for item in 0..items {
        if item.is_multiple_of(STEP) {
            step(item)?;
        }
        // The optimizer would replace the loop by a formula.
        sum = sum.wrapping_add(black_box(item * item));
    }
    black_box(sum);
    step(items)?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_reported_every_step() {
        let mut steps = Vec::new();
        let record = |done| {
            steps.push(done);
            Ok(())
        };
        assert_eq!(process(25_000, record).unwrap(), 25_000);
        assert_eq!(steps, [0, 10_000, 20_000, 25_000]);
    }

    #[test]
    fn failing_step_stops_processing() {
        let mut last = 0;
        let stop = process(MAX_ITEMS, |done| {
            last = done;
            if done < 30_000 { Ok(()) } else { Err(JobError::canceled()) }
        });
        assert!(stop.is_err());
        assert_eq!(last, 30_000);
    }

    #[test]
    fn number_of_task_type_labels_is_bounded() {
        let metrics = Metrics::new(&Telemetry::builder().build().unwrap());
        let label = |task_type: &str| metrics.label(task_type);
        assert_eq!((label("cpu"), label(&"x".repeat(65))), ("cpu".to_owned(), "_other".to_owned()));
        let labels: HashSet<String> = (0..1000).map(|n| label(&n.to_string())).collect();
        assert_eq!(labels.len(), MAX_TASK_TYPES, "19 more, and one for all others");
        assert_eq!(label("cpu"), "cpu");
    }

    #[test]
    fn too_many_items_are_rejected() {
        let request = serde_json::json!({ "itemCount": MAX_ITEMS + 1 });
        let error = serde_json::from_value::<PerformanceRequest>(request).unwrap_err();
        assert!(error.to_string().contains("expected 0 to 50000000"), "{error}");
    }
}
