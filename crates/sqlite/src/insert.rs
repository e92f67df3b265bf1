//! Calls of clients: insert, cancel, retry.

use async_endpoints_core::{
    JobId, JobStatus,
    job::ErrorRecord,
    lifecycle::{self, Event},
    store::{CancelOutcome, InsertOutcome, JobLookup, NewJob, RetryAs, RetryOutcome},
};
use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;

use crate::{
    fail::Fail,
    job::Job,
    ledger::NEVER_STARTED,
    state::State,
    view::{self, lookup},
};

impl State {
    pub(crate) fn insert(&mut self, new: &NewJob) -> Result<InsertOutcome, Fail> {
        let mut waiting = 0;
        let known = self.ledger.kind(&self.conn, &new.name)?;
        if let Some(kind) = known {
            if let Some(job) = self.keyed(new, kind)? {
                return self.existing(job, new);
            }
            let counts = self.ledger.counts(&self.conn, kind)?;
            waiting = counts[JobStatus::Queued as usize] + counts[NEVER_STARTED];
        }
        let full = new.queue_limit.is_some_and(|limit| waiting.unsigned_abs() >= limit);
        // A type is made with its first job: one that is refused leaves nothing.
        let refused = full || known.is_none() && view::identity(&self.conn, new.id)?.is_some();
        let accepted = if refused { None } else { self.accept(new, None)? };
        let Some(job) = accepted else {
            return match view::identity(&self.conn, new.id)? {
                None => Ok(InsertOutcome::Full),
                // A new key must not take over a job that was made under another one, or under none.
                Some(_) if new.key.is_some() => Ok(InsertOutcome::Conflict),
                Some(_) => self.existing(new.id, new),
            };
        };
        if let Some(key) = &job.key {
            self.conn
                .prepare_cached("INSERT INTO keys (owner, type, key, id) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![owner(new), job.kind, key, job.id.0.as_bytes()])?;
        }
        let ahead = view::ahead_of_last(&job, &self.ledger.counts(&self.conn, job.kind)?);
        Ok(InsertOutcome::Inserted { created_at: self.now, version: job.version.unsigned_abs(), ahead })
    }

    /// The job of a request with the same key.
    fn keyed(&self, new: &NewJob, kind: i64) -> Result<Option<JobId>, Fail> {
        let Some(key) = &new.key else { return Ok(None) };
        let mut find = self.conn.prepare_cached("SELECT id FROM keys WHERE owner = ?1 AND type = ?2 AND key = ?3")?;
        let id = find.query_row(params![owner(new), kind, key.as_str()], |row| row.get(0)).optional()?;
        Ok(id.map(|id| JobId(Uuid::from_bytes(id))))
    }

    /// Gives a job its number and writes it; none if its id is another's, or was.
    fn accept(&mut self, new: &NewJob, retry_of: Option<JobId>) -> Result<Option<Job>, Fail> {
        if view::tomb(&self.conn, new.id)?.is_some() {
            return Ok(None);
        }
        let kind = self.ledger.kind_or_new(&self.conn, &new.name)?;
        let now = self.now;
        let order = self.ledger.next_order(&self.conn, now)?;
        let delayed = !new.delay.is_zero();
        let runnable_since = now + new.delay;
        let job = Job {
            seq: order,
            id: new.id,
            kind,
            status: if delayed { JobStatus::Scheduled } else { JobStatus::Queued },
            terms: new.terms.clone(),
            payload_bytes: new.payload.len() as i64,
            fingerprint: new.fingerprint,
            owner: new.owner,
            key: new.key.as_ref().map(|key| key.as_str().to_owned()),
            repeatable: new.id_chosen || new.key.is_some(),
            trace: new.trace.clone(),
            version: 1,
            attempt: 0,
            retries: 0,
            losses: 0,
            releases: 0,
            order,
            created_at: now,
            updated_at: now,
            entered_at: now,
            runnable_since,
            due: delayed.then_some(runnable_since),
            started_at: None,
            ended_at: None,
            cancel_requested_at: None,
            current: None,
            settled: None,
            last: None,
            lease_until: None,
            deadline: None,
            error: None,
            progress: None,
            span: None,
            retry_of,
            retried_by: None,
            log_lines: 0,
            log_bytes: 0,
        };
        Ok(self.put(&job, &new.payload)?.then_some(job))
    }

    fn existing(&mut self, id: JobId, new: &NewJob) -> Result<InsertOutcome, Fail> {
        match view::identity(&self.conn, id)? {
            Some(identity) if identity == (new.owner, new.fingerprint) => {
                Ok(match lookup(&self.conn, &mut self.ledger, id, self.now)? {
                    // Its record outlives the time in which readers are told: a replay is never a second run.
                    JobLookup::NotFound => InsertOutcome::Existing(JobLookup::Gone { owner: new.owner }),
                    lookup => InsertOutcome::Existing(lookup),
                })
            }
            _ => Ok(InsertOutcome::Conflict),
        }
    }

    pub(crate) fn cancel(&mut self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome, Fail> {
        let now = self.now;
        let Some(mut job) = view::readable(&self.conn, id, now)? else {
            return Ok(match lookup(&self.conn, &mut self.ledger, id, now)? {
                JobLookup::Gone { owner } => CancelOutcome::Gone { owner },
                _ => CancelOutcome::NotFound,
            });
        };
        let asked = job.cancel_requested_at.is_some();
        Ok(match lifecycle::next(job.status, asked, Event::Cancel) {
            None => CancelOutcome::Terminal(Box::new(self.view(job)?)),
            Some(JobStatus::InProgress) => {
                if !asked {
                    self.change(&mut job, now, |job| job.cancel_requested_at = Some(now))?;
                }
                CancelOutcome::Requested(Box::new(self.view(job)?))
            }
            Some(after) => {
                let order = self.ledger.next_order(&self.conn, now)?;
                self.change(&mut job, now, |job| {
                    job.status = after;
                    job.order = order;
                    job.ended_at = Some(now);
                    job.error = Some(error.clone());
                })?;
                self.count_ended(job.kind, after)?;
                CancelOutcome::Canceled(Box::new(self.view(job)?))
            }
        })
    }

    pub(crate) fn retry(&mut self, id: JobId, new: &RetryAs) -> Result<RetryOutcome, Fail> {
        let now = self.now;
        let Some(mut old) = view::readable(&self.conn, id, now)? else {
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
        let name = self.ledger.name(&self.conn, old.kind)?;
        let payload = view::payload(&self.conn, old.seq)?.map_err(Fail::Bad)?;
        let again = NewJob::new(new.id, name, payload, old.terms.clone(), old.fingerprint)
            .owner(old.owner)
            .trace(new.trace.clone());
        let Some(job) = self.accept(&again, Some(id))? else { return Ok(RetryOutcome::Conflict) };
        let updated_at = old.updated_at;
        self.change(&mut old, updated_at, |old| old.retried_by = Some(new.id))?;
        Ok(RetryOutcome::Created(Box::new(self.view(job)?)))
    }
}

/// Whose a key is. No owner is the empty one.
fn owner(new: &NewJob) -> &[u8] {
    new.owner.as_ref().map_or(&[], |owner| owner.0.as_slice())
}
