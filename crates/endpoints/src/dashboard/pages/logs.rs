//! What the handler of a job logged.

use maud::{Markup, html};

use super::super::{
    content::Failure,
    format::{As, count, time},
    view::View,
};
use crate::{JobView, core::job::LogLine, text::shortened};

/// Lines on the page.
const SHOWN: usize = 200;
/// Maximum number of store calls. Each returns up to 500 lines.
const READS: usize = 6;
/// Levels by severity, and the text of the link that shows a level and those before it.
const LEVELS: [(&str, &str); 5] =
    [("error", "Error"), ("warn", "Warn"), ("info", "Info"), ("debug", "Debug"), ("trace", "All levels")];

/// Which lines are shown.
struct Filter {
    /// How many of the levels, the most severe first.
    levels: usize,
    attempt: Option<u32>,
}

impl Filter {
    fn read(view: &View) -> Result<Self, Failure> {
        let invalid = |name, text, expected| {
            Failure::Invalid(format!("invalid {name} {:?}: expected {expected}", shortened(text)))
        };
        let level = view.param("level").unwrap_or("trace");
        let at = LEVELS.iter().position(|(name, _)| *name == level);
        let at = at.ok_or_else(|| invalid("level", level, "error, warn, info, debug or trace"))?;
        let attempt = view.param("attempt").map(|text| text.parse().map_err(|_| invalid("attempt", text, "a number")));
        Ok(Self { levels: at + 1, attempt: attempt.transpose()? })
    }

    fn shows(&self, line: &LogLine) -> bool {
        let is_listed = LEVELS[..self.levels].iter().any(|(name, _)| line.level.eq_ignore_ascii_case(name));
        let is_any = self.levels == LEVELS.len();
        (is_any || is_listed) && self.attempt.is_none_or(|attempt| attempt == line.attempt)
    }

    fn is_all(&self) -> bool {
        self.levels == LEVELS.len() && self.attempt.is_none()
    }

    fn links(&self, view: &View, job: &JobView) -> Markup {
        // The link leads to the log, also without scripts.
        let link = |name, value: Option<&str>| {
            format!("{}#logs", view.link_with(&[(name, value), ("after", None), ("notice", None)]))
        };
        let current = |is_current: bool| is_current.then_some("true");
        html! {
            div.choices {
                nav.windows aria-label="Level and more severe" {
                    @for (at, (name, text)) in LEVELS.iter().enumerate().rev() {
                        a href=(link("level", (at + 1 < LEVELS.len()).then_some(name)))
                            aria-current=[current(self.levels == at + 1)] { (text) }
                    }
                }
                @if job.attempts.len() > 1 {
                    nav.windows aria-label="Attempt" {
                        a href=(link("attempt", None)) aria-current=[current(self.attempt.is_none())] { "All attempts" }
                        @for attempt in job.attempts.iter().map(|record| record.attempt) {
                            a href=(link("attempt", Some(&attempt.to_string())))
                                aria-current=[current(self.attempt == Some(attempt))] { "#" (attempt) }
                        }
                    }
                }
            }
        }
    }
}

/// The last lines, or those that follow `?after=`, of the levels and the attempt in the query.
pub(super) async fn section(view: &View, job: &JobView) -> Result<Markup, Failure> {
    let filter = Filter::read(view)?;
    let mut after = view.param("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    let begins_later = after > 0;
    let mut lines = Vec::new();
    let (mut is_end, mut has_lines) = (false, false);
    for _ in 0..READS {
        let read = view.endpoints.job_logs(job.id, after).await?;
        let Some(last) = read.last() else {
            is_end = true;
            break;
        };
        after = last.line;
        has_lines = true;
        lines.extend(read.into_iter().filter(|line| filter.shows(line)));
    }
    let hidden = lines.len().saturating_sub(SHOWN);
    let shown = &lines[hidden..];
    Ok(html! {
        section {
            h2 { "Logs" }
            @if has_lines || begins_later { (filter.links(view, job)) }
            @if shown.is_empty() {
                p.empty {
                    @if !has_lines && !begins_later { "The handler logged nothing." }
                    @else if filter.is_all() { "There are no further lines." }
                    @else { "No line has this level and attempt." }
                }
            }
            @if hidden > 0 { p { (count(hidden as u64)) " earlier lines are left out." } }
            @if begins_later { p { a href=(view.link_with(&[("after", None)])) { "From the first line" } } }
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
