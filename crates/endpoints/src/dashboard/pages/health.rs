//! `/dashboard/health`: health checks, alert rules, silences, and the test of senders.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::super::{
    content::{Content, Done, Failure, Refresh, Region, Section},
    format::{As, dash, duration, mark, number, time, time_or_dash},
    forms,
    table::{Column, table},
    view::{Form, View},
};
use crate::{
    StoreError,
    alerts::{AlertsReport, NewSilence, RuleReport, Silence, SilenceError, TestResult},
    health::{CheckReport, HealthReport},
};

const CHECKS: [Column; 5] = [("Check", ""), ("Status", ""), ("Since", ""), ("Took", "number"), ("Details", "wide")];
const RULES: [Column; 6] =
    [("Rule", ""), ("State", ""), ("Since", ""), ("Value", "number"), ("Threshold", "number"), ("Details", "wide")];
const SILENCES: [Column; 5] = [("Rule", ""), ("Ends", ""), ("By", ""), ("Reason", "wide"), ("Action", "")];
const RESULTS: [Column; 3] = [("Sender", ""), ("Result", ""), ("Error", "wide")];

const NOTICES: [(&str, &str); 3] = [
    ("silenced", "The rule is silenced."),
    ("ended", "The silence has ended."),
    ("gone", "The silence had already ended."),
];

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let health = view.endpoints.health_report().await;
    let mut regions =
        vec![Region::fixed("notice", forms::notice(view, &NOTICES)), Region::new("checks", checks(&health))];
    match view.endpoints.alert_status().await {
        Ok(alerts) => regions.extend([
            Region::new("rules", rules(&alerts)),
            Region::new("silences", silences(view, &alerts)),
            Region::fixed(
                "silence",
                if view.may_operate() {
                    actions(view, &alerts)
                } else {
                    html! {}
                },
            ),
        ]),
        // The checks are those of this process, and say more about the outage than an error page.
        Err(error) => {
            regions.extend([Region::new("rules", without_alerts(&error)), Region::new("silences", html! {})]);
        }
    }
    Ok(Content {
        title: "Health and alerts".to_owned(),
        section: Section::Health,
        regions,
        refresh: Refresh::STATISTICS,
    })
}

fn without_alerts(error: &StoreError) -> Markup {
    html! {
        section {
            h2 { "Alert rules" }
            p.failure role="alert" { "Alerts and silences are not available. The job store did not answer: " (error) }
        }
    }
}

fn checks(health: &HealthReport) -> Markup {
    let rows: Vec<Markup> = health.checks.iter().map(check).collect();
    html! {
        section {
            h2 { "Checks of this process: " (mark(health.status.as_str())) }
            (table("Checks of this process", &CHECKS, &rows))
        }
    }
}

fn check(check: &CheckReport) -> Markup {
    html! {
        tr id={ "check-" (check.name) } {
            th scope="row" { (check.name) @for tag in &check.tags { " " span.tag { (tag) } } }
            td { (mark(check.status.as_str())) }
            td { (time_or_dash(check.since, As::Ago)) }
            td.number { (duration(check.duration)) }
            td.wide {
                @if let Some(description) = &check.description { p { (description) } }
                (facts(&check.data, &[]))
            }
        }
    }
}

/// Facts of a check or rule by name, without empty ones and those that the page has elsewhere.
fn facts(facts: &Map<String, Value>, shown: &[&str]) -> Markup {
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let rest = facts.iter().filter(|(name, value)| !shown.contains(&name.as_str()) && !is_empty(value));
    html! {
        dl.pairs {
            @for (name, value) in rest { div { dt { (name) } dd { (plain(value)) } } }
        }
    }
}

/// A text without its quotes, and anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn rules(alerts: &AlertsReport) -> Markup {
    let rows: Vec<Markup> = alerts.rules.iter().map(|report| rule(report, &alerts.silences)).collect();
    html! {
        section {
            h2 { "Alert rules" }
            @if rows.is_empty() { p.empty { "This application has no alerts." } }
            @else { (table("Alert rules", &RULES, &rows)) }
        }
    }
}

fn rule(report: &RuleReport, silences: &[Silence]) -> Markup {
    let is_silenced = silences.iter().any(|silence| silence.rule == report.rule);
    let text = |name: &str| report.details.get(name).and_then(Value::as_str).unwrap_or_default();
    let unit = text("unit");
    html! {
        tr id={ "rule-" (report.rule) } {
            th scope="row" { (report.rule) @if is_silenced { " " span.tag { "silenced" } } }
            td { (mark(report.state)) }
            td { (time_or_dash(report.since, As::Ago)) }
            td.number { @match report.value { Some(value) => { (number(value)) " " (unit) }, None => (dash()) } }
            td.number { (number(report.threshold)) " " (unit) }
            td.wide {
                // The message of an inactive rule would read like an alert.
                @if report.state != "inactive" { p { (text("message")) } }
                @if let Some(details) = report.details.as_object() {
                    (facts(details, &["message", "value", "threshold", "unit"]))
                }
            }
        }
    }
}

fn silences(view: &View, alerts: &AlertsReport) -> Markup {
    let rows: Vec<Markup> = alerts.silences.iter().map(|silence| silenced(view, silence)).collect();
    html! {
        section {
            h2 { "Silences" }
            @if rows.is_empty() { p.empty { "No rule is silenced." } }
            @else { (table("Silences", &SILENCES, &rows)) }
        }
    }
}

fn silenced(view: &View, silence: &Silence) -> Markup {
    html! {
        tr id={ "silence-" (silence.id) } {
            th scope="row" { (silence.rule) }
            td { (time(silence.ends_at, As::Ago)) }
            td.words { (silence.author) }
            td.wide { (silence.reason) }
            td {
                @if view.may_operate() {
                    form method="post" action=(view.link(&format!("/health/silences/{}/end", silence.id))) {
                        button aria-label={ "End the silence of " (silence.rule) } { "End" }
                    }
                }
            }
        }
    }
}

/// The forms that silence a rule and test the senders.
fn actions(view: &View, alerts: &AlertsReport) -> Markup {
    html! {
        @if !alerts.rules.is_empty() {
            section aria-label="Actions on alerts" {
                div.actions {
                    (forms::confirmed("add-silence", "Silence a rule", &view.link("/health/silences"), &html! {
                        p { "A silenced rule sends no notifications." }
                        label { "Rule" select name="rule" { @for report in &alerts.rules { option { (report.rule) } } } }
                        (forms::span(None))
                        label { "Reason" input name="reason" required maxlength="200"; }
                        button { "Silence the rule" }
                    }))
                    (forms::confirmed("test-senders", "Test the senders", &view.link("/health/test"), &html! {
                        p { "Each sender of this process sends a test alert." }
                        button { "Send test alerts" }
                    }))
                }
            }
        }
    }
}

/// `POST /dashboard/health/silences`.
pub(super) async fn silence(view: &View, form: &Form) -> Result<Done, Failure> {
    let field = |name: &str| form.get(name).unwrap_or_default().to_owned();
    let ends_at =
        forms::end_of_span(form)?.ok_or_else(|| Failure::Invalid("for is missing: expected a span".to_owned()))?;
    let author = view.caller.who.to_string();
    view.endpoints.silence(NewSilence { rule: field("rule"), author, reason: field("reason"), ends_at }).await?;
    Ok(Done::open("/health?notice=silenced"))
}

/// `POST /dashboard/health/silences/{id}/end`.
pub(super) async fn end_silence(view: &View, id: &str) -> Result<Done, Failure> {
    let id = id.parse().map_err(|_| Failure::NotFound("There is no silence with this id.", "SILENCE_NOT_FOUND"))?;
    Ok(match view.endpoints.end_silence(id).await? {
        true => Done::open("/health?notice=ended"),
        false => Done::open("/health?notice=gone").without_effect("SILENCE_NOT_FOUND"),
    })
}

/// `POST /dashboard/health/test`: shows what each sender did.
pub(super) async fn test(view: &View) -> Done {
    let results = view.endpoints.test_alerts().await;
    Done::show(Content {
        title: "Test of the senders".to_owned(),
        section: Section::Health,
        regions: vec![Region::fixed("results", tested(view, &results))],
        refresh: Refresh::STATISTICS,
    })
}

fn tested(view: &View, results: &[TestResult]) -> Markup {
    let row = |result: &TestResult| {
        html! {
            tr {
                th scope="row" { (result.sender) }
                td { (mark(if result.ok { "Sent" } else { "Failed" })) }
                td.wide { (result.error.as_deref().unwrap_or_default()) }
            }
        }
    };
    let rows: Vec<Markup> = results.iter().map(row).collect();
    html! {
        section {
            h2 { "Results" }
            @if rows.is_empty() { p.empty { "This process has no senders." } }
            @else { (table("Results", &RESULTS, &rows)) }
            p.paging { a href=(view.link("/health")) { "Health and alerts" } }
        }
    }
}

impl From<SilenceError> for Failure {
    fn from(error: SilenceError) -> Self {
        match error {
            SilenceError::Store(error) => Self::Store(error),
            other => Self::Invalid(other.to_string()),
        }
    }
}
