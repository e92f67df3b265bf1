//! `/dashboard`: firing alerts, counts, charts, and a table of job types.

use std::time::Duration;

use maud::{Markup, html};
use serde_json::Value;

use super::{
    super::{
        content::{Content, Failure, Refresh, Region, Section},
        format::{As, count, duration_or_dash, number, percent, time, time_or_dash},
        view::View,
    },
    charts, type_table,
};
use crate::{
    Figures,
    alerts::{AlertsReport, RuleReport, Silence},
    text::shortened,
};

/// Windows of the charts in minutes.
const WINDOWS: [(&str, u64); 3] = [("15m", 15), ("1h", 60), ("6h", 360)];

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let chosen = view.param("window").unwrap_or("1h");
    let window = WINDOWS.into_iter().find(|(name, _)| chosen == *name);
    let invalid = || Failure::Invalid(format!("invalid window {:?}: expected 15m, 1h or 6h", shortened(chosen)));
    let (window, minutes) = window.ok_or_else(invalid)?;
    let types = view.endpoints.recent_types().await?;
    let stats = view.endpoints.recent_stats().await?;
    let series = view.endpoints.series(Duration::from_secs(60 * minutes), None).await?;
    let alerts = view.endpoints.alert_status().await?;
    let charts = html! { (windows(view, window)) (charts::charts(&series)) };
    Ok(Content {
        title: "Overview".to_owned(),
        section: Section::Overview,
        regions: vec![
            Region::new("alerts", firing(view, &alerts)),
            Region::new("counts", counts(view, &stats.total)),
            Region::new("charts", charts),
            Region::new("types", type_table::table(view, &types, &stats, &series)),
        ],
        refresh: Refresh::STATISTICS,
    })
}

fn windows(view: &View, chosen: &str) -> Markup {
    html! {
        nav.windows aria-label="Window of the charts" {
            @for (name, _) in WINDOWS {
                a href=(view.link_with(&[("window", Some(name))])) aria-current=[(name == chosen).then_some("true")] { (name) }
            }
        }
    }
}
/// The alerts that fire, or nothing.
fn firing(view: &View, alerts: &AlertsReport) -> Markup {
    let firing: Vec<&RuleReport> = alerts.rules.iter().filter(|rule| rule.state == "firing").collect();
    html! {
        @if !firing.is_empty() {
            section.alerts aria-label="Firing alerts" {
                h2 { (firing.len()) @if firing.len() == 1 { " alert fires" } @else { " alerts fire" } }
                ul { @for rule in firing { li { (alert(view, rule, &alerts.silences)) } } }
            }
        }
    }
}

fn alert(view: &View, rule: &RuleReport, silences: &[Silence]) -> Markup {
    let text = |name: &str| rule.details.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let unit = text("unit").map(|unit| format!("\u{a0}{unit}")).unwrap_or_default();
    let silences = silences.iter().filter(|silence| silence.rule == rule.rule);
    html! {
        a href=(view.link("/health")) { b { (rule.rule) } }
        // Messages of built-in rules have the value.
        @match (text("message"), rule.value) {
            (Some(message), _) => { ": " (message) }
            (None, Some(value)) => { ": " (number(value)) (unit) }
            (None, None) => {}
        }
        " (limit " (number(rule.threshold)) (unit) "), for " (time_or_dash(rule.since, As::Age))
        @if let Some(until) = silences.map(|silence| silence.ends_at).max() { ", silenced until " (time(until, As::Time)) }
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
