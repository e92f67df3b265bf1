//! `/dashboard/types/{name}`: one job type, its pause and its limit.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::{
        content::{Content, Done, Failure, Refresh, Region, Section},
        format::{As, count, duration_or_dash, mark, short, time},
        forms,
        table::{Column, table},
        view::{Form, View},
    },
    charts,
};
use crate::{
    JobName, TypeChangeError, TypePause, TypeState, core::store::LiveWorker, endpoints::RecentWorkers, text::shortened,
};

const WORKERS: [Column; 4] = [("Host", ""), ("Process", "number"), ("Running", "number"), ("State", "")];
const HOUR: Duration = Duration::from_secs(60 * 60);
const NO_TYPE: Failure = Failure::NotFound("There is no job type with this name.", "TYPE_NOT_FOUND");

const NOTICES: [(&str, &str); 4] = [
    ("paused", "The type is paused. No process starts its jobs after 2 s. Running attempts go on."),
    ("resumed", "The type is resumed. All processes start its jobs within 2 s."),
    ("limited", "The limit is set. It applies to new attempts within 2 s."),
    ("unlimited", "The limit is removed. The declared limits apply within 2 s."),
];

pub(super) async fn page(view: &View, name: &str) -> Result<Content, Failure> {
    let name = JobName::new(name).map_err(|_| NO_TYPE)?;
    let state = view.endpoints.recent_types().await?.into_iter().find(|state| state.name == name).ok_or(NO_TYPE)?;
    let workers = view.endpoints.recent_workers().await?;
    let series = view.endpoints.series(HOUR, Some(name.clone())).await?;
    Ok(Content {
        title: name.to_string(),
        section: Section::Types,
        regions: vec![
            Region::fixed("notice", forms::notice(view, &NOTICES)),
            Region::new("state", self::state(view, &state)),
            Region::new("counts", counts(view, &state)),
            Region::new("charts", charts::charts(&series)),
            Region::new("workers", self::workers(&name, &workers)),
        ],
        refresh: Refresh::STATISTICS,
    })
}

/// Running attempts, and how many may run.
fn running(state: &TypeState) -> Markup {
    html! { (count(state.running)) " of " (count(state.limit)) }
}

fn state(view: &View, state: &TypeState) -> Markup {
    html! {
        section aria-label="State" {
            p {
                @match &state.pause { Some(pause) => (paused(pause)), None => "New jobs are started." }
                @if let Some(limit) = state.per_process { " An operator's limit is " (limit) " per process." }
            }
            @if view.may_operate() { div.actions { (actions(view, state)) } }
        }
    }
}

fn paused(pause: &TypePause) -> Markup {
    html! {
        (mark("Paused")) " since " (time(pause.since, As::Time))
        @match pause.until { Some(until) => { " until " (time(until, As::Time)) }, None => { ", until it is resumed" } }
        ": " (pause.reason)
    }
}

fn actions(view: &View, state: &TypeState) -> Markup {
    let link = |action: &str| view.link(&format!("/types/{}/{action}", state.name));
    html! {
        @if state.pause.is_some() {
            form method="post" action=(link("resume")) { button { "Resume" } }
        }
        (forms::confirmed("pause", if state.pause.is_some() { "Change the pause" } else { "Pause" }, &link("pause"), &html! {
            p { "No process starts jobs of a paused type. Running attempts go on, and new jobs are accepted." }
            label { "Reason" input name="reason" required maxlength="200"; }
            (forms::span(Some("until it is resumed")))
            button { "Pause the type" }
        }))
        (forms::confirmed("limit", "Limit", &link("limit"), &html! {
            p { "Lowers how many attempts of the type run at once in each process." }
            label { "Per process" input name="perProcess" type="number" min="1" max="100000" required value=[state.per_process]; }
            button { "Set the limit" }
        }))
        @if state.per_process.is_some() {
            form method="post" action=(link("unlimit")) { button { "Remove the limit" } }
        }
    }
}

fn counts(view: &View, state: &TypeState) -> Markup {
    let counts = &state.counts;
    let states = [
        ("Queued", counts.queued),
        ("Scheduled", counts.scheduled),
        ("InProgress", counts.in_progress),
        ("Completed", counts.completed),
        ("Failed", counts.failed),
        ("Canceled", counts.canceled),
    ];
    html! {
        section aria-label="Jobs by state" {
            ul.counts {
                @for (name, jobs) in states {
                    li {
                        a class=(name.to_lowercase()) href=(view.link(&format!("/jobs?status={name}&name={}", state.name))) {
                            span.label { (name) }
                            b { (count(jobs)) }
                        }
                    }
                }
                li { div { span.label { "Running" } b { (running(state)) } } }
                li { div { span.label { "Oldest queued" } b { (duration_or_dash(state.oldest_queued_age)) } } }
            }
        }
    }
}

fn workers(name: &JobName, workers: &RecentWorkers) -> Markup {
    let rows: Vec<Markup> = workers.all().filter_map(|(worker, is_silent)| row(name, worker, is_silent)).collect();
    html! {
        section {
            h2 { "Workers with a handler" }
            @if rows.is_empty() { p.empty { "No live worker takes this type. Its jobs wait until one starts." } }
            @else { (table("Workers with a handler", &WORKERS, &rows)) }
        }
    }
}

fn row(name: &JobName, worker: &LiveWorker, is_silent: bool) -> Option<Markup> {
    let info = &worker.info;
    let capacity = info.types.iter().find(|capacity| capacity.name == *name)?;
    let id = info.id.to_string();
    Some(html! {
        tr id={ "worker-" (id) } {
            th scope="row" { span title=(id) { @if info.host.is_empty() { (short(&id)) } @else { (info.host) } } }
            td.number { (info.pid) }
            td.number { (capacity.running) " of " (capacity.limit) }
            td { (super::workers::state(worker, is_silent)) }
        }
    })
}

/// `POST /dashboard/types/{name}/pause`.
pub(super) async fn pause(view: &View, name: &str, form: &Form) -> Result<Done, Failure> {
    let until = forms::end_of_span(form)?;
    view.endpoints.pause_type(name, form.get("reason").unwrap_or_default(), until).await?;
    Ok(done(name, "paused"))
}

/// `POST /dashboard/types/{name}/resume`.
pub(super) async fn resume(view: &View, name: &str) -> Result<Done, Failure> {
    view.endpoints.resume_type(name).await?;
    Ok(done(name, "resumed"))
}

/// `POST /dashboard/types/{name}/limit`.
pub(super) async fn limit(view: &View, name: &str, form: &Form) -> Result<Done, Failure> {
    let text = form.get("perProcess").unwrap_or_default();
    let limit = text
        .parse()
        .map_err(|_| Failure::Invalid(format!("invalid perProcess {:?}: expected a number", shortened(text))))?;
    view.endpoints.limit_type(name, Some(limit)).await?;
    Ok(done(name, "limited"))
}

/// `POST /dashboard/types/{name}/unlimit`.
pub(super) async fn unlimit(view: &View, name: &str) -> Result<Done, Failure> {
    view.endpoints.limit_type(name, None).await?;
    Ok(done(name, "unlimited"))
}

fn done(name: &str, notice: &str) -> Done {
    Done::open(format!("/types/{name}?notice={notice}"))
}

impl From<TypeChangeError> for Failure {
    fn from(error: TypeChangeError) -> Self {
        match error {
            TypeChangeError::Unknown(_) => NO_TYPE,
            TypeChangeError::Field { .. } => Self::Invalid(error.to_string()),
            TypeChangeError::Store(error) => Self::Store(error),
        }
    }
}
