//! A job's row: read, written, and what it says by itself.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, Priority, Timestamp,
    job::{Digest, ErrorRecord, JobTerms, Progress, TraceContext},
    store::LeaseToken,
};
use rusqlite::{Connection, Row, params, types::FromSql};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    fail::Fail,
    order::{ready_score, time_score},
};

/// The columns of a job, in the order in which [`Job::read`] takes them.
pub(crate) const COLUMNS: &str = "seq, id, type, status, priority, max_retries, max_losses, retention, payload_bytes, \
    fingerprint, owner, key, repeatable, traceparent, tracestate, version, attempt, retries, losses, releases, ord, \
    created_at, updated_at, entered_at, runnable_since, due, started_at, ended_at, cancel_requested_at, token, \
    settled, last_token, last_settled, lease_until, deadline, error, progress, span, retry_of, retried_by, log_lines, \
    log_bytes";

/// More than anything of a job comes to.
const MOST: i64 = 1 << 60;

pub(crate) struct Job {
    pub(crate) seq: i64,
    pub(crate) id: JobId,
    pub(crate) kind: i64,
    pub(crate) status: JobStatus,
    pub(crate) terms: JobTerms,
    pub(crate) payload_bytes: i64,
    pub(crate) fingerprint: Digest,
    pub(crate) owner: Option<Digest>,
    pub(crate) key: Option<String>,
    pub(crate) repeatable: bool,
    pub(crate) trace: Option<TraceContext>,

    pub(crate) version: i64,
    pub(crate) attempt: u32,
    pub(crate) retries: u32,
    pub(crate) losses: u32,
    pub(crate) releases: u32,

    pub(crate) order: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) entered_at: Timestamp,
    pub(crate) runnable_since: Timestamp,
    pub(crate) due: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) cancel_requested_at: Option<Timestamp>,

    /// The latest claim's token. Kept after the settlement, to know a repeat; taken away by a reclaim.
    pub(crate) current: Option<LeaseToken>,
    /// The state that settling by `current` led to.
    pub(crate) settled: Option<JobStatus>,
    /// The claim before, if it settled: a repeat may come late.
    pub(crate) last: Option<(LeaseToken, JobStatus)>,
    pub(crate) lease_until: Option<Timestamp>,
    pub(crate) deadline: Option<Timestamp>,

    pub(crate) error: Option<ErrorRecord>,
    pub(crate) progress: Option<Progress>,
    pub(crate) span: Option<String>,
    pub(crate) retry_of: Option<JobId>,
    pub(crate) retried_by: Option<JobId>,
    pub(crate) log_lines: i64,
    pub(crate) log_bytes: i64,
}

/// A duration as the file keeps it.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Fail> {
    serde_json::to_string(value).map_err(|error| Fail::Bad(error.to_string()))
}

pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Takes the columns of a row one after another.
struct Columns<'r> {
    row: &'r Row<'r>,
    at: usize,
}

impl Columns<'_> {
    fn next<T: FromSql>(&mut self) -> Result<T, String> {
        self.at += 1;
        self.row.get(self.at - 1).map_err(|error| error.to_string())
    }

    fn time(&mut self) -> Result<Timestamp, String> {
        self.next().map(Timestamp::from_micros)
    }

    fn maybe_time(&mut self) -> Result<Option<Timestamp>, String> {
        self.next::<Option<i64>>().map(|micros| micros.map(Timestamp::from_micros))
    }

    fn id(&mut self) -> Result<JobId, String> {
        self.next().map(|bytes| JobId(Uuid::from_bytes(bytes)))
    }

    fn maybe_uuid(&mut self) -> Result<Option<Uuid>, String> {
        self.next::<Option<[u8; 16]>>().map(|bytes| bytes.map(Uuid::from_bytes))
    }

    fn maybe_status(&mut self) -> Result<Option<JobStatus>, String> {
        self.next::<Option<i64>>()?.map(status).transpose()
    }

    fn maybe_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        self.next::<Option<String>>()?.map(|text| from_json(text.as_bytes())).transpose()
    }

    fn terms(&mut self) -> Result<JobTerms, String> {
        let priority: u8 = self.next()?;
        Ok(JobTerms {
            priority: Priority::try_from(priority).map_err(str::to_owned)?,
            max_retries: self.next()?,
            max_losses: self.next()?,
            retention: Duration::from_micros(self.next::<i64>()?.max(0).unsigned_abs()),
        })
    }

    fn trace(&mut self) -> Result<Option<TraceContext>, String> {
        let (traceparent, tracestate) = (self.next::<Option<String>>()?, self.next()?);
        Ok(traceparent.map(|traceparent| TraceContext { traceparent, tracestate }))
    }
}

fn status(number: i64) -> Result<JobStatus, String> {
    let place = usize::try_from(number).ok().filter(|place| *place < JobStatus::ALL.len());
    place.map(|place| JobStatus::ALL[place]).ok_or_else(|| format!("{number} is no state"))
}

impl Job {
    /// Reads a row of [`COLUMNS`]; why not, if it holds what nobody wrote.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, String> {
        let mut next = Columns { row, at: 0 };
        Self::columns(&mut next)?.whole()
    }

    fn columns(next: &mut Columns<'_>) -> Result<Self, String> {
        Ok(Self {
            seq: next.next()?,
            id: next.id()?,
            kind: next.next()?,
            status: status(next.next()?)?,
            terms: next.terms()?,
            payload_bytes: next.next()?,
            fingerprint: Digest(next.next()?),
            owner: next.next::<Option<[u8; 32]>>()?.map(Digest),
            key: next.next()?,
            repeatable: next.next()?,
            trace: next.trace()?,
            version: next.next()?,
            attempt: next.next()?,
            retries: next.next()?,
            losses: next.next()?,
            releases: next.next()?,
            order: next.next()?,
            created_at: next.time()?,
            updated_at: next.time()?,
            entered_at: next.time()?,
            runnable_since: next.time()?,
            due: next.maybe_time()?,
            started_at: next.maybe_time()?,
            ended_at: next.maybe_time()?,
            cancel_requested_at: next.maybe_time()?,
            current: next.maybe_uuid()?.map(LeaseToken),
            settled: next.maybe_status()?,
            last: next.maybe_uuid()?.map(LeaseToken).zip(next.maybe_status()?),
            lease_until: next.maybe_time()?,
            deadline: next.maybe_time()?,
            error: next.maybe_json()?,
            progress: next.maybe_json()?,
            span: next.next()?,
            retry_of: next.maybe_uuid()?.map(JobId),
            retried_by: next.maybe_uuid()?.map(JobId),
            log_lines: next.next()?,
            log_bytes: next.next()?,
        })
    }

    /// What its state stands on has to be there: a head of an index that never ends, say, would be in the way for ever.
    fn whole(self) -> Result<Self, String> {
        let missing = match self.status {
            JobStatus::Scheduled => self.due.is_none(),
            JobStatus::InProgress => self.started_at.is_none() || self.lease_until.is_none() || self.current.is_none(),
            status => status.is_terminal() && self.ended_at.is_none(),
        };
        if missing {
            return Err(format!("it is {} and a time of that is missing", self.status));
        }
        // One more of them, or a sum, would be no number.
        let small = [self.attempt, self.retries, self.losses, self.releases].iter().all(|count| *count < u32::MAX);
        let large = [self.version, self.order, self.log_lines, self.log_bytes];
        let counted = small && large.iter().all(|count| (0..MOST).contains(count));
        if counted { Ok(self) } else { Err("it holds a number that nobody counts to".to_owned()) }
    }

    /// Its place in the index of its state.
    pub(crate) fn score(&self) -> i64 {
        match self.status {
            JobStatus::Queued => ready_score(self.terms.priority, self.order),
            JobStatus::Scheduled => time_score(self.due.unwrap_or_default()),
            JobStatus::InProgress => time_score(self.started_at.unwrap_or_default()),
            JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => self.order,
        }
    }

    /// What it counts as.
    pub(crate) const fn counted(&self) -> (JobStatus, Priority, u32) {
        (self.status, self.terms.priority, self.attempt)
    }

    /// Until when it can be read, once it ended.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.ended_at.map(|ended| ended + self.terms.retention)
    }

    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// Until when readers are told that it is gone.
    pub(crate) fn gone_until(&self) -> Option<Timestamp> {
        self.expires_at().map(|at| at + self.terms.retention)
    }

    /// Whether `token` is the lease that it runs under.
    pub(crate) fn runs_under(&self, token: LeaseToken) -> bool {
        self.status == JobStatus::InProgress && self.current == Some(token)
    }

    /// What settling by `token` led to, if it did.
    pub(crate) fn settled_by(&self, token: LeaseToken) -> Option<JobStatus> {
        match self.last {
            _ if self.current == Some(token) => self.settled,
            Some((last, status)) if last == token => Some(status),
            _ => None,
        }
    }

    /// Adds its row; not if there is one of that id.
    pub(crate) fn insert(&self, conn: &Connection) -> Result<bool, Fail> {
        let sql = "INSERT INTO jobs (seq, id, type, status, score, priority, max_retries, max_losses, retention, \
            payload_bytes, fingerprint, owner, key, repeatable, traceparent, tracestate, version, attempt, retries, \
            losses, releases, ord, created_at, updated_at, entered_at, runnable_since, due, retry_of) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 0, 0, 0, 0, ?18, \
            ?19, ?19, ?19, ?20, ?21, ?22) ON CONFLICT (id) DO NOTHING";
        let terms = &self.terms;
        let rows = conn.prepare_cached(sql)?.execute(params![
            self.seq,
            self.id.0.as_bytes(),
            self.kind,
            self.status as i64,
            self.score(),
            terms.priority.get(),
            terms.max_retries,
            terms.max_losses,
            micros(terms.retention),
            self.payload_bytes,
            self.fingerprint.0,
            self.owner.map(|owner| owner.0),
            self.key,
            self.repeatable,
            self.trace.as_ref().map(|trace| &trace.traceparent),
            self.trace.as_ref().and_then(|trace| trace.tracestate.as_ref()),
            self.version,
            self.order,
            self.created_at.as_micros(),
            self.runnable_since.as_micros(),
            self.due.map(Timestamp::as_micros),
            self.retry_of.map(|id| id.0.into_bytes()),
        ])?;
        Ok(rows == 1)
    }

    /// Writes what can change.
    pub(crate) fn save(&self, conn: &Connection) -> Result<(), Fail> {
        let sql = "UPDATE jobs SET status = ?2, score = ?3, version = ?4, attempt = ?5, retries = ?6, losses = ?7, \
            releases = ?8, ord = ?9, updated_at = ?10, entered_at = ?11, runnable_since = ?12, due = ?13, \
            started_at = ?14, ended_at = ?15, cancel_requested_at = ?16, token = ?17, settled = ?18, \
            last_token = ?19, last_settled = ?20, lease_until = ?21, deadline = ?22, error = ?23, progress = ?24, \
            span = ?25, retried_by = ?26, log_lines = ?27, log_bytes = ?28 WHERE seq = ?1";
        let time = |time: Option<Timestamp>| time.map(Timestamp::as_micros);
        let token = |token: LeaseToken| token.0.into_bytes();
        conn.prepare_cached(sql)?.execute(params![
            self.seq,
            self.status as i64,
            self.score(),
            self.version,
            self.attempt,
            self.retries,
            self.losses,
            self.releases,
            self.order,
            self.updated_at.as_micros(),
            self.entered_at.as_micros(),
            self.runnable_since.as_micros(),
            time(self.due),
            time(self.started_at),
            time(self.ended_at),
            time(self.cancel_requested_at),
            self.current.map(token),
            self.settled.map(|status| status as i64),
            self.last.map(|(last, _)| token(last)),
            self.last.map(|(_, status)| status as i64),
            time(self.lease_until),
            time(self.deadline),
            self.error.as_ref().map(json).transpose()?,
            self.progress.as_ref().map(json).transpose()?,
            self.span,
            self.retried_by.map(|id| id.0.into_bytes()),
            self.log_lines,
            self.log_bytes,
        ])?;
        Ok(())
    }
}
