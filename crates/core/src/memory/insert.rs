//! Calls of clients: insert, cancel, retry.

use super::{
    job::Job,
    state::{Request, State},
};
use crate::{
    job::{Digest, ErrorRecord, JobId, JobStatus},
    lifecycle::{self, Event},
    limits::AHEAD_COUNTED,
    store::{CancelOutcome, InsertOutcome, JobLookup, NewJob, RetryAs, RetryOutcome},
    time::Timestamp,
};

impl State {
    pub(super) fn insert(&mut self, new: NewJob, now: Timestamp) -> InsertOutcome {
        let kind = self.kind_or_new(&new.name);
        let request: Option<Request> = new.key.as_ref().map(|key| (new.owner, kind, key.clone()));
        if let Some(known) = request.as_ref().and_then(|request| self.keys.get(request)).copied() {
            return self.existing(known, &new, now);
        }
        if self.identity(new.id).is_some() {
            // A new key must not take over a job that was made under another one, or under none.
            return if new.key.is_some() { InsertOutcome::Conflict } else { self.existing(new.id, &new, now) };
        }
        if new.queue_limit.is_some_and(|limit| self.types[kind as usize].waiting() >= limit) {
            return InsertOutcome::Full;
        }
        let id = new.id;
        let order = self.next_order(now);
        let place = self.put(Box::new(Job::new(new, kind, order, now)));
        if let Some(request) = request {
            self.keys.insert(request, id);
        }
        let job = self.job(place);
        let ahead = self.types[kind as usize].ahead(job, AHEAD_COUNTED);
        InsertOutcome::Inserted { created_at: now, version: job.version, ahead }
    }

    /// Whose a known id is, and by which request.
    fn identity(&self, id: JobId) -> Option<(Option<Digest>, Digest)> {
        if let Some(place) = self.ids.get(&id) {
            let job = self.job(*place);
            return Some((job.owner, job.fingerprint));
        }
        self.tombs.get(&id).map(|tomb| (tomb.owner, tomb.fingerprint))
    }

    fn existing(&self, id: JobId, new: &NewJob, now: Timestamp) -> InsertOutcome {
        match self.identity(id) {
            Some(identity) if identity == (new.owner, new.fingerprint) => match self.lookup(id, now) {
                // Its record outlives the time in which readers are told: a replay is never a second run.
                JobLookup::NotFound => InsertOutcome::Existing(JobLookup::Gone { owner: new.owner }),
                lookup => InsertOutcome::Existing(lookup),
            },
            _ => InsertOutcome::Conflict,
        }
    }

    pub(super) fn cancel(&mut self, id: JobId, error: &ErrorRecord, now: Timestamp) -> CancelOutcome {
        let Some(job) = self.readable(id, now) else {
            return match self.lookup(id, now) {
                JobLookup::Gone { owner } => CancelOutcome::Gone { owner },
                _ => CancelOutcome::NotFound,
            };
        };
        let (kind, asked) = (job.kind, job.cancel_requested_at.is_some());
        let place = self.ids[&id];
        match lifecycle::next(job.status, asked, Event::Cancel) {
            None => CancelOutcome::Terminal(Box::new(self.view(job))),
            Some(JobStatus::InProgress) => {
                if !asked {
                    self.change(place, now, |job| job.cancel_requested_at = Some(now));
                }
                CancelOutcome::Requested(Box::new(self.view(self.job(place))))
            }
            Some(after) => {
                let order = self.next_order(now);
                self.change(place, now, |job| {
                    job.status = after;
                    job.order = order;
                    job.ended_at = Some(now);
                    job.error = Some(Box::new(error.clone()));
                });
                self.types[kind as usize].slot(now).count_ended(after);
                CancelOutcome::Canceled(Box::new(self.view(self.job(place))))
            }
        }
    }

    pub(super) fn retry(&mut self, id: JobId, new: &RetryAs, now: Timestamp) -> RetryOutcome {
        let Some(job) = self.readable(id, now) else {
            return match self.lookup(id, now) {
                JobLookup::Gone { owner } => RetryOutcome::Gone { owner },
                _ => RetryOutcome::NotFound,
            };
        };
        if let Some(repeated) = job.extra.as_ref().and_then(|extra| extra.retried_by) {
            return RetryOutcome::Existing(self.lookup(repeated, now));
        }
        if !matches!(job.status, JobStatus::Failed | JobStatus::Canceled) {
            return RetryOutcome::NotEnded(job.status);
        }
        if self.identity(new.id).is_some() {
            return RetryOutcome::Conflict;
        }
        let kind = job.kind;
        let again = job.again(new, self.types[kind as usize].name.clone());
        let old = self.ids[&id];
        let order = self.next_order(now);
        let mut job = Box::new(Job::new(again, kind, order, now));
        job.extra().retry_of = Some(id);
        let place = self.put(job);
        let updated_at = self.job(old).updated_at;
        self.change(old, updated_at, |old| old.extra().retried_by = Some(new.id));
        RetryOutcome::Created(Box::new(self.view(self.job(place))))
    }
}
