//! Calls made for clients: insert, cancel, retry.

use std::mem::MaybeUninit;

use super::{
    job::Job,
    state::{Request, State},
};
use crate::{
    job::{Digest, ErrorRecord, JobId, JobStatus},
    lifecycle,
    limits::AHEAD_COUNTED,
    store::{CancelOutcome, InsertOutcome, JobLookup, NewJob, RetryAs, RetryOutcome},
    time::Timestamp,
};

impl State {
    /// `memory` is for the job, if it is accepted.
    pub(super) fn insert(&mut self, new: NewJob, memory: Box<MaybeUninit<Job>>, now: Timestamp) -> InsertOutcome {
        let type_id = self.type_id_or_new(&new.name);
        let request: Option<Request> = new.key.as_ref().map(|key| (new.owner, type_id, key.clone()));
        if let Some(known) = request.as_ref().and_then(|request| self.keys.get(request)).copied() {
            return self.existing(known, &new, now);
        }
        if self.identity(new.id).is_some() {
            // A new key must not return a job that was made under another key or under none.
            return if new.key.is_some() { InsertOutcome::Conflict } else { self.existing(new.id, &new, now) };
        }
        if new.queue_limit.is_some_and(|limit| self.types[type_id as usize].waiting() >= limit) {
            return InsertOutcome::Full;
        }
        let id = new.id;
        let order = self.next_order(now);
        let place = self.add(Box::write(memory, Job::new(new, type_id, order, now)));
        if let Some(request) = request {
            self.keys.insert(request, id);
        }
        let job = self.job(place);
        let ahead = self.types[type_id as usize].ahead(job, AHEAD_COUNTED);
        InsertOutcome::Inserted { created_at: now, version: job.version, ahead }
    }

    /// Owner and fingerprint of a known id.
    fn identity(&self, id: JobId) -> Option<(Option<Digest>, Digest)> {
        if let Some(place) = self.ids.get(&id) {
            let job = self.job(*place);
            return Some((job.owner, job.fingerprint));
        }
        self.tombstones.get(&id).map(|tombstone| (tombstone.owner, tombstone.fingerprint))
    }

    fn existing(&self, id: JobId, new: &NewJob, now: Timestamp) -> InsertOutcome {
        match self.identity(id) {
            Some(identity) if identity == (new.owner, new.fingerprint) => match self.lookup(id, now) {
                // The tombstone outlives `Gone` for readers: a replay is never a second run.
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
        let (type_id, requested) = (job.type_id, job.cancel_requested_at.is_some());
        let place = self.ids[&id];
        match lifecycle::state_after_cancel(job.status) {
            None => CancelOutcome::Terminal(Box::new(self.view(job))),
            Some(JobStatus::InProgress) => {
                if !requested {
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
                self.types[type_id as usize].minute(now).count_ended(after);
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
        let type_id = job.type_id;
        let again = job.again(new, self.types[type_id as usize].name.clone());
        let old = self.ids[&id];
        let order = self.next_order(now);
        let mut job = Box::new(Job::new(again, type_id, order, now));
        job.extra().retry_of = Some(id);
        let place = self.add(job);
        let updated_at = self.job(old).updated_at;
        self.change(old, updated_at, |old| old.extra().retried_by = Some(new.id));
        RetryOutcome::Created(Box::new(self.view(self.job(place))))
    }
}
