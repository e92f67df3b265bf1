//! Bulk operations: the forms that preview them, previews, and the list.

use std::{collections::BTreeSet, time::Duration};

use maud::{Markup, html};

use super::{
    super::{
        content::{Content, Done, Failure, Refresh, Region, Section},
        format::{A_TIME, As, count, dash, job_link, mark, read_time, time, time_field, time_or_dash},
        table::{Column, table},
        view::{Form, View},
    },
    filter::Filter,
};
use crate::{
    AuditEntry, BulkAction, BulkError, BulkFilter, BulkOperation, BulkPreview, BulkStatus, JobName, JobStatus, NewBulk,
    Timestamp, audit::OK, text::shortened,
};

const BULKS: [Column; 10] = [
    ("Operation", "wide"),
    ("State", ""),
    ("Progress", ""),
    ("Changed", "number"),
    ("Skipped", "number"),
    ("Failed", "number"),
    ("Started", ""),
    ("By", ""),
    ("Ended", ""),
    ("Action", ""),
];
/// The states of each action.
const STATES: [(&str, &[JobStatus]); 2] = [
    ("To retry", &[JobStatus::Failed, JobStatus::Canceled]),
    ("To cancel", &[JobStatus::Queued, JobStatus::Scheduled, JobStatus::InProgress]),
];
const NO_OPERATION: Failure = Failure::NotFound("There is no bulk operation with this id.", "BULK_NOT_FOUND");

/// A button that previews an action on all jobs of a filter. The preview asks for the confirmation.
pub(super) fn button(view: &View, action: &str, text: &str, filter: &[(&str, String)]) -> Markup {
    html! {
        @if view.may_operate() {
            form method="post" action=(view.link("/operations/preview")) {
                input type="hidden" name="action" value=(action);
                @for (name, value) in filter { input type="hidden" name=(name) value=(value); }
                button { (text) }
            }
        }
    }
}

/// The buttons of a job list, for all jobs that match its filter.
pub(super) fn buttons(view: &View, filter: &Filter<'_>) -> Markup {
    let filter = filter.fields();
    let (can_retry, can_cancel) = match view.param("status") {
        None => (true, true),
        Some("Queued" | "Scheduled" | "InProgress") => (false, true),
        Some("Failed" | "Canceled") => (true, false),
        Some(_) => (false, false),
    };
    html! {
        @if view.may_operate() && (can_retry || can_cancel) {
            div.actions role="group" aria-label="All matching jobs" {
                span { "All matching jobs:" }
                @if can_retry { (button(view, "retry", "Retry…", &filter)) }
                @if can_cancel { (button(view, "cancel", "Cancel…", &filter)) }
            }
        }
    }
}

/// The fields of [`form`]. The buttons of other pages send further ones.
const FIELDS: [&str; 6] = ["action", "status", "name", "code", "q", "endedSince"];

/// The form that previews an operation, with these values.
pub(super) fn form(view: &View, types: &BTreeSet<JobName>, values: &Form) -> Markup {
    let chosen = |name: &str, value: &str| values.get(name) == Some(value);
    html! {
        form.filter method="post" action=(view.link("/operations/preview")) aria-label="New bulk operation" {
            label {
                "Action"
                select name="action" {
                    option value="retry" { "Retry" }
                    option value="cancel" selected[chosen("action", "cancel")] { "Cancel" }
                }
            }
            label {
                "State"
                select name="status" {
                    option value="" { "All" }
                    @for (action, states) in STATES {
                        optgroup label=(action) {
                            @for state in states { option selected[chosen("status", state.as_str())] { (state.as_str()) } }
                        }
                    }
                }
            }
            label {
                "Type"
                select name="name" {
                    option value="" { "All" }
                    @for name in types { option selected[chosen("name", name.as_str())] { (name) } }
                }
            }
            label { "Error code" input name="code" value=[values.get("code")] maxlength="200" size="16"; }
            label { "Text" input name="q" value=[values.get("q")] maxlength="200" size="16"; }
            (time_field("Ended since (retry)", "endedSince", values.get("endedSince").and_then(read_time)))
            button { "Preview…" }
        }
    }
}

/// `audit` says who started the operations.
pub(super) fn list(view: &View, operations: &[BulkOperation], audit: &[AuditEntry]) -> Markup {
    let rows: Vec<Markup> = operations.iter().map(|operation| row(view, operation, audit)).collect();
    html! {
        section {
            h2 { "Bulk operations" }
            @if rows.is_empty() { p.empty { "No bulk operation was started." } }
            @else { (table("Bulk operations", &BULKS, &rows)) }
        }
    }
}

fn row(view: &View, operation: &BulkOperation, audit: &[AuditEntry]) -> Markup {
    let BulkOperation { id, action, filter, status, total, changed, skipped, failed, started_at, ended_at, .. } =
        operation;
    let done = changed + skipped + failed;
    let own_id = id.to_string();
    let is_start = |entry: &&AuditEntry| {
        entry.action == "bulk.start" && entry.target.as_ref() == Some(&own_id) && entry.outcome == OK
    };
    // The entries begin with the newest, and a repeated start starts nothing.
    let start = audit.iter().rev().find(is_start);
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
            td {
                @match start {
                    Some(start) => { a href=(view.link(&format!("/operations?audit={id}#audit"))) { (start.who) } }
                    None => (dash()),
                }
            }
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

/// `POST /dashboard/operations/preview`: shows the members, and asks for a confirmation.
pub(super) async fn preview(view: &View, form: &Form) -> Result<Done, Failure> {
    let is_typed = form.iter().all(|(name, _)| FIELDS.contains(&name));
    match members(view, form).await {
        Err(failure @ Failure::Invalid(_)) if is_typed => refused(view, form, &failure).await,
        done => done,
    }
}

/// The form again, so that the operator can correct it.
async fn refused(view: &View, values: &Form, failure: &Failure) -> Result<Done, Failure> {
    let types = view.endpoints.type_names().await?;
    let html = html! { p.failure role="alert" { (failure) } (form(view, &types, values)) };
    Ok(Done::refused(
        failure,
        Content {
            title: failure.title().to_owned(),
            section: Section::Operations,
            regions: vec![Region::fixed("new", html)],
            refresh: Refresh::STATISTICS,
        },
    ))
}

async fn members(view: &View, form: &Form) -> Result<Done, Failure> {
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
                @if preview.action == BulkAction::Retry {
                    " Jobs that were retried before are left out. Retried jobs wait in the queue: beyond its limit, new submissions are refused."
                }
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
