//! Calls of clients: insert, cancel, retry.

use async_endpoints_core::{
    JobId, JobStatus,
    job::ErrorRecord,
    lifecycle,
    store::{CancelOutcome, InsertOutcome, JobLookup, NewJob, RetryAs, RetryOutcome},
};
use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;

use crate::{
    failure::Failure,
    job::Job,
    state::State,
    types::{NEVER_STARTED, Types as _},
    view::{self, lookup},
};

impl State {
    pub(crate) fn insert(&mut self, new: &NewJob) -> Result<InsertOutcome, Failure> {
        let mut waiting = 0;
        let known = self.ledger.type_id(&self.conn, &new.name)?;
        if let Some(type_id) = known {
            if let Some(id) = self.find_key(new, type_id)? {
                return self.existing(id, new);
            }
            let counts = self.ledger.counts(&self.conn, type_id)?;
            waiting = counts[JobStatus::Queued as usize] + counts[NEVER_STARTED];
        }
        let full = new.queue_limit.is_some_and(|limit| waiting.unsigned_abs() >= limit);
        // A refused job must not create its type.
        let refused = full || known.is_none() && view::identity(&self.conn, new.id)?.is_some();
        let accepted = if refused { None } else { self.accept(new, None)? };
        let Some(job) = accepted else {
            return match view::identity(&self.conn, new.id)? {
                None => Ok(InsertOutcome::Full),
                // A new key must not adopt a job that was submitted with another key, or without one.
                Some(_) if new.key.is_some() => Ok(InsertOutcome::Conflict),
                Some(_) => self.existing(new.id, new),
            };
        };
        if let Some(key) = &job.key {
            self.conn
                .prepare_cached("INSERT INTO keys (owner, type_id, key, id) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![owner(new), job.type_id, key, job.id.0.as_bytes()])?;
        }
        let ahead = view::ahead_of_last(&job, &self.ledger.counts(&self.conn, job.type_id)?);
        Ok(InsertOutcome::Inserted { created_at: self.now, version: job.version.unsigned_abs(), ahead })
    }

    /// The job that the owner submitted with the same key.
    fn find_key(&self, new: &NewJob, type_id: i64) -> Result<Option<JobId>, Failure> {
        let Some(key) = &new.key else { return Ok(None) };
        let mut find =
            self.conn.prepare_cached("SELECT id FROM keys WHERE owner = ?1 AND type_id = ?2 AND key = ?3")?;
        let id = find.query_row(params![owner(new), type_id, key.as_str()], |row| row.get(0)).optional()?;
        Ok(id.map(|id| JobId(Uuid::from_bytes(id))))
    }

    /// Assigns an order number and inserts the job. Returns none if a job or tombstone has its id.
    fn accept(&mut self, new: &NewJob, retry_of: Option<JobId>) -> Result<Option<Job>, Failure> {
        if view::find_tombstone(&self.conn, new.id)?.is_some() {
            return Ok(None);
        }
        let type_id = self.ledger.type_id_or_new(&self.conn, &new.name)?;
        let now = self.now;
        let order_number = self.ledger.next_order_number(&self.conn, now)?;
        let delayed = !new.delay.is_zero();
        let runnable_since = now + new.delay;
        let trace = new.trace.as_ref();
        let job = Job {
            seq: order_number,
            id: new.id,
            type_id,
            priority: new.terms.priority,
            max_retries: new.terms.max_retries,
            max_losses: new.terms.max_losses,
            retention: new.terms.retention,
            payload_bytes: new.payload.len() as i64,
            fingerprint: new.fingerprint,
            owner: new.owner,
            owner_label: new.owner_label.clone(),
            key: new.key.as_ref().map(|key| key.as_str().to_owned()),
            repeatable: new.id_chosen || new.key.is_some(),
            traceparent: trace.map(|trace| trace.traceparent),
            tracestate: trace.and_then(|trace| trace.tracestate.clone()),
            created_at: now,
            retry_of,
            status: if delayed { JobStatus::Scheduled } else { JobStatus::Queued },
            version: 1,
            attempt: 0,
            retries: 0,
            losses: 0,
            releases: 0,
            order_number,
            updated_at: now,
            entered_at: now,
            runnable_since,
            due: delayed.then_some(runnable_since),
            started_at: None,
            ended_at: None,
            cancel_requested_at: None,
            token: None,
            worker: None,
            settled: None,
            last_token: None,
            last_settled: None,
            lease_until: None,
            deadline: None,
            error: None,
            progress: None,
            span: None,
            retried_by: None,
            log_lines: 0,
            log_bytes: 0,
        };
        if !self.put(&job, &new.payload)? {
            return Ok(None);
        }
        self.ledger.minute(&self.conn, type_id, now)?.arrivals += 1;
        Ok(Some(job))
    }

    fn existing(&mut self, id: JobId, new: &NewJob) -> Result<InsertOutcome, Failure> {
        match view::identity(&self.conn, id)? {
            Some(identity) if identity == (new.owner, new.fingerprint) => {
                Ok(match lookup(&self.conn, &mut self.ledger, id, self.now)? {
                    // The record outlives the time in which readers get "gone", so that a repeat never runs again.
                    JobLookup::NotFound => InsertOutcome::Existing(JobLookup::Gone { owner: new.owner }),
                    lookup => InsertOutcome::Existing(lookup),
                })
            }
            _ => Ok(InsertOutcome::Conflict),
        }
    }

    pub(crate) fn cancel(&mut self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome, Failure> {
        let now = self.now;
        let Some(mut job) = view::unexpired(&self.conn, id, now)? else {
            return Ok(match lookup(&self.conn, &mut self.ledger, id, now)? {
                JobLookup::Gone { owner } => CancelOutcome::Gone { owner },
                _ => CancelOutcome::NotFound,
            });
        };
        let requested = job.cancel_requested_at.is_some();
        Ok(match lifecycle::state_after_cancel(job.status) {
            None => CancelOutcome::Terminal(Box::new(self.view(job)?)),
            Some(JobStatus::InProgress) => {
                if !requested {
                    self.change(&mut job, now, |job| job.cancel_requested_at = Some(now))?;
                }
                CancelOutcome::Requested(Box::new(self.view(job)?))
            }
            Some(after) => {
                let order_number = self.ledger.next_order_number(&self.conn, now)?;
                self.change(&mut job, now, |job| {
                    job.status = after;
                    job.order_number = order_number;
                    job.ended_at = Some(now);
                    job.error = Some(error.clone());
                })?;
                self.ledger.minute(&self.conn, job.type_id, self.now)?.count_ended(after);
                CancelOutcome::Canceled(Box::new(self.view(job)?))
            }
        })
    }

    pub(crate) fn retry(&mut self, id: JobId, new: &RetryAs) -> Result<RetryOutcome, Failure> {
        let now = self.now;
        let Some(mut old) = view::unexpired(&self.conn, id, now)? else {
            return Ok(match lookup(&self.conn, &mut self.ledger, id, now)? {
                JobLookup::Gone { owner } => RetryOutcome::Gone { owner },
                _ => RetryOutcome::NotFound,
            });
        };
        if let Some(repeated) = old.retried_by {
            return Ok(RetryOutcome::Existing(lookup(&self.conn, &mut self.ledger, repeated, now)?));
        }
        if !matches!(old.status, JobStatus::Failed | JobStatus::Canceled) {
            return Ok(RetryOutcome::NotEnded(old.status));
        }
        let name = self.ledger.name(&self.conn, old.type_id)?;
        let payload = view::payload(&self.conn, old.seq)?.map_err(Failure::Unreadable)?;
        let again = NewJob::new(new.id, name, payload, old.terms(), old.fingerprint);
        let again = again.owner(old.owner).owner_label(old.owner_label.clone()).trace(new.trace.clone());
        let Some(job) = self.accept(&again, Some(id))? else { return Ok(RetryOutcome::Conflict) };
        let updated_at = old.updated_at;
        self.change(&mut old, updated_at, |old| old.retried_by = Some(new.id))?;
        Ok(RetryOutcome::Created(Box::new(self.view(job)?)))
    }
}

/// The owner of a key as stored: no owner is an empty blob.
fn owner(new: &NewJob) -> &[u8] {
    new.owner.as_ref().map_or(&[], |owner| owner.0.as_slice())
}
