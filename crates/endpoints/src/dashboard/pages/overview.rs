//! `/dashboard`: counts, alerts, and a table of job types.

use maud::{Markup, html};

use super::super::{
    content::{Content, Failure, Refresh, Region, Section},
    format::{As, count, duration_or_dash, number, percent, scroll, time_or_dash},
    view::View,
};
use crate::{
    Figures, JobStats,
    alerts::{AlertsReport, RuleReport},
};

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let stats = view.endpoints.recent_stats().await?;
    let alerts = view.endpoints.alert_status().await?;
    Ok(Content {
        title: "Overview".to_owned(),
        section: Section::Overview,
        regions: vec![
            Region::new("alerts", firing(&alerts)),
            Region::new("counts", counts(view, &stats.total)),
            Region::new("types", types(view, &stats)),
        ],
        refresh: Refresh::STATISTICS,
    })
}

/// The alerts that fire, or nothing.
fn firing(alerts: &AlertsReport) -> Markup {
    let firing: Vec<&RuleReport> = alerts.rules.iter().filter(|rule| rule.state == "firing").collect();
    html! {
        @if !firing.is_empty() {
            section.alerts aria-label="Firing alerts" {
                h2 { (firing.len()) @if firing.len() == 1 { " alert fires" } @else { " alerts fire" } }
                ul {
                    @for rule in firing {
                        li {
                            b { (rule.rule) }
                            @if let Some(value) = rule.value { " " (number(value)) " > " (number(rule.threshold)) }
                            " since " (time_or_dash(rule.since, As::Ago))
                        }
                    }
                }
            }
        }
    }
}

fn counts(view: &View, total: &Figures) -> Markup {
    let states = [
        ("Queued", total.queued_jobs),
        ("Scheduled", total.scheduled_jobs),
        ("InProgress", total.processing_jobs),
        ("Completed", total.completed_jobs),
        ("Failed", total.failed_jobs),
        ("Canceled", total.canceled_jobs),
    ];
    html! {
        section aria-label="Jobs by state" {
            ul.counts {
                @for (state, jobs) in states {
                    li {
                        a class=(state.to_lowercase()) href=(view.link(&format!("/jobs?status={state}"))) {
                            span.label { (state) }
                            b { (count(jobs)) }
                        }
                    }
                }
                li { div { span.label { "Wait, p95 of 1 h" } b { (duration_or_dash(total.queue_time.p95)) } } }
                li { div { span.label { "Failed of 1 h" } b { (percent(total.error_rate)) } } }
            }
        }
    }
}

fn types(view: &View, stats: &JobStats) -> Markup {
    let table = html! {
                table.figures {
                    thead {
                        tr {
                            th scope="col" { "Type" }
                            th scope="col" { "Queued" }
                            th scope="col" { "Scheduled" }
                            th scope="col" { "Running" }
                            th scope="col" { "Failed" }
                            th scope="col" { "Failed, 1 h" }
                            th scope="col" { "Wait p95" }
                            th scope="col" { "Run p95" }
                            th scope="col" { "Oldest queued" }
                        }
                    }
                    tbody {
                        @for (name, figures) in &stats.job_types {
                            tr id={ "type-" (name) } {
                                th scope="row" { a href=(view.link(&format!("/jobs?name={name}"))) { (name) } }
                                td { (count(figures.queued_jobs)) }
                                td { (count(figures.scheduled_jobs)) }
                                td { (count(figures.processing_jobs)) }
                                td { (count(figures.failed_jobs)) }
                                td { (percent(figures.error_rate)) }
                                td { (duration_or_dash(figures.queue_time.p95)) }
                                td { (duration_or_dash(figures.processing_time.p95)) }
                                td { (duration_or_dash(figures.oldest_queued_age)) }
                            }
                        }
                    }
                }
    };
    html! {
        section {
            h2 { "Job types" }
            (scroll("Job types", &table))
            @if stats.job_types.is_empty() { p.empty { "No job type is declared, and there are no jobs." } }
        }
    }
}
