//! Delivery of one signal: what was exported and lost, and the log lines when a collector fails and recovers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use opentelemetry::{KeyValue, metrics::Meter};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};

use crate::{exporter::LastError, log_writer::log_safely, otlp::Otlp, signal::Signal};

/// The state of one signal's delivery to a collector.
#[derive(Debug)]
pub(crate) struct Delivery {
    signal: Signal,
    endpoint: String,
    pub(crate) last_error: LastError,
    is_failing: AtomicBool,
    /// Items in the queue.
    queued: AtomicUsize,
    /// Items in the export that runs.
    exporting: AtomicUsize,
    /// Maximum of `queued`.
    capacity: usize,
    dropped: AtomicU64,
    exported: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    /// The last flush has begun.
    is_closing: AtomicBool,
    /// Items whose export failed in the last flush.
    lost: AtomicUsize,
}

impl Delivery {
    pub(crate) fn new(signal: Signal, otlp: &Otlp, capacity: usize) -> Self {
        Self {
            signal,
            endpoint: otlp.without_credentials(),
            last_error: LastError::default(),
            is_failing: AtomicBool::default(),
            queued: AtomicUsize::default(),
            exporting: AtomicUsize::default(),
            capacity,
            dropped: AtomicU64::default(),
            exported: AtomicU64::default(),
            timed_out: AtomicU64::default(),
            failed: AtomicU64::default(),
            is_closing: AtomicBool::default(),
            lost: AtomicUsize::default(),
        }
    }

    /// Begins the last flush: later items are ignored.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Relaxed);
    }

    /// Takes a place in the queue. False if the queue is full: the item is dropped and counted. False in the last flush.
    pub(crate) fn enqueue(&self) -> bool {
        if self.is_closing.load(Relaxed) {
            return false;
        }
        if self.queued.fetch_add(1, Relaxed) < self.capacity {
            return true;
        }
        self.queued.fetch_sub(1, Relaxed);
        self.dropped.fetch_add(1, Relaxed);
        false
    }

    /// Frees the places of items that leave the queue, and whose export begins.
    pub(crate) fn begin_export(&self, items: usize) {
        self.exporting.store(items, Relaxed);
        self.queued.fetch_sub(items, Relaxed);
    }

    /// Counts the items of an export. Before the last flush, logs the first failure and the first success after it.
    pub(crate) fn exported(&self, items: usize, result: &OTelSdkResult) {
        let counter = match result {
            Ok(()) => &self.exported,
            Err(OTelSdkError::Timeout(_)) => &self.timed_out,
            Err(_) => &self.failed,
        };
        counter.fetch_add(items as u64, Relaxed);
        self.exporting.store(0, Relaxed);
        if !self.is_closing.load(Relaxed) {
            self.log_change(result);
        } else if let Err(error) = result {
            self.last_error.or_record(error);
            self.lost.fetch_add(items, Relaxed);
        }
    }

    fn log_change(&self, result: &OTelSdkResult) {
        let was_failing = self.is_failing.swap(result.is_err(), Relaxed);
        let (endpoint, items) = (&*self.endpoint, self.signal.items());
        let last_error = self.last_error.take();
        match result {
            Err(error) if !was_failing => {
                let why = last_error.unwrap_or_else(|| error.to_string());
                log_safely(|| tracing::warn!(endpoint, why, "cannot export {items}"));
            }
            Ok(()) if was_failing => log_safely(|| tracing::info!(endpoint, "{items} are exported again")),
            _ => {}
        }
    }

    /// Logs how many items the last flush did not export: their export failed, or has not ended.
    pub(crate) fn log_lost(&self) {
        let (endpoint, items, lost) = (&*self.endpoint, self.signal.items(), self.unsent());
        if lost > 0 {
            let why = self.last_error.take().unwrap_or_else(|| "no answer in time".to_owned());
            log_safely(|| tracing::warn!(endpoint, lost, why, "{items} were not exported before the end"));
        }
    }

    /// Items whose export has not ended, or failed in the last flush.
    pub(crate) fn unsent(&self) -> usize {
        self.queued.load(Relaxed) + self.exporting.load(Relaxed) + self.lost.load(Relaxed)
    }

    /// Registers the counters of OpenTelemetry's convention for SDK metrics, which has names for spans and log records.
    fn register(self: &std::sync::Arc<Self>, meter: &Meter) {
        let (item, unit) = match self.signal {
            Signal::Traces => ("span", "{span}"),
            Signal::Logs => ("log", "{log_record}"),
            Signal::Metrics => return,
        };
        let kind = |name: &'static str| [KeyValue::new("error.type", name)];
        let (full, timeout, other) = (kind("queue_full"), kind("timeout"), kind("_OTHER"));
        let delivery = self.clone();
        let _processed = meter
            .u64_observable_counter(format!("otel.sdk.processor.{item}.processed"))
            .with_unit(unit)
            .with_description("Items that left the export queue, or were dropped because it was full (error.type).")
            .with_callback(move |counter| {
                let sent = [&delivery.exported, &delivery.timed_out, &delivery.failed];
                counter.observe(sent.into_iter().map(|count| count.load(Relaxed)).sum(), &[]);
                counter.observe(delivery.dropped.load(Relaxed), &full);
            })
            .build();
        let delivery = self.clone();
        let _exported = meter
            .u64_observable_counter(format!("otel.sdk.exporter.{item}.exported"))
            .with_unit(unit)
            .with_description("Items whose export succeeded, or failed for good (error.type).")
            .with_callback(move |counter| {
                counter.observe(delivery.exported.load(Relaxed), &[]);
                counter.observe(delivery.timed_out.load(Relaxed), &timeout);
                counter.observe(delivery.failed.load(Relaxed), &other);
            })
            .build();
    }
}

/// Registers the counters of all deliveries.
pub(crate) fn register(deliveries: &[std::sync::Arc<Delivery>], meter: &Meter) {
    for delivery in deliveries {
        delivery.register(meter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_running_export_are_unsent() {
        let delivery = Delivery::new(Signal::Traces, &Otlp::http("http://localhost:4318"), 3);
        assert_eq!([(); 4].map(|()| delivery.enqueue()), [true, true, true, false]);
        delivery.begin_export(2);
        assert_eq!((delivery.unsent(), delivery.enqueue()), (3, true));
        delivery.exported(2, &Ok(()));
        assert_eq!(delivery.unsent(), 2);
    }

    #[test]
    fn failed_exports_of_the_last_flush_are_unsent() {
        let delivery = Delivery::new(Signal::Traces, &Otlp::http("http://localhost:4318"), 9);
        let export = |result| {
            delivery.begin_export(2);
            delivery.exported(2, &result);
        };
        assert_eq!([(); 7].map(|()| delivery.enqueue()), [true; 7]);
        export(Err(OTelSdkError::AlreadyShutdown));
        assert_eq!(delivery.unsent(), 5, "an earlier failure does not count");
        delivery.close();
        export(Err(OTelSdkError::AlreadyShutdown));
        export(Ok(()));
        assert_eq!((delivery.unsent(), delivery.enqueue()), (3, false));
    }
}
