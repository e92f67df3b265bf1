//! The call `list`.

use std::{
    cmp::Reverse,
    ops::Bound::{Excluded, Unbounded},
};

use uuid::Uuid;

use super::{
    index::{Index, order_at},
    job::Job,
    state::State,
};
use crate::{
    job::{JobId, JobStatus, JobView},
    limits::PAGE_JOBS,
    store::{Cursor, ListFilter, ListPage, Page},
    time::Timestamp,
};

/// The score and id by which an index is sorted.
type Key = (u64, JobId);
/// An entry of an index: its key and the job's place.
type Entry = (Key, u32);

impl State {
    pub(super) fn list(&self, filter: &ListFilter, page: &Page, now: Timestamp) -> ListPage {
        let limit = page.limit.min(PAGE_JOBS) as usize;
        let checked = filter.entries(limit);
        let newest_first = filter.status.is_none_or(JobStatus::is_terminal);
        let (lowest, highest) = acceptance_range(filter);
        let after = page.cursor.map(|cursor| (cursor.score, cursor.id)).or(highest);
        let entries = if newest_first {
            newest(&self.indexes(filter), lowest, after, checked)
        } else {
            oldest(&self.indexes(filter), after, checked)
        };
        let since = page.cursor.map_or(now, |cursor| cursor.since);
        let moved = |job: &Job| filter.status.is_some() && job.entered_at > since;
        let mut jobs = Vec::new();
        for (at, ((score, id), place)) in entries.iter().enumerate() {
            let job = self.job(*place);
            if !job.expired(now) && !moved(job) && self.is_listed(job, filter) {
                jobs.push(JobView { result: None, ..self.view(job) });
            }
            let scanned = at + 1;
            if jobs.len() == limit || scanned == checked {
                let next = Some(Cursor { since, score: *score, id: *id });
                return ListPage { jobs, scanned: scanned as u32, next };
            }
        }
        ListPage { jobs, scanned: entries.len() as u32, next: None }
    }

    /// The indexes that a list reads: those of the state, else that of the owner, else those of all jobs.
    fn indexes(&self, filter: &ListFilter) -> Vec<&Index> {
        let types = self.types.iter().filter(|job_type| filter.name.as_ref().is_none_or(|name| *name == job_type.name));
        match (filter.status, filter.owner) {
            (Some(status), _) => types.map(|job_type| job_type.of(status)).collect(),
            (None, Some(owner)) => self.owned.get(&owner).into_iter().collect(),
            (None, None) => types.map(|job_type| &job_type.accepted).collect(),
        }
    }

    /// Whether a job of the list's indexes has the type of the filter and matches it.
    fn is_listed(&self, job: &Job, filter: &ListFilter) -> bool {
        filter.name.as_ref().is_none_or(|name| *name == self.types[job.type_id as usize].name)
            && filter.matches(&job.filtered())
    }
}

/// The scores between which a list by acceptance searches: the lowest one, and the key above the highest. A list of a state
/// has other scores, and no range.
fn acceptance_range(filter: &ListFilter) -> (u64, Option<Key>) {
    let (since, until) = if filter.status.is_some() { (None, None) } else { (filter.since, filter.until) };
    let above = until.map(|until| (order_at(until + ListFilter::ORDER_LEAD), JobId(Uuid::nil())));
    (since.map_or(0, order_at), above)
}

/// The next `limit` entries before `after`, newest first and down to the score `lowest`, merged from several indexes.
fn newest(indexes: &[&Index], lowest: u64, after: Option<Key>, limit: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for index in indexes {
        let older = index.range((Unbounded, after.map_or(Unbounded, Excluded))).rev();
        entries.extend(older.map(entry).take_while(|((score, _), _)| *score >= lowest).take(limit));
    }
    entries.sort_unstable_by_key(|(key, _)| Reverse(*key));
    entries.truncate(limit);
    entries
}

/// The next `limit` entries after `after`, oldest first, merged from several indexes.
fn oldest(indexes: &[&Index], after: Option<Key>, limit: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for index in indexes {
        entries.extend(index.range((after.map_or(Unbounded, Excluded), Unbounded)).map(entry).take(limit));
    }
    entries.sort_unstable();
    entries.truncate(limit);
    entries
}

fn entry((key, place): (&Key, &u32)) -> Entry {
    (*key, *place)
}
