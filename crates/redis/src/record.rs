//! Decodes stored jobs. Knows nothing of how they are written.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Priority, Timestamp,
    job::{AttemptOutcome, AttemptRecord, Digest, ErrorRecord, LogLine, Progress, TraceContext},
    lifecycle,
    store::{JobLookup, WorkerId},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    fail::Fail,
    reply::{self, Items, list, number, parse},
};

/// Decodes an answer of `lookup.lua`.
pub(crate) fn lookup(answer: redis::Value) -> Result<JobLookup, Fail> {
    let mut found = list(answer)?;
    Ok(match found.int()? {
        0 => JobLookup::NotFound,
        1 => JobLookup::Gone { owner: digest(found.bytes()?)? },
        2 => {
            let view = view(&mut found)?;
            JobLookup::Found(Box::new(JobView { ahead: found.maybe_number()?, ..view }))
        }
        other => return Err(Fail::unknown(other)),
    })
}

/// Decodes the payload of `payload.lua`.
pub(crate) fn payload(answer: redis::Value) -> Result<Option<Bytes>, Fail> {
    let mut found = list(answer)?;
    if found.int()? == 0 {
        return Ok(None);
    }
    let payload = found.maybe()?.ok_or_else(|| Fail::Unreadable("the job has no payload".to_owned()))?;
    Ok(Some(payload.into()))
}

/// Decodes a job of `list.lua`.
pub(crate) fn listed(job: redis::Value) -> Result<JobView, Fail> {
    view(&mut list(job)?)
}

/// Decodes id, fields, outcome and attempts.
fn view(of: &mut Items) -> Result<JobView, Fail> {
    let id = id(&of.bytes()?)?;
    let (fields, outcome, past) = (of.list()?, of.maybe()?, of.list()?);
    let read = Record::read(fields).and_then(|record| record.view(id, outcome, past));
    read.map_err(|fail| match fail {
        Fail::Corrupt(why) => Fail::Unreadable(format!("job {id}: {why}")),
        other => other,
    })
}

pub(crate) fn id(bytes: &[u8]) -> Result<JobId, Fail> {
    parse(bytes, "job id")
}

pub(crate) fn name(bytes: Vec<u8>) -> Result<JobName, Fail> {
    JobName::new(&reply::text(bytes)?).map_err(|bad| Fail::Corrupt(bad.to_string()))
}

pub(crate) fn status(number: i64) -> Result<JobStatus, Fail> {
    let status = usize::try_from(number).ok().and_then(|number| JobStatus::ALL.get(number));
    status.copied().ok_or_else(|| Fail::Corrupt(format!("invalid state {number}: expected 0 to 5")))
}

pub(crate) fn trace(traceparent: Option<String>, tracestate: Option<String>) -> Option<TraceContext> {
    Some(TraceContext { traceparent: traceparent?.parse().ok()?, tracestate })
}

/// The part of a job's terms (`lua/terms.lua`) that readers need.
pub(crate) struct Terms {
    pub(crate) created_at: Timestamp,
    pub(crate) priority: Priority,
    pub(crate) max_retries: u32,
    retention: Duration,
}

impl Terms {
    pub(crate) fn read(text: &[u8]) -> Result<Self, Fail> {
        let mut values = text.split(|byte| *byte == b' ').skip(1);
        let mut value = || values.next().ok_or_else(|| Fail::Corrupt("the terms are too short".to_owned()));
        let created_at = Timestamp::from_micros(number(value()?)?);
        let priority = Priority::try_from(number::<u8>(value()?)?).map_err(|error| Fail::Corrupt(error.to_owned()))?;
        let (max_retries, _, retention) = (number(value()?)?, value()?, number(value()?)?);
        let retention = Duration::from_micros(retention);
        Ok(Self { created_at, priority, max_retries, retention })
    }
}

pub(crate) fn digest(bytes: Vec<u8>) -> Result<Option<Digest>, Fail> {
    match bytes.try_into() {
        Ok(digest) => Ok(Some(Digest(digest))),
        Err(none) if none.is_empty() => Ok(None),
        Err(other) => Err(Fail::Corrupt(format!("invalid digest of {} bytes: expected 32", other.len()))),
    }
}

/// The error does not quote the JSON, as serde's would: it is logged.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fail> {
    serde_json::from_slice(bytes).map_err(|error| Fail::Corrupt(format!("invalid JSON at byte {}", error.column())))
}

/// A time in microseconds; `None` for an empty field.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, Fail> {
    if bytes.is_empty() { Ok(None) } else { number(bytes).map(|micros| Some(Timestamp::from_micros(micros))) }
}

/// The fields of a job's hash, listed in `lua/README.md`. Fields of a later version are skipped.
#[derive(Default)]
struct Record {
    name: Option<JobName>,
    status: Option<JobStatus>,
    version: Option<u64>,
    terms: Option<Terms>,
    updated_at: Option<Timestamp>,
    due: Option<Timestamp>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    cancel_requested_at: Option<Timestamp>,
    attempt: u32,
    worker: Option<WorkerId>,
    retries: u32,
    losses: u32,
    releases: u32,
    progress: ProgressFields,
    owner: Option<Digest>,
    owner_label: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    retry_of: Option<JobId>,
    retried_by: Option<JobId>,
}

#[derive(Default)]
struct ProgressFields {
    completed: u64,
    total: Option<u64>,
    percent: Option<f64>,
    message: Option<String>,
    at: Option<Timestamp>,
}

fn maybe<T: std::str::FromStr>(bytes: &[u8]) -> Result<Option<T>, Fail> {
    if bytes.is_empty() { Ok(None) } else { number(bytes).map(Some) }
}

impl Record {
    fn read(mut fields: Items) -> Result<Self, Fail> {
        let mut record = Self::default();
        while fields.len() > 0 {
            let (field, value) = (fields.bytes()?, fields.bytes()?);
            record.set(&field, value)?;
        }
        Ok(record)
    }

    fn set(&mut self, field: &[u8], value: Vec<u8>) -> Result<(), Fail> {
        match field {
            b"t" => self.name = Some(name(value)?),
            b"s" => self.status = Some(status(number(&value)?)?),
            b"n" => self.version = Some(number(&value)?),
            b"w" => self.terms = Some(Terms::read(&value)?),
            b"u" => self.updated_at = time(&value)?,
            b"du" => self.due = time(&value)?,
            b"st" => self.started_at = time(&value)?,
            b"en" => self.ended_at = time(&value)?,
            b"cr" => self.cancel_requested_at = time(&value)?,
            b"a" => self.attempt = number(&value)?,
            b"wk" => self.worker = worker(&value)?,
            b"r" => self.retries = number(&value)?,
            b"l" => self.losses = number(&value)?,
            b"x" => self.releases = number(&value)?,
            b"pc" => self.progress.completed = number(&value)?,
            b"pt" => self.progress.total = maybe(&value)?,
            b"pp" => self.progress.percent = maybe(&value)?,
            b"pm" if value.is_empty() => {}
            b"pm" => {
                let text = value.strip_prefix(b"=");
                let text = text.ok_or_else(|| Fail::Corrupt("a progress message has no `=`".to_owned()))?;
                self.progress.message = Some(reply::text(text.to_vec())?);
            }
            b"pu" => self.progress.at = time(&value)?,
            b"o" => self.owner = digest(value)?,
            b"ol" => self.owner_label = Some(reply::text(value)?),
            b"tp" => self.traceparent = Some(reply::text(value)?),
            b"ts" => self.tracestate = Some(reply::text(value)?),
            b"ro" => self.retry_of = Some(id(&value)?),
            b"rb" => self.retried_by = Some(id(&value)?),
            _ => {}
        }
        Ok(())
    }

    fn view(self, id: JobId, outcome: Option<Vec<u8>>, past: Items) -> Result<JobView, Fail> {
        let missing = |what| Fail::Corrupt(format!("it has no {what}"));
        let status = self.status.ok_or_else(|| missing("state"))?;
        let attempts = self.attempts(status, past)?;
        let Terms { created_at, priority, max_retries, retention } = self.terms.ok_or_else(|| missing("terms"))?;
        let (result, error) = match (status, outcome) {
            (JobStatus::Completed, Some(result)) => (Some(Bytes::from(result)), None),
            (_, Some(error)) => (None, Some(json::<ErrorRecord>(&error)?)),
            (_, None) => (None, None),
        };
        let progress = self.progress;
        Ok(JobView {
            id,
            name: self.name.ok_or_else(|| missing("type"))?,
            status,
            attempt: self.attempt,
            retry_count: self.retries,
            loss_count: self.losses,
            release_count: self.releases,
            max_retries,
            priority,
            version: self.version.unwrap_or(1),
            created_at,
            scheduled_at: self.due,
            started_at: self.started_at,
            completed_at: self.ended_at,
            last_updated_at: self.updated_at.max(self.started_at).max(self.ended_at).unwrap_or(created_at),
            expires_at: lifecycle::expires_at(self.ended_at, retention),
            cancel_requested_at: self.cancel_requested_at,
            progress: progress.at.map(|updated_at| Progress {
                completed: progress.completed,
                total: progress.total,
                percent: progress.percent,
                message: progress.message,
                updated_at,
            }),
            result,
            error,
            attempts,
            ahead: None,
            retry_of: self.retry_of,
            retried_by: self.retried_by,
            trace: trace(self.traceparent, self.tracestate),
            owner: self.owner,
            owner_label: self.owner_label,
        })
    }

    fn attempts(&self, status: JobStatus, past: Items) -> Result<Vec<AttemptRecord>, Fail> {
        let mut attempts = Vec::with_capacity(past.len() + 1);
        for one in past {
            attempts.push(attempt(&reply::maybe(one)?.unwrap_or_default())?);
        }
        Ok(lifecycle::attempts(attempts, status, self.attempt, self.worker, self.started_at, self.ended_at))
    }
}

/// A worker's id; `None` for an empty text.
fn worker(text: &[u8]) -> Result<Option<WorkerId>, Fail> {
    if text.is_empty() { Ok(None) } else { parse(text, "worker id").map(|id| Some(WorkerId(id))) }
}

/// Decodes an ended attempt of `finish.lua`: number, start, end, outcome, worker, error. Attempts recorded by an earlier
/// version have no worker.
fn attempt(record: &[u8]) -> Result<AttemptRecord, Fail> {
    let mut parts = record.splitn(5, |byte| *byte == b' ');
    let mut part = || parts.next().ok_or_else(|| Fail::Corrupt("an attempt is too short".to_owned()));
    let (attempt, started_at, ended_at) = (number(part()?)?, time(part()?)?, time(part()?)?);
    let outcome = AttemptOutcome::ALL.get(number::<usize>(part()?)?);
    let rest = part()?;
    let (worker_id, error) = match rest.iter().position(|byte| *byte == b' ') {
        Some(at) if !rest.starts_with(b"{") => (&rest[..at], &rest[at + 1..]),
        _ => (&b""[..], rest),
    };
    Ok(AttemptRecord {
        attempt,
        worker: worker(worker_id)?,
        started_at: started_at.ok_or_else(|| Fail::Corrupt("an attempt has no start".to_owned()))?,
        ended_at,
        outcome: Some(*outcome.ok_or_else(|| Fail::Corrupt("an attempt has an unknown outcome".to_owned()))?),
        error: if error.is_empty() { None } else { Some(json(error)?) },
    })
}

/// Decodes a log line of `report.lua`: number, attempt, size, JSON.
pub(crate) fn line(record: redis::Value) -> Result<LogLine, Fail> {
    let record = reply::maybe(record)?.unwrap_or_default();
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let mut part = || parts.next().ok_or_else(|| Fail::Corrupt("a log line is too short".to_owned()));
    let (line, attempt, _, text) = (number(part()?)?, number(part()?)?, part()?, part()?);
    Ok(LogLine { line, attempt, ..json(text)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_is_read_with_and_without_worker() {
        let error = r#"{"code":"A b","title":"","status":500,"retryable":true,"detail":"c d"}"#;
        let id = "0af76519-16cd-43dd-8448-eb211c80319c";
        let known = Some(WorkerId(id.parse().expect("an id")));
        for (rest, worker, code) in [
            (String::new(), None, None),
            (error.to_owned(), None, Some("A b")),
            (" ".to_owned(), None, None),
            (format!("{id} "), known, None),
            (format!("{id} {error}"), known, Some("A b")),
        ] {
            let Ok(read) = attempt(format!("3 7 9 4 {rest}").as_bytes()) else { panic!("{rest:?} is refused") };
            assert_eq!((read.worker, read.error.as_ref().map(|error| &*error.code)), (worker, code), "{rest:?}");
        }
        assert!(attempt(b"3 7 9 4 someone ").is_err());
    }
}
