//! The charts of the overview and of a job type.

use std::time::Duration;

use maud::{Markup, html};

use super::super::chart::{Chart, Line, Unit};
use crate::{Percentiles, SeriesPoint, Timestamp, TypeSeries};

/// Four charts of these types together: jobs in and out, outcomes, waits and run times.
///
/// Percentiles of several types cannot be added. The charts show the slowest type of each minute.
pub(super) fn charts(series: &[TypeSeries]) -> Markup {
    let minutes = minutes(series);
    let (Some(first), Some(last)) = (minutes.first(), minutes.last()) else { return html! {} };
    let span = (first.at, last.at);
    let jobs = |title, is_stacked, lines: &[Line]| Chart { title, span, lines, unit: Unit::Jobs, is_stacked }.render();
    let times = |title, read: fn(&Minute) -> Percentiles| {
        let percentile = |name, class, of: fn(Percentiles) -> Option<Duration>| {
            line(&minutes, name, class, |minute| of(read(minute)).map(|time| time.as_secs_f64()))
        };
        let lines = [
            percentile("p50", "s-green", |times| times.p50),
            percentile("p95", "s-orange", |times| times.p95),
            percentile("p99", "s-red", |times| times.p99),
        ];
        Chart { title, span, lines: &lines, unit: Unit::Seconds, is_stacked: false }.render()
    };
    let count = |name, class, of: fn(&Minute) -> u64| line(&minutes, name, class, |minute| Some(of(minute) as f64));
    html! {
        section.charts aria-label="Charts" {
            (jobs("Arrivals and ends by minute", false, &[
                count("accepted", "s-blue", |minute| minute.arrivals),
                count("ended", "s-green", |minute| minute.ended.iter().sum()),
            ]))
            (times("Waiting time", |minute| minute.queue_time))
            (jobs("Outcomes by minute", true, &[
                count("completed", "s-green", |minute| minute.ended[0]),
                count("failed", "s-red", |minute| minute.ended[1]),
                count("canceled", "s-gray", |minute| minute.ended[2]),
            ]))
            (times("Run time of attempts", |minute| minute.processing_time))
        }
    }
}

/// What happened in a minute, to the jobs of all types together.
struct Minute {
    at: Timestamp,
    arrivals: u64,
    /// Completed, failed, canceled.
    ended: [u64; 3],
    queue_time: Percentiles,
    processing_time: Percentiles,
}

/// All series have the same minutes.
fn minutes(series: &[TypeSeries]) -> Vec<Minute> {
    let length = series.iter().map(|series| series.points.len()).min().unwrap_or(0);
    let at = |minute: usize| -> Vec<&SeriesPoint> { series.iter().map(|series| &series.points[minute]).collect() };
    (0..length).map(|minute| sum(&at(minute))).collect()
}

fn sum(points: &[&SeriesPoint]) -> Minute {
    let total = |of: fn(&SeriesPoint) -> u64| points.iter().map(|point| of(point)).sum();
    Minute {
        at: points.first().map(|point| point.at).unwrap_or_default(),
        arrivals: total(|point| point.arrivals),
        ended: [total(|point| point.completed), total(|point| point.failed), total(|point| point.canceled)],
        queue_time: slowest(points.iter().map(|point| point.queue_time)),
        processing_time: slowest(points.iter().map(|point| point.processing_time)),
    }
}

fn slowest(times: impl Iterator<Item = Percentiles>) -> Percentiles {
    let max = |a: Percentiles, b: Percentiles| Percentiles {
        p50: a.p50.max(b.p50),
        p95: a.p95.max(b.p95),
        p99: a.p99.max(b.p99),
    };
    times.fold(Percentiles::default(), max)
}

fn line(minutes: &[Minute], name: &'static str, class: &'static str, value: impl Fn(&Minute) -> Option<f64>) -> Line {
    Line { name, class, values: minutes.iter().map(value).collect() }
}
