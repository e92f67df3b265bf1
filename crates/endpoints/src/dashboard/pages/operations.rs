//! `/dashboard/operations`: bulk operations, and what operators did.

use std::{collections::BTreeSet, time::Duration};

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::super::{
    content::{Content, Done, Failure, Refresh, Region, Section},
    format::{A_TIME, As, count, job_link, mark, read_time, time, time_field, time_or_dash},
    forms,
    table::{Column, table},
    view::{Form, View},
};
use crate::{
    AuditEntry, BulkAction, BulkError, BulkFilter, BulkOperation, BulkPreview, BulkStatus, JobName, JobStatus, NewBulk,
    Timestamp, text::shortened,
};

const BULKS: [Column; 9] = [
    ("Operation", "wide"),
    ("State", ""),
    ("Progress", ""),
    ("Changed", "number"),
    ("Skipped", "number"),
    ("Failed", "number"),
    ("Started", ""),
    ("Ended", ""),
    ("Action", ""),
];
const AUDIT: [Column; 7] =
    [("When", ""), ("Who", ""), ("What", ""), ("Target", ""), ("Request", "wide"), ("Outcome", ""), ("Trace", "")];
/// Number of audit entries that the page shows unless its query asks for all.
const NEWEST: usize = 100;
/// The states of each action.
const STATES: [(&str, &[JobStatus]); 2] = [
    ("To retry", &[JobStatus::Failed, JobStatus::Canceled]),
    ("To cancel", &[JobStatus::Queued, JobStatus::Scheduled, JobStatus::InProgress]),
];
const NO_OPERATION: Failure = Failure::NotFound("There is no bulk operation with this id.", "BULK_NOT_FOUND");

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
                    new(view, &types)
                } else {
                    html! {}
                },
            ),
            Region::new("operations", list(view, &operations)),
            Region::fixed("find", find(view)),
            Region::new("audit", trail(view, &audit)),
        ],
        refresh: Refresh::of_jobs(view.changes),
    })
}

/// The form that previews an operation.
fn new(view: &View, types: &BTreeSet<JobName>) -> Markup {
    html! {
        form.filter method="post" action=(view.link("/operations/preview")) aria-label="New bulk operation" {
            label { "Action" select name="action" { option value="retry" { "Retry" } option value="cancel" { "Cancel" } } }
            label {
                "State"
                select name="status" {
                    option value="" { "All" }
                    @for (action, states) in STATES {
                        optgroup label=(action) { @for state in states { option { (state.as_str()) } } }
                    }
                }
            }
            label { "Type" select name="name" { option value="" { "All" } @for name in types { option { (name) } } } }
            label { "Error code" input name="code" maxlength="200" size="16"; }
            label { "Text" input name="q" maxlength="200" size="16"; }
            (time_field("Ended since (retry)", "endedSince", None))
            button { "Preview…" }
        }
    }
}

fn list(view: &View, operations: &[BulkOperation]) -> Markup {
    let rows: Vec<Markup> = operations.iter().map(|operation| row(view, operation)).collect();
    html! {
        section {
            h2 { "Bulk operations" }
            @if rows.is_empty() { p.empty { "No bulk operation was started." } }
            @else { (table("Bulk operations", &BULKS, &rows)) }
        }
    }
}

fn row(view: &View, operation: &BulkOperation) -> Markup {
    let BulkOperation { id, action, filter, status, total, changed, skipped, failed, started_at, ended_at, .. } =
        operation;
    let done = changed + skipped + failed;
    html! {
        tr id={ "bulk-" (id) } {
            th.wide scope="row" { (name(*action)) " " (described(*action, filter, None)) }
            td { (mark(state(*status))) }
            td {
                @if let Some(total) = total { progress max=((*total).max(1)) value=(done) aria-label="Progress" {} " " }
                (count(done)) @if let Some(total) = total { " of " (count(*total)) }
            }
            td.number { (count(*changed)) }
            td.number { (count(*skipped)) }
            td.number { (count(*failed)) }
            td { (time(*started_at, As::Ago)) }
            td { (time_or_dash(*ended_at, As::Ago)) }
            td {
                @if *status == BulkStatus::Running && view.may_operate() {
                    form method="post" action=(view.link(&format!("/operations/{id}/stop"))) { button.danger { "Stop" } }
                }
            }
        }
    }
}

const fn name(action: BulkAction) -> &'static str {
    match action {
        BulkAction::Cancel => "Cancel",
        BulkAction::Retry => "Retry",
    }
}

const fn state(status: BulkStatus) -> &'static str {
    match status {
        BulkStatus::Running => "Running",
        BulkStatus::Stopping => "Stopping",
        BulkStatus::Stopped => "Stopped",
        BulkStatus::Completed => "Completed",
    }
}

/// The members in words.
fn described(action: BulkAction, filter: &BulkFilter, count: Option<u64>) -> Markup {
    let states = match (filter.status, action) {
        (Some(JobStatus::InProgress), _) => "running".to_owned(),
        (Some(status), _) => status.as_str().to_lowercase(),
        (None, BulkAction::Cancel) => "waiting and running".to_owned(),
        (None, BulkAction::Retry) => "failed and canceled".to_owned(),
    };
    let texts = [
        (" of type ", filter.name.as_ref().map(JobName::as_str)),
        (" with error code ", filter.code.as_deref()),
        (" of owner ", filter.owner.as_deref()),
        (" with text ", filter.text.as_deref()),
    ];
    let times = [
        (", accepted since ", filter.since),
        (", accepted before ", filter.until),
        (", ended since ", filter.ended_since),
    ];
    html! {
        (states) @if count == Some(1) { " job" } @else { " jobs" }
        @for (name, value) in texts { @if let Some(value) = value { (name) code { (value) } } }
        @for (name, at) in times { @if let Some(at) = at { (name) (time(at, As::Time)) } }
    }
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

/// `POST /dashboard/operations/preview`: shows the members, and asks for a confirmation.
pub(super) async fn preview(view: &View, form: &Form) -> Result<Done, Failure> {
    let new = read(form, view.endpoints.recent_time().await?)?;
    let (action, filter) = (new.action, new.filter.clone());
    let preview = view.endpoints.preview_bulk(new).await?;
    let described = described(action, &filter, Some(preview.count));
    Ok(Done::show(Content {
        title: format!("{} jobs", name(preview.action)),
        section: Section::Operations,
        regions: vec![Region::fixed("preview", previewed(view, &preview, &described))],
        refresh: Refresh::STATISTICS,
    })
    .made(&preview.id))
}

fn previewed(view: &View, preview: &BulkPreview, described: &Markup) -> Markup {
    let verb = name(preview.action).to_lowercase();
    let has_members = preview.count > 0 || !preview.complete;
    html! {
        section aria-label="Preview" {
            p.summary {
                b { @if !preview.complete { "More than " } (count(preview.count)) } " " (described) "."
            }
            p {
                @if has_members { "These are the jobs that match now. Jobs that come later stay as they are." }
                @if preview.action == BulkAction::Retry { " Jobs that were retried before are left out." }
            }
            @if !preview.sample.is_empty() {
                p { "Some of them:" }
                ul.list { @for id in &preview.sample { li { (job_link(view, *id)) } } }
            }
            div.actions {
                @if has_members {
                    form method="post" action=(view.link("/operations/start")) {
                        input type="hidden" name="preview" value=(preview.id);
                        button.danger[preview.action == BulkAction::Cancel] { (name(preview.action)) " these jobs" }
                    }
                }
                a href=(view.link("/operations")) { "Do not " (verb) }
            }
        }
    }
}

/// `now` is the store's time.
fn read(form: &Form, now: Timestamp) -> Result<NewBulk, Failure> {
    let [status, name, code, owner, text] = ["status", "name", "code", "owner", "q"].map(|name| form.get(name));
    let invalid = |name: &str, value: &str, expected: &str| {
        Failure::Invalid(format!("invalid {name} {:?}: expected {expected}", shortened(value)))
    };
    let action = match form.get("action") {
        Some("cancel") => BulkAction::Cancel,
        Some("retry") => BulkAction::Retry,
        other => return Err(invalid("action", other.unwrap_or_default(), "cancel or retry")),
    };
    let state = |text: &str| {
        let state = JobStatus::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| invalid("status", text, "a state"))
    };
    let at =
        |name: &str| form.get(name).map(|text| read_time(text).ok_or_else(|| invalid(name, text, A_TIME))).transpose();
    // A window ends when the preview is made.
    let within = |text: &str| -> Result<Timestamp, Failure> {
        let seconds = text.parse().map_err(|_| invalid("endedWithin", text, "a number of seconds"))?;
        Ok(now.before(Duration::from_secs(seconds)))
    };
    let filter = BulkFilter {
        status: status.map(state).transpose()?,
        name: name.map(JobName::new).transpose().map_err(|error| Failure::Invalid(error.to_string()))?,
        code: code.map(str::to_owned),
        owner: owner.map(str::to_owned),
        text: text.map(str::to_owned),
        since: at("since")?,
        until: at("until")?,
        ended_since: form.get("endedWithin").map(within).transpose()?.or(at("endedSince")?),
    };
    Ok(NewBulk { action, filter })
}

/// `POST /dashboard/operations/start`.
pub(super) async fn start(view: &View, form: &Form) -> Result<Done, Failure> {
    let id = form.get("preview").and_then(|id| id.parse().ok()).ok_or(NO_OPERATION)?;
    view.endpoints.start_bulk(id).await?;
    Ok(Done::open("/operations?notice=started"))
}

/// `POST /dashboard/operations/{id}/stop`.
pub(super) async fn stop(view: &View, id: &str) -> Result<Done, Failure> {
    let id = id.parse().map_err(|_| NO_OPERATION)?;
    view.endpoints.stop_bulk(id).await?;
    Ok(Done::open("/operations?notice=stopped"))
}

impl From<BulkError> for Failure {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::NotFound => NO_OPERATION,
            BulkError::Expired => {
                Self::NotFound("The preview has expired: 20 later ones were made. Make a new one.", "PREVIEW_EXPIRED")
            }
            BulkError::Store(error) => Self::Store(error),
            other => Self::Invalid(other.to_string()),
        }
    }
}
