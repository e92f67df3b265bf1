//! `/dashboard/operations`: bulk operations, and what operators did.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{
    super::{
        content::{Content, Failure, Refresh, Region, Section},
        format::{As, job_link, time},
        forms,
        table::{Column, table},
        view::{Form, View},
    },
    bulk,
};
use crate::{AuditEntry, JobName};

const AUDIT: [Column; 7] =
    [("When", ""), ("Who", ""), ("What", ""), ("Target", ""), ("Request", "wide"), ("Outcome", ""), ("Trace", "")];
/// Number of audit entries that the page shows unless its query asks for all.
const NEWEST: usize = 100;
const NOTICES: [(&str, &str); 2] = [
    ("started", "The operation is started."),
    ("stopped", "The operation stops within 2 s. What it changed stays changed."),
];

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let operations = view.endpoints.bulks().await?;
    let audit = view.endpoints.audit().await?;
    let types = view.endpoints.type_names().await?;
    Ok(Content {
        title: "Operations".to_owned(),
        section: Section::Operations,
        regions: vec![
            Region::fixed("notice", forms::notice(view, &NOTICES)),
            Region::fixed(
                "new",
                if view.may_operate() {
                    bulk::form(view, &types, &Form::read(b""))
                } else {
                    html! {}
                },
            ),
            Region::new("operations", bulk::list(view, &operations, &audit)),
            Region::fixed("find", find(view)),
            Region::new("audit", trail(view, &audit)),
        ],
        refresh: Refresh::of_jobs(view.changes),
    })
}

/// The form that searches the actions of operators.
fn find(view: &View) -> Markup {
    html! {
        form.filter role="search" aria-label="Find actions" action=(view.link("/operations")) {
            label { "Find actions with" input name="audit" value=[view.param("audit")] maxlength="200" size="24" autocomplete="off" spellcheck="false"; }
            button { "Find" }
            @if view.param("audit").is_some() { a href=(view.link("/operations")) { "Reset" } }
        }
    }
}

fn trail(view: &View, entries: &[AuditEntry]) -> Markup {
    let text = view.param("audit").map(str::to_lowercase);
    let found = |entry: &&AuditEntry| text.as_ref().is_none_or(|text| has_text(entry, text));
    let found: Vec<&AuditEntry> = entries.iter().filter(found).collect();
    let shown = if view.param("all").is_some() { found.len() } else { NEWEST };
    let rows: Vec<Markup> = found.iter().take(shown).map(|entry| action(view, entry)).collect();
    html! {
        section {
            h2 { "Actions of operators" @if let Some(text) = view.param("audit") { " with " code { (text) } } }
            @if !rows.is_empty() { (table("Actions of operators", &AUDIT, &rows)) }
            @else if entries.is_empty() { p.empty { "No operator has done anything." } }
            @else { p.empty { "None of the last " (entries.len()) " actions has this text." } }
            p.hint {
                @if rows.len() < found.len() {
                    "The newest " (NEWEST) " actions. "
                    a href=(view.link_with(&[("all", Some("yes")), ("notice", None)])) { "Show all " (found.len()) }
                    ". "
                }
                "The last 500 actions are kept. The log has all of them."
            }
        }
    }
}

/// Whether a column of an action other than its time has this text, which is in lower case.
fn has_text(entry: &AuditEntry, text: &str) -> bool {
    let (AuditEntry { who, action, target, outcome, trace_id, .. }, values) = (entry, values(entry));
    let columns = [Some(who), Some(action), target.as_ref(), values.as_ref(), Some(outcome), trace_id.as_ref()];
    columns.into_iter().flatten().any(|column| column.to_lowercase().contains(text))
}

/// The fields of the request, as `name: value · name: value`.
fn values(entry: &AuditEntry) -> Option<String> {
    fn named((name, value): (&String, &Value)) -> String {
        match value {
            Value::Object(values) => joined(values),
            Value::String(text) => format!("{name}: {text}"),
            other => format!("{name}: {other}"),
        }
    }
    fn joined(values: &Map<String, Value>) -> String {
        values.iter().map(named).collect::<Vec<_>>().join(" · ")
    }
    entry.values.as_ref().map(joined)
}

fn action(view: &View, entry: &AuditEntry) -> Markup {
    html! {
        tr {
            td { (time(entry.at, As::Time)) }
            td { (entry.who) }
            td { code { (entry.action) } }
            td {
                @if let Some(target) = &entry.target {
                    @match (target.parse(), entry.action.split_once('.')) {
                        (Ok(id), Some(("job", _))) => (job_link(view, id)),
                        (_, Some(("type", _))) if JobName::new(target).is_ok() => { a href=(view.link(&format!("/types/{target}"))) { (target) } }
                        _ => (target),
                    }
                }
            }
            td.wide { @if let Some(values) = values(entry) { (values) } }
            td { (entry.outcome) }
            td { @if let Some(id) = &entry.trace_id { (super::job::trace(view, id)) } }
        }
    }
}
