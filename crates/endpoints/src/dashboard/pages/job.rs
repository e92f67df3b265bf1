//! `/dashboard/jobs/{id}`: everything about one job, and its actions.

use maud::{Markup, html};

use super::{
    super::{
        content::{Content, Done, Failure, Refresh, Region, Section},
        format::{As, count, dash, duration, job_link, short, status, time, time_or_dash},
        forms::{confirmed, notice},
        table::{Column, table},
        view::View,
    },
    logs, parts, timeline, why,
};
use crate::{
    CancelOutcome, JobId, JobLookup, JobStatus, JobView, RetryOutcome,
    core::job::{AttemptRecord, ErrorRecord},
};

const ATTEMPT_COLUMNS: [Column; 6] =
    [("Attempt", ""), ("Outcome", ""), ("Started", ""), ("Run time", "number"), ("Worker", ""), ("Error", "wide")];

/// What the last action did, by its name in the address.
const NOTICES: [(&str, &str); 7] = [
    ("canceled", "The job is canceled."),
    ("requested", "The worker was asked to cancel the job."),
    ("ended", "The job had already ended, so it was not canceled."),
    ("retried", "This is the new job."),
    ("existing", "The job was retried before. This is the job of that retry."),
    ("not-ended", "The job did not fail and was not canceled, so it was not retried."),
    ("repeat", "The job was not retried. Try again."),
];

/// Results up to this size are shown.
const RESULT_BYTES: usize = 16 << 10;

pub(super) async fn page(view: &View, id: &str) -> Result<Content, Failure> {
    let job = match view.endpoints.job(read(id)?).await? {
        JobLookup::Found(job) => job,
        JobLookup::Gone { .. } | JobLookup::NotFound => return Err(Failure::NoJob),
    };
    let is_running = job.status == JobStatus::InProgress;
    let waiting = view.endpoints.recent_waiting(std::slice::from_ref(&*job)).await.pop().flatten();
    let state = html! {
        (notice(view, &NOTICES))
        section.state aria-label="State" {
            p.summary {
                (status(job.status))
                @if let Some(waiting) = &waiting { " · " (parts::waiting(waiting)) }
                @if let (true, Some(started)) = (is_running, job.started_at) { " for " (time(started, As::Age)) }
                @if job.cancel_requested_at.is_some() { " · cancel requested" }
                @if let Some(progress) = job.progress.as_ref().filter(|_| is_running) { " · " (parts::progress(progress)) }
            }
            (actions(view, &job))
        }
    };
    Ok(Content {
        title: format!("{} {}", job.name, short(&job.id.to_string())),
        section: Section::Jobs,
        regions: vec![
            Region::new("state", state),
            Region::new("why", why::section(&view.endpoints.recent_explain(&job).await?)),
            Region::new("timeline", timeline::section(&job)),
            Region::new("outcome", outcome(&job)),
            Region::new("attempts", attempts(&job)),
            Region::new("facts", facts(view, &job)),
            Region::new("logs", logs::section(view, &job).await?),
        ],
        refresh: Refresh::of_job(&job),
    })
}

fn read(id: &str) -> Result<JobId, Failure> {
    id.parse().map_err(|_| Failure::NoJob)
}

/// `POST /dashboard/jobs/{id}/cancel`.
pub(super) async fn cancel(view: &View, id: &str) -> Result<Done, Failure> {
    let id = read(id)?;
    let done = |notice| Done::open(format!("/jobs/{id}?notice={notice}"));
    match view.endpoints.cancel(id).await? {
        CancelOutcome::Canceled(_) => Ok(done("canceled")),
        CancelOutcome::Requested(_) => Ok(done("requested")),
        CancelOutcome::Terminal(_) => Ok(done("ended").without_effect("JOB_ENDED")),
        CancelOutcome::Gone { .. } | CancelOutcome::NotFound => Err(Failure::NoJob),
    }
}

/// `POST /dashboard/jobs/{id}/retry`.
pub(super) async fn retry(view: &View, id: &str) -> Result<Done, Failure> {
    let id = read(id)?;
    let done = |id: JobId, notice| Done::open(format!("/jobs/{id}?notice={notice}"));
    match view.endpoints.retry(id).await? {
        RetryOutcome::Created(job) => Ok(done(job.id, "retried")),
        RetryOutcome::Existing(JobLookup::Found(job)) => Ok(done(job.id, "existing")),
        RetryOutcome::Existing(_) | RetryOutcome::Gone { .. } | RetryOutcome::NotFound => Err(Failure::NoJob),
        RetryOutcome::NotEnded(_) => Ok(done(id, "not-ended").without_effect("JOB_NOT_RETRYABLE")),
        // The new id exists already. Ids are random, so a repeat succeeds.
        RetryOutcome::Conflict => Ok(done(id, "repeat").without_effect("INTERNAL_ERROR")),
    }
}

fn actions(view: &View, job: &JobView) -> Markup {
    let can_cancel = !job.status.is_terminal() && job.cancel_requested_at.is_none();
    let can_retry = matches!(job.status, JobStatus::Failed | JobStatus::Canceled) && job.retried_by.is_none();
    let path = |action: &str| view.link(&format!("/jobs/{}/{action}", job.id));
    html! {
        @if view.may_operate() && can_cancel {
            (confirmed("cancel", "Cancel", &path("cancel"), &html! {
                p { "Cancel this job? A job that runs is asked to stop, and its work is lost." }
                button.danger { "Cancel the job" }
            }))
        }
        @if view.may_operate() && can_retry {
            (confirmed("retry", "Retry", &path("retry"), &html! {
                p { "Retry this job? A new job runs with the same request." }
                button { "Retry the job" }
            }))
        }
    }
}

/// The result or the error.
fn outcome(job: &JobView) -> Markup {
    html! {
        @if let Some(error) = &job.error {
            section {
                h2 { @if job.status.is_terminal() { "Error" } @else { "Error of the last attempt" } }
                (self::error(error))
            }
        }
        @if let Some(result) = &job.result {
            section {
                h2 { "Result" }
                @if result.len() <= RESULT_BYTES { pre tabindex="0" { (pretty(result)) } }
                @else { p { "The result has " (count(result.len() as u64)) " bytes. The JSON route returns it." } }
            }
        }
    }
}

/// JSON with line breaks. Text that is no JSON stays as it is.
fn pretty(json: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(json).ok();
    value
        .and_then(|value| serde_json::to_string_pretty(&value).ok())
        .unwrap_or_else(|| String::from_utf8_lossy(json).into_owned())
}

fn error(error: &ErrorRecord) -> Markup {
    html! {
        p { code { (error.code) } " " (error.title) @if error.retryable { " · may succeed if retried" } }
        @if let Some(detail) = &error.detail { p.detail { (detail) } }
        @if !error.sources.is_empty() {
            ol.sources { @for source in &error.sources { li { (source) } } }
        }
    }
}

fn attempts(job: &JobView) -> Markup {
    let rows: Vec<Markup> = job.attempts.iter().map(attempt).collect();
    html! {
        section {
            h2 { "Attempts" }
            @if rows.is_empty() { p.empty { "The job has not been started." } }
            @else { (table("Attempts", &ATTEMPT_COLUMNS, &rows)) }
        }
    }
}

fn attempt(record: &AttemptRecord) -> Markup {
    html! {
        tr id={ "attempt-" (record.attempt) } {
            th scope="row" { "#" (record.attempt) }
            td { (timeline::outcome(record.outcome)) }
            td { (time(record.started_at, As::Time)) }
            td.number {
                @match record.ended_at {
                    Some(ended) => (duration(ended.since(record.started_at))),
                    None => (time(record.started_at, As::Age)),
                }
            }
            td {
                @match record.worker {
                    Some(worker) => { span.id title=(worker) { (short(&worker.to_string())) } }
                    None => (dash()),
                }
            }
            td.wide {
                @if let Some(error) = &record.error {
                    code { (error.code) } " " (error.detail.as_deref().unwrap_or(&error.title))
                }
            }
        }
    }
}

fn facts(view: &View, job: &JobView) -> Markup {
    let name = job.name.as_str();
    html! {
        section {
            h2 { "Facts" }
            dl.facts {
                (fact("Id", &html! { span.id { (job.id) } }))
                (fact("Type", &html! { a href=(view.link(&format!("/jobs?name={name}"))) { (name) } }))
                (fact("Accepted", &time(job.created_at, As::Time)))
                @if let Some(due) = job.scheduled_at { (fact("Due", &time(due, As::Time))) }
                (fact("Started", &time_or_dash(job.started_at, As::Time)))
                (fact("Ended", &time_or_dash(job.completed_at, As::Time)))
                @if let Some(expires) = job.expires_at { (fact("Expires", &time(expires, As::Ago))) }
                (fact("Retries", &html! { (job.retry_count) " of " (job.max_retries) }))
                (fact("Losses", &html! { (job.loss_count) }))
                (fact("Releases", &html! { (job.release_count) }))
                (fact("Priority", &html! { (u8::from(job.priority)) }))
                @if let Some(of) = job.retry_of { (fact("Retry of", &job_link(view, of))) }
                @if let Some(by) = job.retried_by { (fact("Retried by", &job_link(view, by))) }
                @if let Some(owner) = job.owner {
                    @let name = job.owner_label.clone().unwrap_or_else(|| short(&owner.to_string()));
                    (fact("Owner", &html! { span title=(owner) { (name) } }))
                }
                @if let Some(trace) = &job.trace { (fact("Trace", &self::trace(view, &trace.trace_id()))) }
            }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A trace by its id, with a link if the application has set one.
pub(super) fn trace(view: &View, id: &str) -> Markup {
    html! {
        @match &view.endpoints.options().dashboard.trace_url {
            Some(template) => a.id href=(template.replace("{trace_id}", id)) rel="noreferrer" { (id) },
            None => span.id { (id) },
        }
    }
}
