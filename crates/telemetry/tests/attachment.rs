//! Instruments of an attached library in the exposition.

use std::time::{Duration, Instant};

use async_endpoints_telemetry::{ExpositionError, Format, Instrument, Telemetry, opentelemetry::KeyValue};
use opentelemetry_sdk::metrics::SdkMeterProvider;

const CALLS: Instrument = Instrument::counter("lib.calls", "{call}", &["kind"], "Calls.").max_series(2);
const CALL_TIME: Instrument = Instrument::histogram("lib.call_time", "s", &[], &[0.5, 1.0], "Duration of a call.");
const DEPTH: Instrument = Instrument::gauge("lib.depth", "", &[], "Depth.");
const CATALOGUE: &[Instrument] = &[CALLS, CALL_TIME, DEPTH];

fn telemetry() -> Telemetry {
    Telemetry::builder().service_name("test").build().expect("telemetry")
}

fn lines(telemetry: &Telemetry, format: Format) -> Vec<String> {
    let text = telemetry.exposition(format).expect("a page");
    text.lines().filter(|line| line.starts_with("lib_")).map(str::to_owned).collect()
}

#[test]
fn all_kinds_are_exposed() {
    let telemetry = telemetry();
    let attachment = telemetry.attach(CATALOGUE).expect("the only attachment");
    attachment.counter(&CALLS).add(3, &[KeyValue::new("kind", "a")]);
    attachment.timer(&CALL_TIME, &[]).record(Duration::from_millis(700), Instant::now(), || vec![("id", "7".into())]);
    attachment.gauge(&DEPTH, |gauge| gauge.observe(2.0, &[]));
    let expected = [
        "lib_call_time_seconds_bucket{le=\"0.5\"} 0",
        "lib_call_time_seconds_bucket{le=\"1\"} 1",
        "lib_call_time_seconds_bucket{le=\"+Inf\"} 1",
        "lib_call_time_seconds_sum 0.7",
        "lib_call_time_seconds_count 1",
        "lib_calls_total{kind=\"a\"} 3",
        "lib_depth 2",
    ];
    assert_eq!(lines(&telemetry, Format::Text), expected);
    let open = lines(&telemetry, Format::OpenMetrics);
    assert!(open[1].starts_with("lib_call_time_seconds_bucket{le=\"1.0\"} 1 # {id=\"7\"} 0.7 "), "{open:?}");
    let page = telemetry.exposition(Format::Text).expect("a page");
    assert!(page.contains("service_name=\"test\"") && page.contains("# TYPE build_info gauge\n"), "{page}");
}

#[test]
fn bounds_replace_declared_ones_by_prefix() {
    let telemetry = Telemetry::builder().bounds("lib.", [2.0]).bounds("other.", [3.0]).build().expect("telemetry");
    let attachment = telemetry.attach(CATALOGUE).expect("the only attachment");
    attachment.histogram(&CALL_TIME).record(1.0, &[]);
    let lines = lines(&telemetry, Format::Text);
    assert_eq!(lines[..2], ["lib_call_time_seconds_bucket{le=\"2\"} 1", "lib_call_time_seconds_bucket{le=\"+Inf\"} 1"]);
}

#[test]
fn label_sets_above_the_limit_share_a_series() {
    let telemetry = telemetry();
    let attachment = telemetry.attach(CATALOGUE).expect("the only attachment");
    let calls = attachment.counter(&CALLS);
    for kind in ["a", "b", "c", "d"] {
        calls.add(1, &[KeyValue::new("kind", kind)]);
    }
    let lines = lines(&telemetry, Format::Text);
    assert!(lines.contains(&"lib_calls_total{otel_metric_overflow=\"true\"} 2".to_owned()), "{lines:?}");
}

#[test]
fn second_attachment_waits_for_the_first() {
    let telemetry = telemetry();
    let first = telemetry.attach(CATALOGUE).expect("the only attachment");
    assert!(telemetry.attach(CATALOGUE).is_none());
    drop(first);
    assert!(telemetry.attach(CATALOGUE).is_some());
}

#[test]
fn own_meter_provider_has_no_exposition() {
    let telemetry = Telemetry::with_meter_provider(SdkMeterProvider::default());
    assert!(telemetry.is_enabled() && telemetry.has_other_readers() && !telemetry.has_exposition());
    assert!(matches!(telemetry.exposition(Format::Text), Err(ExpositionError::NoReader)));
}

#[test]
fn panicking_callback_is_a_collect_error() {
    let telemetry = telemetry();
    let attachment = telemetry.attach(CATALOGUE).expect("the only attachment");
    attachment.gauge(&DEPTH, |_| panic!("a callback"));
    for _ in 0..2 {
        let page = telemetry.exposition(Format::Text);
        assert!(matches!(page, Err(ExpositionError::Collect(_))), "{page:?}");
    }
}
