//! Arguments and answers of `list`: filters, pages, and the match of a job with a filter.

use std::time::Duration;

use crate::{
    job::{Digest, ErrorRecord, JobId, JobName, JobStatus, JobView, Progress},
    limits::PAGE_JOBS,
    time::Timestamp,
};

/// Which jobs to list. A job must match all filters that are set.
///
/// An index finds the jobs of a state, of a type, of an owner (without a state), and of a range of acceptance times (without a
/// state). With any other filter a page checks the next [`PAGE_JOBS`] jobs of its index, and returns those that match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only jobs in this state, in the state's own order: next to run, soonest due, longest running, last ended. `None`
    /// lists all jobs, newest accepted first.
    pub status: Option<JobStatus>,
    /// Only jobs of this type.
    pub name: Option<JobName>,
    /// Only jobs of this owner, hashed.
    pub owner: Option<Digest>,
    /// Only jobs whose error has this code: the error that ended the job, or else the last attempt's error.
    pub code: Option<String>,
    /// Only jobs accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Only jobs accepted before this time. Without a state, the list may omit a job that was accepted while the store's clock
    /// was set back by more than [`ORDER_LEAD`](Self::ORDER_LEAD).
    pub until: Option<Timestamp>,
    /// Only jobs with this text in their id, in the detail of their error or in the message of their progress. The letters
    /// A to Z match in both cases, all other characters match exactly.
    pub text: Option<String>,
}

/// The values of a job that [`ListFilter::matches`] compares.
#[derive(Copy, Clone, Debug)]
pub struct Filtered<'a> {
    /// The job's id.
    pub id: JobId,
    /// Its owner, hashed.
    pub owner: Option<Digest>,
    /// When the store accepted it.
    pub created_at: Timestamp,
    /// The error that its view shows.
    pub error: Option<&'a ErrorRecord>,
    /// The progress that its view shows.
    pub progress: Option<&'a Progress>,
}

impl ListFilter {
    /// The time by which a job's order number may be ahead of its acceptance. Order numbers never fall, so they run ahead in a
    /// burst of more than 256 jobs per millisecond, and after the clock was set back. A search by order number therefore starts
    /// this much after [`until`](Self::until).
    pub const ORDER_LEAD: Duration = Duration::from_secs(1);

    /// The number of index entries that a page of at most `limit` jobs checks. More than `limit` if the filter may skip entries.
    pub const fn entries(&self, limit: usize) -> usize {
        let may_skip = self.owner.is_some() || self.code.is_some() || self.text.is_some();
        if may_skip || self.since.is_some() || self.until.is_some() { PAGE_JOBS as usize } else { limit }
    }

    /// Whether a job matches the filters by owner, error code, time of acceptance and text. The index of a list selects its
    /// state and type.
    pub fn matches(&self, job: &Filtered<'_>) -> bool {
        self.owner.is_none_or(|owner| job.owner == Some(owner))
            && self.since.is_none_or(|since| job.created_at >= since)
            && self.until.is_none_or(|until| job.created_at < until)
            && self.code.as_ref().is_none_or(|code| job.error.is_some_and(|error| error.code == *code))
            && self.text.as_ref().is_none_or(|text| job.contains(text))
    }
}

impl Filtered<'_> {
    fn contains(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let is_in = |field: &str| field.to_ascii_lowercase().contains(&text);
        is_in(&self.id.to_string())
            || self.error.and_then(|error| error.detail.as_deref()).is_some_and(is_in)
            || self.progress.and_then(|progress| progress.message.as_deref()).is_some_and(is_in)
    }
}

/// Selects a part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The end of the page before; none for the first page.
    pub cursor: Option<Cursor>,
    /// Maximum number of jobs, at most [`PAGE_JOBS`].
    pub limit: u32,
}

/// The last entry that a page consumed. Opaque: only the store that made it interprets the score.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// When the first page was read. Jobs that entered their state later are left out, since they may have been on an
    /// earlier page.
    pub since: Timestamp,
    /// The entry's score.
    pub score: u64,
    /// The entry's id, which orders equal scores.
    pub id: JobId,
}

/// A part of a list. It may be shorter than requested, or empty, while `next` is set.
#[derive(Clone, Debug, PartialEq)]
pub struct ListPage {
    /// The jobs, without results.
    pub jobs: Vec<JobView>,
    /// Number of index entries that this call checked, at most [`PAGE_JOBS`].
    pub scanned: u32,
    /// The cursor of the next page; none at the end of the list.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: &'static str, detail: &str) -> ErrorRecord {
        ErrorRecord {
            code: code.into(),
            title: "A test".into(),
            status: 500,
            detail: Some(detail.to_owned()),
            retryable: false,
            sources: vec!["source".to_owned()],
        }
    }

    #[test]
    fn each_filter_selects_by_its_own_value() {
        let error = failed("DISK_FULL", "No space left on Disk 7 (größe)");
        let progress = Progress {
            completed: 1,
            total: None,
            percent: None,
            message: Some("Row 12".to_owned()),
            updated_at: Timestamp::default(),
        };
        let job = Filtered {
            id: "0190f000-0000-7000-8000-00000000abcd".parse().expect("an id"),
            owner: Some(Digest([1; 32])),
            created_at: Timestamp::from_micros(100),
            error: Some(&error),
            progress: Some(&progress),
        };
        let matches = |filter: ListFilter| filter.matches(&job);
        let all = ListFilter::default;
        assert!(matches(all()));
        for (owner, expected) in [(1, true), (2, false)] {
            assert_eq!(matches(ListFilter { owner: Some(Digest([owner; 32])), ..all() }), expected, "{owner}");
        }
        for (code, expected) in [("DISK_FULL", true), ("DISK", false), ("disk_full", false)] {
            assert_eq!(matches(ListFilter { code: Some(code.to_owned()), ..all() }), expected, "{code}");
        }
        for (since, until, expected) in [(100, 101, true), (101, 200, false), (0, 100, false), (200, 0, false)] {
            let [since, until] = [since, until].map(Timestamp::from_micros).map(Some);
            assert_eq!(matches(ListFilter { since, until, ..all() }), expected, "{since:?} {until:?}");
        }
        for (text, expected) in [
            ("disk 7", true),
            ("ROW 1", true),
            ("0000ABCD", true),
            ("größe", true),
            ("GRÖßE", false),
            ("DISK_FULL", false),
            ("source", false),
            ("A test", false),
        ] {
            assert_eq!(matches(ListFilter { text: Some(text.to_owned()), ..all() }), expected, "{text}");
        }
        let plain = Filtered { error: None, progress: None, ..job };
        assert!(!ListFilter { code: Some("DISK_FULL".to_owned()), ..all() }.matches(&plain));
        assert!(!ListFilter { text: Some("disk".to_owned()), ..all() }.matches(&plain));
    }

    #[test]
    fn page_checks_more_entries_than_jobs_if_it_may_skip_some() {
        let failed = ListFilter { status: Some(JobStatus::Failed), ..ListFilter::default() };
        assert_eq!(failed.entries(7), 7);
        let all = PAGE_JOBS as usize;
        assert_eq!(ListFilter { code: Some("A".to_owned()), ..failed.clone() }.entries(7), all);
        assert_eq!(ListFilter { until: Some(Timestamp::default()), ..failed }.entries(7), all);
    }
}
