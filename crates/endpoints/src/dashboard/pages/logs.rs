//! What the handler of a job logged.

use maud::{Markup, html};

use super::super::{
    content::Failure,
    format::{As, time},
    view::View,
};
use crate::{JobView, core::job::LogLine};

/// Lines on the page.
const SHOWN: usize = 200;
/// Maximum number of store calls. Each returns up to 500 lines.
const READS: usize = 6;

/// The last lines, or those that follow `?after=`.
pub(super) async fn section(view: &View, job: &JobView) -> Result<Markup, Failure> {
    let mut after = view.param("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    let mut lines = Vec::new();
    let mut is_end = false;
    for _ in 0..READS {
        let read = view.endpoints.job_logs(job.id, after).await?;
        let Some(last) = read.last() else {
            is_end = true;
            break;
        };
        after = last.line;
        lines.extend(read);
    }
    let hidden = lines.len().saturating_sub(SHOWN);
    let first = lines.first().map(|line| line.line);
    let earlier = (hidden > 0).then(|| lines[..hidden].len());
    let shown = &lines[hidden..];
    Ok(html! {
        section {
            h2 { "Logs" }
            @if lines.is_empty() { p.empty { "The handler logged nothing." } }
            @if let Some(earlier) = earlier { p { (earlier) " earlier lines are left out." } }
            @if first.is_some_and(|first| first > 1) { p { a href=(view.link_with(&[("after", None)])) { "From the first line" } } }
            @if !shown.is_empty() {
                ol.log tabindex="0" aria-label="Log lines" { @for line in shown { (entry(line)) } }
            }
            @if !is_end {
                p { a href=(view.link_with(&[("after", Some(&after.to_string()))])) { "Later lines" } }
            }
        }
    })
}

fn entry(line: &LogLine) -> Markup {
    html! {
        li id={ "line-" (line.line) } class=(line.level.to_lowercase()) {
            (time(line.timestamp, As::Time)) " "
            span.level { (line.level) } " "
            span.attempt { "#" (line.attempt) } " "
            span.message { (line.message) }
            @for (name, value) in &line.fields {
                " " span.field { (name) "=" (value.to_string()) }
            }
        }
    }
}
