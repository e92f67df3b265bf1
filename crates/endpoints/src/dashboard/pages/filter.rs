//! The filter of the list of jobs. The address of the page has all of it.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use super::super::{content::Failure, view::View};
use crate::{JobName, JobOwner, JobStatus, Jobs, Timestamp, core::job::Digest, text::shortened};

/// Windows of acceptance, and how the form names them.
const WINDOWS: [(&str, &str, u64); 4] =
    [("15m", "last 15 minutes", 15), ("1h", "last hour", 60), ("6h", "last 6 hours", 360), ("24h", "last day", 1440)];

/// The parameters of a filter.
pub(super) struct Filter<'a> {
    view: &'a View,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    status: Option<JobStatus>,
    name: Option<JobName>,
}

impl<'a> Filter<'a> {
    pub(super) fn read(view: &'a View) -> Result<Self, Failure> {
        let status = |text: &str| JobStatus::ALL.into_iter().find(|status| status.as_str() == text);
        let expected = JobStatus::ALL.map(JobStatus::as_str).join(", ");
        let window = WINDOWS.map(|(name, ..)| name).join(", ");
        Ok(Self {
            view,
            since: read(view, "since", &format!("{window} or a time such as 2026-11-28T12:00:00Z"), since)?,
            until: read(view, "until", "a time such as 2026-11-28T12:00:00Z", |text| text.parse().ok())?,
            status: read(view, "status", &expected, status)?,
            name: read(view, "name", "the name of a job type", |text| JobName::new(text).ok())?,
        })
    }

    /// The query for the jobs of the page.
    pub(super) fn query(&self) -> Jobs<'a> {
        self.view.param("cursor").into_iter().fold(self.matching(), Jobs::cursor)
    }

    /// The query for all jobs that match.
    pub(super) fn matching(&self) -> Jobs<'a> {
        let (view, jobs) = (self.view, self.view.endpoints.jobs());
        let jobs = self.status.into_iter().fold(jobs, Jobs::status);
        let jobs = self.name.iter().cloned().fold(jobs, Jobs::name);
        let jobs = self.since.into_iter().fold(jobs, Jobs::since);
        let jobs = self.until.into_iter().fold(jobs, Jobs::until);
        let jobs = view.param("code").into_iter().fold(jobs, Jobs::code);
        let jobs = view.param("q").into_iter().fold(jobs, Jobs::text);
        self.owner().into_iter().fold(jobs, Jobs::owner_digest)
    }

    /// Whether the list is searched job by job.
    pub(super) fn is_search(&self) -> bool {
        ["code", "q", "owner"].iter().any(|name| self.view.param(name).is_some())
    }

    /// Names and values of the filter in the form of a bulk operation. Its times are absolute, and its owner is a digest.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let text = |name: &str| self.view.param(name).map(str::to_owned);
        let fields = [
            ("status", text("status")),
            ("name", text("name")),
            ("code", text("code")),
            ("owner", self.owner().map(|owner| owner.to_string())),
            ("q", text("q")),
            ("since", self.since()),
            ("until", text("until")),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The owner, who is named or given by the digest.
    fn owner(&self) -> Option<Digest> {
        let owner = self.view.param("owner")?;
        Some(Digest::from_hex(owner).unwrap_or_else(|| JobOwner::new(owner, false).digest()))
    }

    /// The beginning of the window as a time, for links: the cursor of a page belongs to one time.
    pub(super) fn since(&self) -> Option<String> {
        self.since.map(|since| since.to_string())
    }

    pub(super) fn form(&self, names: &[&str]) -> Markup {
        let view = self.view;
        let states = JobStatus::ALL.map(|state| (state.as_str(), state.as_str()));
        let names: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
        html! {
            form.filter role="search" aria-label="Filter" action=(view.link("/jobs")) {
                (text(view, "q", "Id or text", 24))
                (select(view, "status", "State", "All", &states))
                (select(view, "name", "Type", "All", &names))
                (text(view, "code", "Error code", 12))
                (text(view, "owner", "Owner", 10))
                (select(view, "since", "Accepted", "Any time", &WINDOWS.map(|(value, label, _)| (value, label))))
                @if let Some(until) = view.param("until") { input type="hidden" name="until" value=(until); }
                button { "Filter" }
                @if view.at() != "/jobs" { a href=(view.link("/jobs")) { "Reset" } }
            }
        }
    }
}

fn read<T>(view: &View, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
    let Some(text) = view.param(name) else { return Ok(None) };
    let invalid = || Failure::Invalid(format!("invalid {name} {:?}: expected {expected}", shortened(text)));
    parse(text).map(Some).ok_or_else(invalid)
}

fn since(text: &str) -> Option<Timestamp> {
    match WINDOWS.into_iter().find(|(name, ..)| *name == text) {
        // Whole seconds, so that the links of a page stay the same for a while.
        Some((_, _, minutes)) => {
            let now = Timestamp::from(SystemTime::now()).before(Duration::from_secs(60 * minutes)).as_micros();
            Some(Timestamp::from_micros(now - now.rem_euclid(10_000_000)))
        }
        None => text.parse().ok(),
    }
}

fn text(view: &View, name: &str, label: &str, size: u32) -> Markup {
    let value = view.param(name).unwrap_or_default();
    html! {
        label {
            (label)
            input name=(name) value=(value) size=(size) maxlength="200" autocomplete="off" spellcheck="false";
        }
    }
}

fn select(view: &View, name: &str, label: &str, all: &str, values: &[(&str, &str)]) -> Markup {
    let chosen = view.param(name);
    html! {
        label {
            (label)
            select name=(name) {
                option value="" { (all) }
                // The value of a link, such as a type without jobs or a time.
                @if let Some(other) = chosen.filter(|chosen| values.iter().all(|(value, _)| value != chosen)) {
                    option selected { (other) }
                }
                @for (value, label) in values {
                    option value=(value) selected[chosen == Some(value)] { (label) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_relative_and_time_is_not() {
        let now = Timestamp::from(SystemTime::now());
        let hour = now.since(since("1h").expect("a window"));
        assert!((3_600..3_611).contains(&hour.as_secs()), "{hour:?}");
        assert_eq!(since("2026-11-28T12:00:00Z"), "2026-11-28T12:00:00Z".parse().ok());
        assert_eq!(since("yesterday"), None);
    }
}
