//! The writer's state during a step, and the one way to change a job.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Timestamp,
    job::AttemptRecord,
    lifecycle::{self, EndedAttempt},
    limits::ATTEMPTS_KEPT,
    store::Hint,
};
use rusqlite::{Connection, params};

use crate::{column::json, failure::Failure, job::Job, ledger::Ledger, score::priority_of, types::Types as _, view};

/// The writer's connection in an open transaction, with the cached values and hints of that transaction.
pub(crate) struct State {
    pub(crate) conn: Connection,
    pub(crate) ledger: Ledger,
    /// The time of the running step.
    pub(crate) now: Timestamp,
    changed: Vec<JobId>,
    work: Vec<JobName>,
}

/// Longer than any lease or role. A time further ahead was written while a clock was ahead, and is not waited for.
pub(crate) const FAR_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

impl State {
    pub(crate) fn new(conn: Connection) -> Self {
        Self { conn, ledger: Ledger::default(), now: Timestamp::default(), changed: Vec::new(), work: Vec::new() }
    }

    /// Begins a step.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.now = now;
        self.changed.clear();
        self.work.clear();
    }

    /// Ends a successful step: its hints are published after the commit.
    pub(crate) fn end_step(&mut self, hints: &mut Vec<Hint>) {
        hints.extend(self.work.drain(..).map(Hint::Work));
        if !self.changed.is_empty() {
            hints.push(Hint::Jobs(self.changed.as_slice().into()));
            self.changed.clear();
        }
    }

    fn count(&mut self, job: &Job, by: i64) -> Result<(), Failure> {
        self.ledger.count(&self.conn, job.type_id, job.counted(), by)
    }

    /// Publishes a work hint when a type's queue becomes non-empty. One hint is enough, as a claimer claims until the queue
    /// is empty.
    fn hint_work(&mut self, type_id: i64) -> Result<(), Failure> {
        if self.ledger.counts(&self.conn, type_id)?[JobStatus::Queued as usize] <= 1 {
            self.work.push(self.ledger.name(&self.conn, type_id)?);
        }
        Ok(())
    }

    /// Inserts a job. Returns false if the id exists.
    pub(crate) fn put(&mut self, job: &Job, payload: &[u8]) -> Result<bool, Failure> {
        if !job.insert(&self.conn)? {
            return Ok(false);
        }
        self.conn
            .prepare_cached("INSERT INTO payloads (seq, format, bytes) VALUES (?1, 1, ?2)")?
            .execute(params![job.seq, payload])?;
        self.count(job, 1)?;
        if job.status == JobStatus::Queued {
            self.hint_work(job.type_id)?;
        }
        Ok(true)
    }

    /// Changes a job: adjusts the counts, writes the row and records hints. All changes of visible jobs go through here.
    pub(crate) fn change(
        &mut self,
        job: &mut Job,
        updated_at: Timestamp,
        change: impl FnOnce(&mut Job),
    ) -> Result<(), Failure> {
        let before = job.status;
        self.count(job, -1)?;
        change(job);
        job.version += 1;
        job.updated_at = updated_at;
        if job.status != before {
            job.entered_at = updated_at;
        }
        job.update(&self.conn)?;
        self.count(job, 1)?;
        self.changed.push(job.id);
        if job.status == JobStatus::Queued && before != job.status {
            self.hint_work(job.type_id)?;
        }
        Ok(())
    }

    /// Ends the running attempt, and the job if that follows. `also` sets the caller's own fields, given the new status.
    pub(crate) fn end(
        &mut self,
        job: &mut Job,
        end: &EndedAttempt<'_>,
        also: impl FnOnce(&mut Job, JobStatus),
    ) -> Result<JobStatus, Failure> {
        let now = self.now;
        if job.status != JobStatus::InProgress {
            return Err(Failure::Unreadable(format!("{} is {} and has no running attempt", job.id, job.status)));
        }
        let effect = lifecycle::end_attempt(&job.running(now), end, now);
        let order_number =
            effect.status.is_terminal().then(|| self.ledger.next_order_number(&self.conn, now)).transpose()?;
        if let Some(record) = &effect.record {
            self.record_attempt(job.seq, record)?;
        }
        self.change(job, now, |job| {
            job.end_attempt(&effect, order_number);
            also(job, effect.status);
        })?;
        effect.count(self.ledger.minute(&self.conn, job.type_id, now)?);
        Ok(effect.status)
    }

    fn record_attempt(&self, seq: i64, record: &AttemptRecord) -> Result<(), Failure> {
        let sql = "INSERT OR REPLACE INTO attempts (seq, attempt, started_at, ended_at, outcome, error, worker) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn.prepare_cached(sql)?.execute(params![
            seq,
            record.attempt,
            record.started_at.as_micros(),
            record.ended_at.map(Timestamp::as_micros),
            record.outcome.map(|outcome| outcome as i64),
            record.error.as_ref().map(json).transpose()?,
            record.worker.as_ref().map(|worker| worker.0.as_bytes()),
        ])?;
        if record.attempt as usize > ATTEMPTS_KEPT {
            self.conn
                .prepare_cached("DELETE FROM attempts WHERE seq = ?1 AND attempt <= ?2")?
                .execute(params![seq, i64::from(record.attempt) - ATTEMPTS_KEPT as i64])?;
        }
        Ok(())
    }

    pub(crate) fn view(&mut self, job: Job) -> Result<JobView, Failure> {
        view::view(&self.conn, &mut self.ledger, job, true)
    }

    /// Reads a job that the index of a status names. An unreadable job is quarantined, and none is returned.
    ///
    /// # Errors
    /// Corrupt if the row is missing or has another status: the index and the table differ.
    pub(crate) fn load(&mut self, seq: i64, status: JobStatus) -> Result<Option<Job>, Failure> {
        let job = match view::load(&self.conn, seq)? {
            Some(Ok(job)) if job.status == status => job,
            Some(Err(reason)) => return self.quarantine(seq, &reason).map(|()| None),
            _ => return Err(Failure::index_mismatch(seq)),
        };
        match self.ledger.name(&self.conn, job.type_id) {
            Err(Failure::Unreadable(reason)) => self.quarantine(seq, &reason).map(|()| None),
            found => found.map(|_| Some(job)),
        }
    }

    /// Removes an unreadable job from its index and from all counts. Its row stays for inspection.
    pub(crate) fn quarantine(&mut self, seq: i64, reason: &str) -> Result<(), Failure> {
        let mut find = self.conn.prepare_cached("SELECT type_id, status, score, attempt FROM jobs WHERE seq = ?1")?;
        let (type_id, status, score, attempt): (i64, i64, i64, i64) =
            find.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        drop(find);
        if let Some(known) = usize::try_from(status).ok().and_then(|status| JobStatus::ALL.get(status)) {
            let counted = (*known, priority_of(score), u32::try_from(attempt).unwrap_or(u32::MAX));
            match self.ledger.count(&self.conn, type_id, counted, -1) {
                // A job of an unknown type is in no count.
                Err(Failure::Unreadable(_)) => {}
                counted => counted?,
            }
        }
        self.conn.prepare_cached("UPDATE jobs SET status = 9 WHERE seq = ?1")?.execute([seq])?;
        let sql = "INSERT OR REPLACE INTO quarantine (seq, at, status, reason) VALUES (?1, ?2, ?3, ?4)";
        self.conn.prepare_cached(sql)?.execute(params![seq, self.now.as_micros(), status, reason])?;
        Ok(())
    }

    /// Runs a query for one column of numbers.
    pub(crate) fn numbers(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<i64>, Failure> {
        let mut find = self.conn.prepare_cached(sql)?;
        let numbers = find.query_map(params, |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(numbers)
    }
}
