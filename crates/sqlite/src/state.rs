//! What a step of the writer works with, and the one way to change a job.

use std::{collections::HashMap, time::Duration};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, ErrorRecord},
    lifecycle::{self, Event},
    limits::ATTEMPTS_KEPT,
    store::Hint,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    fail::Fail,
    job::{Job, json},
    ledger::{Counts, Ledger},
    order::priority_of,
    view::{self, Kinds},
};

/// The writer's connection in an open transaction, and what goes with it.
pub(crate) struct State {
    pub(crate) conn: Connection,
    pub(crate) ledger: Ledger,
    /// The time of the running step.
    pub(crate) now: Timestamp,
    changed: Vec<JobId>,
    work: Vec<JobName>,
    /// How many Queued jobs of each type were counted when a claimer last found none: those that are passed by.
    left: HashMap<i64, i64>,
}

impl Kinds for Ledger {
    fn name(&mut self, conn: &Connection, kind: i64) -> Result<JobName, Fail> {
        Self::name(self, conn, kind)
    }

    fn counts(&mut self, conn: &Connection, kind: i64) -> Result<Counts, Fail> {
        Self::counts(self, conn, kind)
    }
}

/// So many jobs stand aside at most when another joins them because of damage: more than stand on some pages. What is in
/// the way of more of them is a page that all share, as one of an index is, and mended with all of them in their places.
pub(crate) const ASIDE: usize = 200;

/// How an attempt ends.
pub(crate) struct End<'a> {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) error: Option<&'a ErrorRecord>,
    pub(crate) if_canceled: &'a ErrorRecord,
    /// Until it is due again.
    pub(crate) delay: Duration,
    pub(crate) slow: bool,
}

impl State {
    pub(crate) fn new(conn: Connection) -> Self {
        Self {
            conn,
            ledger: Ledger::default(),
            now: Timestamp::default(),
            changed: Vec::new(),
            work: Vec::new(),
            left: HashMap::new(),
        }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.changed.clear();
        self.work.clear();
    }

    /// The step is part of the transaction: what to tell once that is committed.
    pub(crate) fn keep(&mut self, hints: &mut Vec<Hint>) {
        hints.extend(self.work.drain(..).map(Hint::Work));
        if !self.changed.is_empty() {
            hints.push(Hint::Jobs(self.changed.as_slice().into()));
            self.changed.clear();
        }
    }

    /// Does something to a job that is one of many, and was found in that state, if it could be read. If it meets damage, in
    /// the job's row or beside it, the step fails by this job's name: whoever asked has it put aside and asks again.
    pub(crate) fn each<T>(
        &mut self,
        seq: i64,
        found: Option<JobStatus>,
        act: impl FnOnce(&mut Self) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        act(self).map_err(|fail| fail.of_job(seq, found))
    }

    fn count(&mut self, job: &Job, by: i64) -> Result<(), Fail> {
        self.ledger.count(&self.conn, job.kind, job.counted(), by)
    }

    /// Told when jobs of a type become runnable. A claimer that is told of the first one goes on until it finds none.
    fn hint_work(&mut self, kind: i64) -> Result<(), Fail> {
        let left = self.left.get(&kind).copied().unwrap_or(0);
        if self.ledger.counts(&self.conn, kind)?[JobStatus::Queued as usize] <= left + 1 {
            self.work.push(self.ledger.name(&self.conn, kind)?);
        }
        Ok(())
    }

    /// A claimer found no job of a type that could run.
    pub(crate) fn found_none(&mut self, kind: i64) -> Result<(), Fail> {
        let counted = self.ledger.counts(&self.conn, kind)?[JobStatus::Queued as usize];
        self.left.insert(kind, counted);
        Ok(())
    }

    /// Adds a job; not if there is one of that id.
    pub(crate) fn put(&mut self, job: &Job, payload: &[u8]) -> Result<bool, Fail> {
        if !job.insert(&self.conn)? {
            return Ok(false);
        }
        self.conn
            .prepare_cached("INSERT INTO payloads (seq, format, bytes) VALUES (?1, 1, ?2)")?
            .execute(params![job.seq, payload])?;
        self.count(job, 1)?;
        if job.status == JobStatus::Queued {
            self.hint_work(job.kind)?;
        }
        Ok(true)
    }

    /// The one way to change a job: counted out, changed, written, counted in.
    pub(crate) fn change(
        &mut self,
        job: &mut Job,
        updated_at: Timestamp,
        change: impl FnOnce(&mut Job),
    ) -> Result<(), Fail> {
        let before = job.status;
        self.count(job, -1)?;
        change(job);
        job.version += 1;
        job.updated_at = updated_at;
        if job.status != before {
            job.entered_at = updated_at;
        }
        job.save(&self.conn)?;
        self.count(job, 1)?;
        self.changed.push(job.id);
        if job.status == JobStatus::Queued && before != job.status {
            self.hint_work(job.kind)?;
        }
        Ok(())
    }

    /// Ends the running attempt, and the job if that follows. `also` sets what the caller adds, given the state it
    /// went to.
    pub(crate) fn end(
        &mut self,
        job: &mut Job,
        end: &End<'_>,
        also: impl FnOnce(&mut Job, JobStatus),
    ) -> Result<JobStatus, Fail> {
        let now = self.now;
        let asked = job.cancel_requested_at.is_some();
        let ran = now.since(job.started_at.unwrap_or(now));
        let event = Event::Ended { outcome: end.outcome, last: job.losses >= job.terms.max_losses };
        let after = lifecycle::next(job.status, asked, event)
            .ok_or_else(|| Fail::Bad(format!("{} is {} and cannot end", job.id, job.status)))?;
        let recorded = lifecycle::recorded(end.outcome, after);
        let error = if asked && after == JobStatus::Canceled { Some(end.if_canceled) } else { end.error };
        let error = error.filter(|_| after != JobStatus::Completed);
        let order = after.is_terminal().then(|| self.ledger.next_order(&self.conn, now)).transpose()?;

        self.book(job, recorded, error)?;
        self.change(job, now, |job| {
            job.status = after;
            (job.lease_until, job.deadline) = (None, None);
            match end.outcome {
                AttemptOutcome::Lost => job.losses += 1,
                AttemptOutcome::Retried if after == JobStatus::Scheduled => job.retries += 1,
                AttemptOutcome::Released if after == JobStatus::Queued => job.releases += 1,
                _ => {}
            }
            if error.is_some() || after == JobStatus::Completed {
                job.error = error.cloned();
            }
            if let Some(order) = order {
                (job.order, job.ended_at) = (order, Some(now));
            } else {
                let due = now + end.delay;
                job.runnable_since = due;
                if after == JobStatus::Scheduled {
                    job.due = Some(due);
                }
            }
            also(job, after);
        })?;

        let slot = self.ledger.slot(&self.conn, job.kind, now)?;
        slot.attempts[recorded as usize] += 1;
        slot.slow += u64::from(end.slow);
        if end.outcome != AttemptOutcome::Lost {
            slot.processing_time.record(ran);
        }
        self.count_ended(job.kind, after)?;
        Ok(after)
    }

    /// Books the end of the running attempt. A job that completed at its first has that derived.
    fn book(&self, job: &Job, outcome: AttemptOutcome, error: Option<&ErrorRecord>) -> Result<(), Fail> {
        if outcome == AttemptOutcome::Completed && job.attempt == 1 {
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO attempts (seq, attempt, started_at, ended_at, outcome, error) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.conn.prepare_cached(sql)?.execute(params![
            job.seq,
            job.attempt,
            job.started_at.unwrap_or(self.now).as_micros(),
            self.now.as_micros(),
            outcome as i64,
            error.map(json).transpose()?,
        ])?;
        if job.attempt as usize > ATTEMPTS_KEPT {
            self.conn
                .prepare_cached("DELETE FROM attempts WHERE seq = ?1 AND attempt <= ?2")?
                .execute(params![job.seq, i64::from(job.attempt) - ATTEMPTS_KEPT as i64])?;
        }
        Ok(())
    }

    /// Counts a job that ended in the slot of this minute.
    pub(crate) fn count_ended(&mut self, kind: i64, status: JobStatus) -> Result<(), Fail> {
        if status.is_terminal() {
            let place = status as usize - JobStatus::Completed as usize;
            self.ledger.slot(&self.conn, kind, self.now)?.ended[place] += 1;
        }
        Ok(())
    }

    pub(crate) fn view(&mut self, job: Job) -> Result<JobView, Fail> {
        view::view(&self.conn, &mut self.ledger, job, true)
    }

    /// The job at a place in the order of a state. What cannot be read is put aside, and what stands there by mistake is
    /// passed by, as after a page of which the disk kept an earlier state: neither is ever in the way again.
    pub(crate) fn load(&mut self, seq: i64, status: JobStatus) -> Result<Option<Job>, Fail> {
        match self.each(seq, None, |state| view::load(&state.conn, seq))? {
            Some(Ok(job)) if job.status == status => return Ok(Some(job)),
            Some(Err(why)) => self.put_aside(seq, None, &why)?,
            _ => self.pass_by(seq, &format!("it stands among those that are {status}, and is not one of them"))?,
        }
        Ok(None)
    }

    /// Takes a job out of every order and count; its row stays for whoever looks into it. Not if it is no longer in the state
    /// that it was found in: then another process moved it, which nothing was in the way of.
    pub(crate) fn put_aside(&mut self, seq: i64, found: Option<JobStatus>, why: &str) -> Result<(), Fail> {
        self.each(seq, found, |state| state.take_out(seq, found, why))
    }

    fn take_out(&mut self, seq: i64, found: Option<JobStatus>, why: &str) -> Result<(), Fail> {
        let mut find = self.conn.prepare_cached("SELECT type, status, score, attempt FROM jobs WHERE seq = ?1")?;
        let row = find.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        let row: Option<(i64, i64, i64, i64)> = row.optional()?;
        drop(find);
        let Some((kind, status, score, attempt)) = row else { return Ok(()) };
        let known = usize::try_from(status).ok().and_then(|status| JobStatus::ALL.get(status));
        // A claim that found it Queued may have promoted it just before, which was taken back too.
        let promoted =
            found == Some(JobStatus::Queued) && known == Some(&JobStatus::Scheduled) && score <= self.now.as_micros();
        if !promoted && found.is_some_and(|found| found as i64 != status) {
            return Ok(());
        }
        if let Some(known) = known {
            let counted = (*known, priority_of(score), u32::try_from(attempt).unwrap_or(u32::MAX));
            self.ledger.count(&self.conn, kind, counted, -1)?;
        }
        self.conn.prepare_cached("UPDATE jobs SET status = 9 WHERE seq = ?1")?.execute([seq])?;
        self.note(seq, status, why)
    }

    /// The same for a job whose row is fine, as far as anybody knows: something that it needs is damaged. Not if too many
    /// stand aside already: then it is whoever asked who is told.
    pub(crate) fn put_damaged_aside(&mut self, seq: i64, found: Option<JobStatus>, why: &str) -> Result<(), Fail> {
        self.check_aside(why)?;
        self.put_aside(seq, found, why)
    }

    /// The same for a job whose row cannot be read, or not be written: it is passed by, whatever its row says, and stays
    /// counted as what it was.
    pub(crate) fn pass_by(&self, seq: i64, why: &str) -> Result<(), Fail> {
        const UNKNOWN: i64 = 9;
        self.check_aside(why)?;
        self.note(seq, UNKNOWN, why)
    }

    fn check_aside(&self, why: &str) -> Result<(), Fail> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT ?1)";
        let aside: i64 = self.conn.prepare_cached(sql)?.query_row([ASIDE as i64], |row| row.get(0))?;
        if aside < ASIDE as i64 { Ok(()) } else { Err(Fail::Bad(why.to_owned())) }
    }

    fn note(&self, seq: i64, status: i64, why: &str) -> Result<(), Fail> {
        // What it was is what the first of two who met the same damage says.
        let sql = "INSERT OR IGNORE INTO quarantine (seq, at, status, reason) VALUES (?1, ?2, ?3, ?4)";
        self.conn.prepare_cached(sql)?.execute(params![seq, self.now.as_micros(), status, why])?;
        Ok(())
    }

    /// The places that a query names.
    pub(crate) fn places(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<i64>, Fail> {
        let mut find = self.conn.prepare_cached(sql)?;
        let places = find.query_map(params, |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(places)
    }
}
