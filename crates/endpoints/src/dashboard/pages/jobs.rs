//! `/dashboard/jobs`: a filtered list of jobs. The address has the whole state of the page.

use maud::{Markup, html};

use super::super::{
    content::{Content, Failure, Refresh, Region, Section},
    format::{As, count, dash, duration, job_link, scroll, status, time},
    view::View,
};
use crate::{JobId, JobName, JobPage, JobStatus, JobView, Jobs, Timestamp, Waiting, WaitingReason};

const LIMIT: u32 = 50;

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    if let Some(id) = view.param("id") {
        let id: JobId = id.parse().map_err(|_| Failure::Invalid(format!("invalid job id {id:?}: expected a UUID")))?;
        return Err(Failure::Moved(format!("/jobs/{id}")));
    }
    let page = query(view)?.limit(LIMIT).await?;
    let types = view.endpoints.recent_stats().await?;
    let names: Vec<&str> = types.job_types.keys().map(String::as_str).collect();
    Ok(Content {
        title: "Jobs".to_owned(),
        section: Section::Jobs,
        regions: vec![Region::fixed("filter", filter(view, &names)), Region::new("list", list(view, &page).await)],
        refresh: Refresh::CHANGES,
    })
}

/// The query that the address describes.
fn query(view: &View) -> Result<Jobs<'_>, Failure> {
    let mut jobs = view.endpoints.jobs();
    if let Some(text) = view.param("status") {
        let state = JobStatus::ALL.into_iter().find(|state| state.as_str() == text);
        jobs =
            jobs.status(state.ok_or_else(|| Failure::Invalid(format!("invalid status {text:?}: expected a state")))?);
    }
    if let Some(name) = view.param("name") {
        jobs = jobs.name(JobName::new(name).map_err(|error| Failure::Invalid(error.to_string()))?);
    }
    Ok(match view.param("cursor") {
        Some(cursor) => jobs.cursor(cursor),
        None => jobs,
    })
}

fn filter(view: &View, names: &[&str]) -> Markup {
    let states = JobStatus::ALL.map(JobStatus::as_str);
    html! {
        form.filter role="search" aria-label="Filter" action=(view.link("/jobs")) {
            (select(view, "status", "State", &states))
            (select(view, "name", "Type", names))
            button { "Filter" }
            @if view.at() != "/jobs" { a href=(view.link("/jobs")) { "Reset" } }
        }
        form.filter role="search" aria-label="Job by id" action=(view.link("/jobs")) {
            label { "Job id" input name="id" size="36" maxlength="36" autocomplete="off" spellcheck="false" required; }
            button { "Open" }
        }
    }
}

fn select(view: &View, name: &str, label: &str, values: &[&str]) -> Markup {
    let chosen = view.param(name);
    html! {
        label {
            (label)
            select name=(name) {
                option value="" { "All" }
                // A type of a link may have no jobs any more.
                @if let Some(other) = chosen.filter(|chosen| !values.contains(chosen)) { option selected { (other) } }
                @for value in values { option selected[chosen == Some(value)] { (value) } }
            }
        }
    }
}

async fn list(view: &View, page: &JobPage) -> Markup {
    let mut rows = Vec::with_capacity(page.jobs.len());
    for job in &page.jobs {
        rows.push(row(view, job, view.endpoints.waiting(job).await));
    }
    let table = html! {
                    table.jobs {
                        thead {
                            tr {
                                th scope="col" { "Job" }
                                th scope="col" { "Type" }
                                th scope="col" { "State" }
                                th.number scope="col" { "Attempt" }
                                th.wide scope="col" { "What" }
                                th scope="col" { "Accepted" }
                                th.number scope="col" { "Run time" }
                            }
                        }
                        // Rows do not move while the page is open. The script offers new ones with a button.
                        tbody data-hold { @for row in &rows { (row) } }
                    }
    };
    html! {
        section aria-label="List of jobs" {
            @if rows.is_empty() {
                p.empty { "No job matches." @if page.next_cursor.is_some() { " The search is not over." } }
            } @else {
                (scroll("Jobs", &table))
            }
            nav.paging aria-label="Parts of the list" {
                @if view.param("cursor").is_some() { a href=(view.link_with(&[("cursor", None)])) { "First jobs" } }
                @if let Some(next) = &page.next_cursor {
                    a href=(view.link_with(&[("cursor", Some(next))])) rel="next" { "Next jobs" }
                }
            }
        }
    }
}

fn row(view: &View, job: &JobView, waiting: Option<Waiting>) -> Markup {
    html! {
        tr id={ "job-" (job.id) } {
            th scope="row" { (job_link(view, job.id)) }
            td { (job.name) }
            td { (status(job.status)) }
            td.number { (job.attempt) " of " (u64::from(job.max_retries) + 1) }
            td.wide { (what(job, waiting)) }
            td { (time(job.created_at, As::Ago)) }
            td.number { (run_time(job)) }
        }
    }
}

/// The most useful fact about a job: its error, progress, or why it waits.
fn what(job: &JobView, waiting: Option<Waiting>) -> Markup {
    html! {
        @if let Some(waiting) = waiting {
            (self::waiting(&waiting))
        } @else if job.status == JobStatus::InProgress {
            @if job.cancel_requested_at.is_some() { "cancel requested " }
            @if let Some(progress) = &job.progress { (super::job::progress(progress)) }
        } @else if let Some(error) = &job.error {
            code { (error.code) } " " (error.detail.as_deref().unwrap_or(&error.title))
        }
    }
}

/// Why a job waits, in a few words.
pub(super) fn waiting(waiting: &Waiting) -> Markup {
    let ahead = waiting.ahead.filter(|ahead| *ahead > 0).map(|ahead| format!(", {} ahead", count(ahead)));
    html! {
        @match waiting.reason {
            WaitingReason::Queued => "queued",
            WaitingReason::Delayed => "due",
            WaitingReason::NoWorker => "no live worker takes this type",
            WaitingReason::ConcurrencyLimit => "the type is at its limit",
        }
        @if let Some(until) = waiting.until { " " (time(until, As::Ago)) }
        (ahead.unwrap_or_default())
    }
}

/// How long the last attempt ran, or runs.
fn run_time(job: &JobView) -> Markup {
    let last = job.attempts.last();
    let ran = last.and_then(|last| Some((last.started_at, last.ended_at?)));
    html! {
        @match (job.status, job.started_at, ran) {
            (JobStatus::InProgress, Some(started), _) => (time(started, As::Age)),
            (_, _, Some((started, ended))) => (run(started, ended)),
            _ => (dash()),
        }
    }
}

fn run(started: Timestamp, ended: Timestamp) -> String {
    duration(ended.since(started))
}
