//! `/dashboard/failures`: failed jobs by type and error code.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::{
        content::{Content, Failure, Refresh, Region, Section},
        format::{A_TIME, As, count, dash, job_link, read_time, time, time_field},
        table::{Column, table},
        view::View,
    },
    bulk,
};
use crate::{FailureGroup, Failures, Timestamp, text::shortened};

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

/// When the jobs of the page failed.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Period {
    /// In the last seconds.
    Window(u64),
    Since(Timestamp),
}

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let period = Period::read(view)?;
    let since = match period {
        Period::Window(seconds) => view.endpoints.recent_time().await?.before(Duration::from_secs(seconds)),
        Period::Since(at) => at,
    };
    let failures = view.endpoints.recent_failures(since, TIME).await?;
    Ok(Content {
        title: "Failures".to_owned(),
        section: Section::Failures,
        regions: vec![
            Region::fixed("period", period.choice(view)),
            Region::new("failures", list(view, &failures, period)),
        ],
        // Each search reads up to 5 000 jobs, or for half a second.
        refresh: Refresh { every: Duration::from_secs(15), ..Refresh::STATISTICS },
    })
}

impl Period {
    fn read(view: &View) -> Result<Self, Failure> {
        let invalid = |name: &str, text: &str, expected: &str| {
            Failure::Invalid(format!("invalid {name} {:?}: expected {expected}", shortened(text)))
        };
        if let Some(text) = view.param("since") {
            return read_time(text).map(Self::Since).ok_or_else(|| invalid("since", text, A_TIME));
        }
        let Some(text) = view.param("window") else { return Ok(Self::Window(HOUR)) };
        let known = WINDOWS.into_iter().map(|(seconds, _)| seconds).find(|seconds| seconds.to_string() == text);
        known.map(Self::Window).ok_or_else(|| invalid("window", text, "a listed window"))
    }

    fn choice(self, view: &View) -> Markup {
        let since = if let Self::Since(at) = self { Some(at) } else { None };
        html! {
            nav.windows aria-label="Period" {
                @for (seconds, name) in WINDOWS {
                    a href=(view.link(&format!("/failures?window={seconds}"))) aria-current=[(self == Self::Window(seconds)).then_some("true")] { (name) }
                }
                form action=(view.link("/failures")) {
                    (time_field("Since", "since", since))
                    button { "Show" }
                }
            }
        }
    }

    /// The field that limits a bulk operation to the period.
    fn field(self) -> (&'static str, String) {
        match self {
            Self::Window(seconds) => ("endedWithin", seconds.to_string()),
            Self::Since(at) => ("endedSince", at.to_string()),
        }
    }
}

fn list(view: &View, failures: &Failures, period: Period) -> Markup {
    let rows: Vec<Markup> = failures.failures.iter().map(|group| row(view, group, failures.complete, period)).collect();
    html! {
        section {
            h2 {
                "Failed jobs by error code and type"
                @if let Period::Since(at) = period { ", since " (time(at, As::Time)) }
            }
            @if !failures.complete {
                p.hint { "The last " (count(failures.scanned)) " failed jobs were read. Earlier ones of this period are missing." }
            }
            @if !rows.is_empty() {
                (table("Failed jobs by error code and type", &COLUMNS, &rows))
                p.hint { "Retry… takes the failed jobs of this period. An error code links to all of its failed jobs, the last one first." }
            }
            @else if failures.complete { p.empty { "No job failed in this period." } }
        }
    }
}

/// `complete`: the group has all jobs of the period.
fn row(view: &View, group: &FailureGroup, complete: bool, period: Period) -> Markup {
    let (name, code) = (group.name.as_str(), group.code.as_str());
    let filter = [("status", "Failed"), ("name", name), ("code", code)];
    let mut of_period: Vec<_> = filter.map(|(name, value)| (name, value.to_owned())).into();
    of_period.push(period.field());
    html! {
        tr id={ "failure-" (name) "-" (code) } {
            th scope="row" { a href=(view.link_to("/jobs", &filter)) { code { (code) } } }
            td { a href=(view.link(&format!("/types/{name}"))) { (name) } }
            td.number { (count(group.count)) @if !complete { "+" } }
            td { @if complete { (time(group.first_at, As::Ago)) } @else { (dash()) } }
            td { (time(group.last_at, As::Ago)) }
            td { (job_link(view, group.sample_id)) }
            td { (bulk::button(view, "retry", "Retry…", &of_period)) }
        }
    }
}
