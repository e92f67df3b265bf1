//! Calls of readers: get, versions, list, logs, payload.

use std::{cmp::Reverse, ops::Range};

use async_endpoints_core::{
    JobId, JobStatus,
    job::{Digest, LogLine},
    limits::PAGE_JOBS,
    store::{Cursor, JobLookup, ListFilter, ListPage, Page},
};
use bytes::Bytes;
use rusqlite::{OptionalExtension as _, ToSql, params};
use uuid::Uuid;

use crate::{
    column::from_json,
    failure::Failure,
    reader::Reader,
    score::order_number_at,
    view::{self, lookup},
};

/// An entry of an index: score and id, by which a list is sorted, and the job's seq.
type Entry = ((i64, [u8; 16]), i64);

/// Turns an unreadable row into none, so that it is left out.
fn readable<T>(read: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Failure::Unreadable(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The seqs of the jobs that a list by acceptance has left: those of the filter's times, before the last entry.
fn seqs(filter: &ListFilter, after: Option<(i64, [u8; 16])>) -> Range<i64> {
    let end = filter.until.map_or(i64::MAX, |until| order_number_at(until + ListFilter::ORDER_LEAD));
    filter.since.map_or(0, order_number_at)..after.map_or(end, |(seq, _)| seq)
}

impl Reader {
    pub(crate) fn get(&mut self, id: JobId) -> Result<JobLookup, Failure> {
        lookup(&self.conn, &mut self.names, id, self.now)
    }

    pub(crate) fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>, Failure> {
        let mut find = self.conn.prepare_cached("SELECT version, ended_at, retention FROM jobs WHERE id = ?1")?;
        let mut versions = Vec::with_capacity(ids.len());
        for id in ids {
            let found = find.query_row([id.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            // An unreadable job counts as absent. A call for it alone reports it.
            let found: Option<(i64, Option<i64>, i64)> = readable(found.optional().map_err(Failure::from))?.flatten();
            let now = self.now.as_micros();
            let kept =
                found.filter(|(_, ended, retention)| ended.is_none_or(|ended| ended.saturating_add(*retention) > now));
            versions.push(kept.map(|(version, ..)| version.unsigned_abs()));
        }
        Ok(versions)
    }

    pub(crate) fn list(&mut self, filter: &ListFilter, page: &Page) -> Result<ListPage, Failure> {
        let limit = page.limit.min(PAGE_JOBS) as usize;
        let checked = filter.entries(limit);
        let type_ids: Vec<i64> = match &filter.name {
            Some(name) => self.type_id(name)?.into_iter().collect(),
            None => self.type_ids()?,
        };
        let after =
            page.cursor.map(|cursor| (i64::try_from(cursor.score).unwrap_or(i64::MAX), cursor.id.0.into_bytes()));
        let entries = match (filter.status, filter.owner) {
            (Some(status), _) => self.of_state(status, &type_ids, after, checked)?,
            (None, Some(owner)) => self.owned(owner, &seqs(filter, after), checked)?,
            (None, None) => self.accepted(&type_ids, &seqs(filter, after), checked)?,
        };
        let since = page.cursor.map_or(self.now, |cursor| cursor.since);
        let mut jobs = Vec::with_capacity(entries.len().min(limit));
        let found = entries.len() as u32;
        for (at, ((score, id), seq)) in entries.into_iter().enumerate() {
            match view::load(&self.conn, seq)? {
                Some(Ok(job)) if filter.status.is_none_or(|status| job.status == status) => {
                    // Since the first page. A time ahead of now was written before the clock was set back.
                    let moved = filter.status.is_some() && since < job.entered_at && job.entered_at <= self.now;
                    let is_listed = type_ids.contains(&job.type_id) && filter.matches(&job.filtered());
                    if is_listed && !job.is_expired(self.now) && !moved {
                        jobs.extend(readable(view::view(&self.conn, &mut self.names, job, false))?);
                    }
                }
                Some(Err(_)) => {}
                _ => return Err(Failure::index_mismatch(seq)),
            }
            let scanned = at + 1;
            if jobs.len() == limit || scanned == checked {
                let next = Cursor { since, score: score.unsigned_abs(), id: JobId(Uuid::from_bytes(id)) };
                return Ok(ListPage { jobs, scanned: scanned as u32, next: Some(next) });
            }
        }
        Ok(ListPage { jobs, scanned: found, next: None })
    }

    /// The next entries of a state, merged over the types.
    fn of_state(
        &self,
        status: JobStatus,
        type_ids: &[i64],
        after: Option<(i64, [u8; 16])>,
        limit: usize,
    ) -> Result<Vec<Entry>, Failure> {
        let newest_first = status.is_terminal();
        let (sql, (score, id)) = if newest_first {
            let sql = "SELECT score, id, seq FROM jobs WHERE status = ?1 AND type_id = ?2 AND (score, id) < (?3, ?4) \
                ORDER BY score DESC, id DESC LIMIT ?5";
            (sql, after.unwrap_or((i64::MAX, [u8::MAX; 16])))
        } else {
            let sql = "SELECT score, id, seq FROM jobs WHERE status = ?1 AND type_id = ?2 AND (score, id) > (?3, ?4) \
                ORDER BY score, id LIMIT ?5";
            (sql, after.unwrap_or((-1, [0; 16])))
        };
        let mut entries: Vec<Entry> = Vec::new();
        for type_id in type_ids {
            entries.extend(self.entries(sql, params![status as i64, type_id, score, id, limit as i64])?);
        }
        if newest_first {
            entries.sort_unstable_by_key(|(key, _)| Reverse(*key));
        } else {
            entries.sort_unstable();
        }
        entries.truncate(limit);
        Ok(entries)
    }

    /// The next entries of all states, newest accepted first, merged over the types. The score is the seq, which is unique,
    /// so the id is not read.
    fn accepted(&self, type_ids: &[i64], seqs: &Range<i64>, limit: usize) -> Result<Vec<Entry>, Failure> {
        let sql = "SELECT seq, zeroblob(16), seq FROM jobs \
            WHERE type_id = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4";
        let mut entries: Vec<Entry> = Vec::new();
        for type_id in type_ids {
            entries.extend(self.entries(sql, params![type_id, seqs.start, seqs.end, limit as i64])?);
        }
        entries.sort_unstable_by_key(|(key, _)| Reverse(*key));
        entries.truncate(limit);
        Ok(entries)
    }

    /// The next entries of an owner, newest accepted first, as of [`accepted`](Self::accepted).
    fn owned(&self, owner: Digest, seqs: &Range<i64>, limit: usize) -> Result<Vec<Entry>, Failure> {
        let sql = "SELECT seq, zeroblob(16), seq FROM jobs INDEXED BY jobs_by_owner \
            WHERE owner = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4";
        self.entries(sql, params![owner.0, seqs.start, seqs.end, limit as i64])
    }

    fn entries(&self, sql: &str, params: &[&dyn ToSql]) -> Result<Vec<Entry>, Failure> {
        let mut find = self.conn.prepare_cached(sql)?;
        let entries = find.query_map(params, |row| {
            // An unreadable id is found when the row is read.
            Ok(((row.get(0)?, row.get(1).unwrap_or_default()), row.get(2)?))
        })?;
        Ok(entries.collect::<Result<_, _>>()?)
    }

    pub(crate) fn payload(&self, id: JobId) -> Result<Option<Bytes>, Failure> {
        let job = view::unexpired(&self.conn, id, self.now)?.filter(|job| job.status != JobStatus::Completed);
        let Some(job) = job else { return Ok(None) };
        view::payload(&self.conn, job.seq)?.map(Some).map_err(Failure::Unreadable)
    }

    pub(crate) fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>, Failure> {
        let Some(job) = view::unexpired(&self.conn, id, self.now)? else { return Ok(Vec::new()) };
        let sql =
            "SELECT line, attempt, CAST(record AS BLOB) FROM logs WHERE seq = ?1 AND line > ?2 ORDER BY line LIMIT ?3";
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query(params![job.seq, i64::try_from(after).unwrap_or(i64::MAX), limit])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            let line = from_json(&row.get::<_, Vec<u8>>(2)?).unwrap_or_else(|_| LogLine {
                line: 0,
                attempt: 0,
                timestamp: job.updated_at,
                level: "ERROR".into(),
                target: None,
                message: "This line is stored, but cannot be read.".to_owned(),
                fields: Default::default(),
            });
            lines.push(LogLine { line: row.get::<_, i64>(0)?.unsigned_abs(), attempt: row.get(1)?, ..line });
        }
        Ok(lines)
    }
}
