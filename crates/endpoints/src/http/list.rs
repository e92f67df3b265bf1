//! `GET /jobs`: a page of jobs as JSON or CSV. An owner gets its own jobs, an operator all.

use async_endpoints_core::{JobName, JobStatus, Timestamp, job::Digest};
use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::future::join_all;
use serde::Serialize;

use super::{
    call::Call,
    csv::csv,
    document::JobDocument,
    headers,
    problem::{Problem, json},
    query::{self, invalid},
};
use crate::jobs::{Jobs, ListError};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

const LIMITS: std::ops::RangeInclusive<u64> = 1..=200;
/// Maximum characters of an error code, and of a text to search for.
const CODE_CHARS: usize = 100;
const TEXT_CHARS: usize = 200;

pub(super) async fn list(call: &Call) -> Result<Response, Problem> {
    let query = Query::read(call.query())?;
    let page = match call.visibility.owner().filter(|_| !call.is_operator()) {
        Some(_) if query.owner.is_some() => {
            return Err(invalid("owner is for operators: other callers get their own jobs."));
        }
        Some(own) => query.of(call.endpoints.jobs().owner_digest(own.digest())).await,
        None => query.of(call.endpoints.jobs()).await,
    };
    let page = page?;
    let jobs = join_all(page.jobs.iter().map(|job| call.document(job))).await;
    let mut response = if headers::best_type(call.headers(), &[JSON, CSV]) == Some(CSV) {
        let next = page.next_cursor.as_deref().and_then(|cursor| next_link(call, cursor));
        let next = next.map(|next| [(header::LINK, next)]);
        (next, [(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], csv(&jobs)).into_response()
    } else {
        let (scanned, complete) = (page.scanned, page.is_complete());
        json(JSON, &Listed { jobs, next_cursor: page.next_cursor, scanned, complete })
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// The link to the next page: the same request with another cursor.
fn next_link(call: &Call, cursor: &str) -> Option<HeaderValue> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(form_urlencoded::parse(call.query().as_bytes()).filter(|(name, _)| name != "cursor"));
    let query = query.append_pair("cursor", cursor).finish();
    HeaderValue::try_from(format!("<{}?{query}>; rel=\"next\"", call.jobs_path())).ok()
}

/// Routes of the application can use it, too.
impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::InvalidCursor => invalid("cursor must be the nextCursor of a page with the same filters."),
            ListError::Name(error) => invalid(error.to_string()),
            ListError::Store(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    jobs: Vec<JobDocument<'a>>,
    next_cursor: Option<String>,
    scanned: u32,
    complete: bool,
}

/// The parameters of the request.
#[derive(Default)]
struct Query {
    status: Option<JobStatus>,
    name: Option<JobName>,
    owner: Option<Digest>,
    code: Option<String>,
    text: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl Query {
    fn read(query: &str) -> Result<Self, Problem> {
        let names = ["status", "name", "owner", "code", "q", "since", "until", "limit", "cursor"];
        let [status, name, owner, code, q, since, until, limit, cursor] = query::read(query, names)?;
        let read = Self {
            status: status.as_deref().map(read_status).transpose()?,
            name: name.as_deref().map(JobName::new).transpose().map_err(|error| invalid(error.to_string()))?,
            owner: owner.as_deref().map(read_owner).transpose()?,
            code: code.map(|code| text("code", code, CODE_CHARS)).transpose()?,
            text: q.map(|q| text("q", q, TEXT_CHARS)).transpose()?,
            since: since.map(|since| time("since", &since)).transpose()?,
            until: until.map(|until| time("until", &until)).transpose()?,
            limit: limit.as_deref().map(read_limit).transpose()?,
            cursor,
        };
        if let (Some(since), Some(until)) = (read.since, read.until)
            && since > until
        {
            return Err(invalid("since must not be after until."));
        }
        Ok(read)
    }

    /// Narrows a query for jobs.
    fn of(self, jobs: Jobs<'_>) -> Jobs<'_> {
        let jobs = self.status.into_iter().fold(jobs, Jobs::status);
        let jobs = self.name.into_iter().fold(jobs, Jobs::name);
        let jobs = self.owner.into_iter().fold(jobs, Jobs::owner_digest);
        let jobs = self.code.into_iter().fold(jobs, Jobs::code);
        let jobs = self.text.into_iter().fold(jobs, Jobs::text);
        let jobs = self.since.into_iter().fold(jobs, Jobs::since);
        let jobs = self.until.into_iter().fold(jobs, Jobs::until);
        let jobs = self.limit.into_iter().fold(jobs, Jobs::limit);
        self.cursor.into_iter().fold(jobs, Jobs::cursor)
    }
}

fn read_status(text: &str) -> Result<JobStatus, Problem> {
    let status = JobStatus::ALL.into_iter().find(|status| status.as_str() == text);
    let expected = || JobStatus::ALL.map(JobStatus::as_str).join(", ");
    status.ok_or_else(|| invalid(format!("status must be one of {}.", expected())))
}

/// The hash of an owner's name, as operators see it in a job.
fn read_owner(text: &str) -> Result<Digest, Problem> {
    Digest::from_hex(text).ok_or_else(|| invalid("owner must be 64 hexadecimal digits, as in the owner of a job."))
}

fn text(parameter: &str, value: String, most: usize) -> Result<String, Problem> {
    let fits = (1..=most).contains(&value.chars().count());
    if fits { Ok(value) } else { Err(invalid(format!("{parameter} must have 1 to {most} characters."))) }
}

/// A time. An offset such as `+01:00` needs its `+` escaped, since a query has `+` for a space.
fn time(parameter: &str, value: &str) -> Result<Timestamp, Problem> {
    let example = "2026-11-29T12:00:00Z or 2026-11-29T12:00:00%2B01:00";
    value.parse().map_err(|_| invalid(format!("{parameter} must be a time as RFC 3339 writes it: {example}.")))
}

fn read_limit(text: &str) -> Result<u32, Problem> {
    // The bounds fit.
    query::number("limit", text, LIMITS).map(|limit| limit as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_query_is_rejected() {
        assert!(Query::read("").is_ok() && Query::read("limit=200&name=a&status=Queued").is_ok());
        for bad in [
            "limit=0",
            "limit=201",
            "limit=%2B1",
            "limit=",
            "status=queued",
            "name=a%20b",
            "limit=1&limit=1",
            "x=1",
            "owner=ada",
            "code=",
            &format!("code={}", "A".repeat(101)),
            "q=",
            &format!("q={}", "ä".repeat(201)),
            "since=yesterday",
            "since=2026-11-29",
            "until=2026-11-29T12:00:00",
            "until=2026-11-29T12:00:00+01:00",
            "until=1764417600",
            "since=2026-11-29T12:00:01Z&until=2026-11-29T12:00:00Z",
        ] {
            assert!(Query::read(bad).is_err(), "{bad}");
        }
        let query = Query::read("code=A&q=%C3%A4+b&since=2026-11-29T13:00:00%2B01:00&until=2026-11-29T12:00:00.5Z");
        let query = query.unwrap_or_default();
        assert_eq!((query.code.as_deref(), query.text.as_deref()), (Some("A"), Some("ä b")));
        let times = [query.since, query.until].map(|time| time.map(|time| time.to_string()).unwrap_or_default());
        assert_eq!(times, ["2026-11-29T12:00:00.000000Z", "2026-11-29T12:00:00.500000Z"]);
        let digest = Digest([0xa7; 32]);
        assert_eq!(Query::read(&format!("owner={digest}")).ok().and_then(|query| query.owner), Some(digest));
    }
}
