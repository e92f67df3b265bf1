//! `GET /jobs`: a page of jobs. An owner gets its own jobs, an operator all.

use std::collections::HashSet;

use async_endpoints_core::{JobName, JobStatus, job::Digest};
use axum::response::Response;
use futures_util::future::join_all;
use serde::Serialize;

use super::{
    call::Call,
    codes,
    document::JobDocument,
    problem::{Problem, json},
};
use crate::jobs::{Jobs, ListError};

const LIMITS: std::ops::RangeInclusive<u32> = 1..=200;

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
    Ok(json("application/json", &Listed { jobs, next_cursor: page.next_cursor }))
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
}

/// The parameters of the request.
#[derive(Default)]
struct Query {
    status: Option<JobStatus>,
    name: Option<JobName>,
    owner: Option<Digest>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl Query {
    fn read(query: &str) -> Result<Self, Problem> {
        let (mut read, mut names) = (Self::default(), HashSet::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "status" => read.status = Some(status(&value)?),
                "name" => read.name = Some(JobName::new(&value).map_err(|error| invalid(error.to_string()))?),
                "owner" => read.owner = Some(owner(&value)?),
                "limit" => read.limit = Some(limit(&value)?),
                "cursor" => read.cursor = Some(value.into_owned()),
                _ => {
                    return Err(invalid(format!(
                        "{name:?} is unknown: expected status, name, owner, limit or cursor."
                    )));
                }
            }
            if let Some(name) = names.replace(name) {
                return Err(invalid(format!("{name} must occur once.")));
            }
        }
        Ok(read)
    }

    /// Narrows a query for jobs.
    fn of(self, jobs: Jobs<'_>) -> Jobs<'_> {
        let jobs = self.status.into_iter().fold(jobs, Jobs::status);
        let jobs = self.name.into_iter().fold(jobs, Jobs::name);
        let jobs = self.owner.into_iter().fold(jobs, Jobs::owner_digest);
        let jobs = self.limit.into_iter().fold(jobs, Jobs::limit);
        self.cursor.into_iter().fold(jobs, Jobs::cursor)
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    codes::INVALID_QUERY.with_detail(detail)
}

fn status(text: &str) -> Result<JobStatus, Problem> {
    let status = JobStatus::ALL.into_iter().find(|status| status.as_str() == text);
    let expected = || JobStatus::ALL.map(JobStatus::as_str).join(", ");
    status.ok_or_else(|| invalid(format!("status must be one of {}.", expected())))
}

/// The hash of an owner's name, as operators see it in a job.
fn owner(text: &str) -> Result<Digest, Problem> {
    Digest::from_hex(text).ok_or_else(|| invalid("owner must be 64 hexadecimal digits, as in the owner of a job."))
}

fn limit(text: &str) -> Result<u32, Problem> {
    let limit = text.parse().ok().filter(|limit| LIMITS.contains(limit) && text.bytes().all(|b| b.is_ascii_digit()));
    limit.ok_or_else(|| invalid(format!("limit must be {} to {}.", LIMITS.start(), LIMITS.end())))
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
        ] {
            assert!(Query::read(bad).is_err(), "{bad}");
        }
        let digest = Digest([0xa7; 32]);
        assert_eq!(Query::read(&format!("owner={digest}")).ok().and_then(|query| query.owner), Some(digest));
    }
}
