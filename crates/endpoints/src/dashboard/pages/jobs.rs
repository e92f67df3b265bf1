//! `/dashboard/jobs`: a filtered list of jobs. The address has the whole state of the page.

use std::future::IntoFuture as _;

use maud::{Markup, html};

use super::{
    super::{
        content::{Content, Failure, Refresh, Region, Section},
        format::{As, count, dash, duration, job_link, scroll, status, time},
        view::View,
    },
    bulk,
    filter::Filter,
    jobs_csv, parts, views,
};
use crate::{JobId, JobName, JobPage, JobStatus, JobView, Timestamp, Waiting};

const LIMIT: u32 = 50;

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    if let Some(id) = view.param("q").and_then(|text| text.parse::<JobId>().ok()) {
        return Err(Failure::Moved(format!("/jobs/{id}")));
    }
    let filter = Filter::read(view)?;
    // With the beginning of the window as a time, to which the cursor belongs.
    let address = view.at_with(&[("since", filter.since().as_deref())]);
    let read = view.lists.read(address, view.as_of, filter.query().limit(LIMIT).into_future()).await?;
    let page = &*read.page;
    let types = view.endpoints.type_names().await?;
    let names: Vec<&str> = types.iter().map(JobName::as_str).collect();
    Ok(Content {
        title: "Jobs".to_owned(),
        section: Section::Jobs,
        regions: vec![
            Region::fixed("filter", html! { (filter.form(&names)) (views::views(view)) }),
            Region::new("list", list(view, &filter, page).await),
            Region::fixed("bulk", bulk::buttons(view, &filter)),
        ],
        // A search reads up to 2 000 jobs.
        refresh: if filter.is_search() { Refresh::STATISTICS } else { Refresh::of_jobs(read.changes) },
    })
}

async fn list(view: &View, filter: &Filter<'_>, page: &JobPage) -> Markup {
    let waiting = view.endpoints.recent_waiting(&page.jobs).await;
    let rows: Vec<Markup> = page.jobs.iter().zip(waiting).map(|(job, waiting)| row(view, job, waiting)).collect();
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
                p.empty { @if page.is_complete() { "No job matches." } @else { "No match so far." } }
            } @else {
                (scroll("Jobs", &table))
            }
            (paging(view, filter, page))
        }
    }
}

/// Links to the other parts of the list, and how far a search looked.
fn paging(view: &View, filter: &Filter<'_>, page: &JobPage) -> Markup {
    let since = filter.since();
    html! {
        nav.paging aria-label="Parts of the list" {
            @if filter.is_search() { span { "Checked " (count(page.scanned.into())) " jobs." } }
            @if view.param("cursor").is_some() { a href=(view.link_with(&[("cursor", None)])) { "First jobs" } }
            @if let Some(next) = &page.next_cursor {
                a rel="next" href=(view.link_with(&[("since", since.as_deref()), ("cursor", Some(next))])) {
                    @if page.jobs.len() < LIMIT as usize { "Search on" } @else { "Next jobs" }
                }
            }
            @if !page.jobs.is_empty() { (csv(view)) }
        }
    }
}

/// A link to a file with all jobs of the filter.
fn csv(view: &View) -> Markup {
    let filter = view.at_with(&[("cursor", None)]).replacen("/jobs", "/jobs.csv", 1);
    html! { a href=(view.link(&filter)) { "CSV of up to " (count(jobs_csv::JOBS as u64)) " jobs" } }
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
            (parts::waiting(&waiting))
        } @else if job.status == JobStatus::InProgress {
            @if job.cancel_requested_at.is_some() { "cancel requested " }
            @if let Some(progress) = &job.progress { (parts::progress(progress)) }
        } @else if let Some(error) = &job.error {
            code { (error.code) } " " (error.detail.as_deref().unwrap_or(&error.title))
        }
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
