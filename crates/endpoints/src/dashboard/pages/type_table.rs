//! The table of job types: what waits, runs and ends, and whether the workers keep up.

use maud::{Markup, html};

use super::super::{
    chart::sparkline,
    format::{As, count, dash, duration_or_dash, percent, scroll, time},
    view::View,
};
use crate::{Figures, JobStats, TypeSeries, TypeState};

/// Minutes of the rate and of the small chart.
const MINUTES: usize = 10;

/// `series` has at least ten minutes, the last of which is not over.
pub(super) fn table(view: &View, types: &[TypeState], stats: &JobStats, series: &[TypeSeries]) -> Markup {
    let none = Figures::default();
    let table = html! {
        table.figures {
            thead {
                tr {
                    th scope="col" { "Type" }
                    th scope="col" { "Queued" }
                    th scope="col" { "Scheduled" }
                    th scope="col" { "Running" }
                    th scope="col" { "Ended/min" }
                    th scope="col" { "Failed, 1 h" }
                    th scope="col" { "Wait p95, 1 h" }
                    th scope="col" { "Run p95, 1 h" }
                    th scope="col" { "Oldest queued" }
                    th scope="col" { "Last 10 min" }
                }
            }
            tbody {
                @for of_type in types {
                    @let figures = stats.job_types.get(of_type.name.as_str()).unwrap_or(&none);
                    @let ended = series.iter().find(|series| series.name == of_type.name).map(ended).unwrap_or_default();
                    (row(view, of_type, figures, &ended))
                }
            }
        }
    };
    html! {
        section {
            h2 { "Job types" }
            @if types.is_empty() { p.empty { "No job type is declared, and there are no jobs." } }
            @else { (scroll("Job types", &table)) }
        }
    }
}

fn row(view: &View, of_type: &TypeState, figures: &Figures, ended: &[u64]) -> Markup {
    let name = of_type.name.as_str();
    let jobs = |status: &str| view.link(&format!("/jobs?name={name}&status={status}"));
    html! {
        tr id={ "type-" (name) } {
            th scope="row" {
                a href=(view.link(&format!("/types/{name}"))) { (name) }
                @if let Some(pause) = &of_type.pause {
                    " " span.status.paused {
                        span {
                            "paused since " (time(pause.since, As::Time))
                            @if let Some(until) = pause.until { " until " (time(until, As::Time)) }
                        }
                    }
                }
            }
            td { a href=(jobs("Queued")) { (count(of_type.counts.queued)) } }
            td { (count(of_type.counts.scheduled)) }
            td { a href=(jobs("InProgress")) { (count(of_type.running)) } " of " (count(of_type.limit)) }
            td { (rate(ended)) }
            td { (percent(figures.error_rate)) }
            td { (duration_or_dash(figures.queue_time.p95)) }
            td { (duration_or_dash(figures.processing_time.p95)) }
            td { (duration_or_dash(of_type.oldest_queued_age)) }
            td { @if ended.is_empty() { (dash()) } @else { (sparkline(ended)) } }
        }
    }
}

/// The jobs that ended in each of the last minutes.
fn ended(series: &TypeSeries) -> Vec<u64> {
    let from = series.points.len().saturating_sub(MINUTES);
    series.points[from..].iter().map(|point| point.completed + point.failed + point.canceled).collect()
}

/// The average of the minutes that are over.
fn rate(ended: &[u64]) -> String {
    let Some((_, over)) = ended.split_last() else { return "0".to_owned() };
    let rate = over.iter().sum::<u64>() as f64 / over.len().max(1) as f64;
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { count(rate as u64) }
}
