//! `/dashboard/failures`: failed jobs by type and error code.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::{
        content::{Content, Failure, Refresh, Region, Section},
        format::{As, count, job_link, time},
        table::{Column, table},
        view::View,
    },
    bulk,
};
use crate::{FailureGroup, Failures, text::shortened};

const COLUMNS: [Column; 7] = [
    ("Error code", ""),
    ("Type", ""),
    ("Jobs", "number"),
    ("First", ""),
    ("Last", ""),
    ("Last job", ""),
    ("All of them", ""),
];
/// No further jobs are read for the page after this time.
const TIME: Duration = Duration::from_millis(500);
const HOUR: u64 = 60 * 60;
/// The windows to choose from, in seconds.
const WINDOWS: [(u64, &str); 4] = [(HOUR / 4, "15 min"), (HOUR, "1 h"), (6 * HOUR, "6 h"), (24 * HOUR, "24 h")];

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let window = window(view)?;
    let failures = view.endpoints.recent_failures(Duration::from_secs(window), TIME).await?;
    Ok(Content {
        title: "Failures".to_owned(),
        section: Section::Failures,
        regions: vec![
            Region::fixed("windows", windows(view, window)),
            Region::new("failures", list(view, &failures, window)),
        ],
        // Each search reads up to 5 000 jobs, or for half a second.
        refresh: Refresh { every: Duration::from_secs(15), ..Refresh::STATISTICS },
    })
}

fn window(view: &View) -> Result<u64, Failure> {
    let Some(text) = view.param("window") else { return Ok(HOUR) };
    let known = WINDOWS.into_iter().map(|(seconds, _)| seconds).find(|seconds| seconds.to_string() == text);
    known.ok_or_else(|| Failure::Invalid(format!("invalid window {:?}: expected a listed window", shortened(text))))
}

fn windows(view: &View, chosen: u64) -> Markup {
    html! {
        nav.windows aria-label="Window" {
            @for (seconds, name) in WINDOWS {
                a href=(view.link(&format!("/failures?window={seconds}"))) aria-current=[(seconds == chosen).then_some("true")] { (name) }
            }
        }
    }
}

fn list(view: &View, failures: &Failures, window: u64) -> Markup {
    let rows: Vec<Markup> = failures.failures.iter().map(|group| row(view, group, window)).collect();
    html! {
        section {
            h2 { "Failed jobs by error code and type" }
            @if !rows.is_empty() {
                (table("Failed jobs by error code and type", &COLUMNS, &rows))
                p.hint { "Retry… takes the failed jobs of this window. An error code links to all of its failed jobs, the last one first." }
            }
            @else if failures.complete { p.empty { "No job failed in this window." } }
            @if !failures.complete {
                p.hint { "The last " (count(failures.scanned)) " failed jobs were read. Earlier ones of this window are missing." }
            }
        }
    }
}

fn row(view: &View, group: &FailureGroup, window: u64) -> Markup {
    let (name, code) = (group.name.as_str(), group.code.as_str());
    let filter = [("status", "Failed"), ("name", name), ("code", code)];
    let mut of_window: Vec<_> = filter.map(|(name, value)| (name, value.to_owned())).into();
    of_window.push(("endedWithin", window.to_string()));
    html! {
        tr id={ "failure-" (name) "-" (code) } {
            th scope="row" { a href=(view.link_to("/jobs", &filter)) { code { (code) } } }
            td { a href=(view.link(&format!("/types/{name}"))) { (name) } }
            td.number { (count(group.count)) }
            td { (time(group.first_at, As::Ago)) }
            td { (time(group.last_at, As::Ago)) }
            td { (job_link(view, group.sample_id)) }
            td { (bulk::button(view, "retry", "Retry…", &of_window)) }
        }
    }
}
