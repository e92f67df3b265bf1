//! `GET /jobs`: a page of jobs. An owner gets its own jobs, an operator all.

use std::{borrow::Cow, collections::HashSet};

use async_endpoints_core::{
    JobId, JobName, JobStatus, Timestamp,
    store::{Cursor, ListFilter, Page},
};
use axum::response::Response;
use futures_util::future::join_all;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    call::Call,
    codes,
    document::JobDocument,
    problem::{Problem, json},
};
use crate::store_call::within;

const LIMIT: u32 = 50;
const LIMITS: std::ops::RangeInclusive<u32> = 1..=200;

pub(super) async fn list(call: &Call) -> Result<Response, Problem> {
    let (filter, page) = read(call.query())?;
    let page = within(call.endpoints.store().list(&filter, &page)).await?;
    // Stores do not filter by owner, so a page may be short for owners.
    let seen = page.jobs.iter().filter(|job| call.sees(job.owner));
    let jobs = join_all(seen.map(|job| call.document(job))).await;
    let next_cursor = page.next.map(|cursor| write_cursor(&filter, cursor));
    Ok(json("application/json", &JobPage { jobs, next_cursor }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobPage<'a> {
    jobs: Vec<JobDocument<'a>>,
    next_cursor: Option<String>,
}

/// Reads filter and page from the query.
fn read(query: &str) -> Result<(ListFilter, Page), Problem> {
    let (mut filter, mut page) = (ListFilter::default(), Page { cursor: None, limit: LIMIT });
    let (mut names, mut cursor) = (HashSet::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "status" => filter.status = Some(status(&value)?),
            "name" => filter.name = Some(JobName::new(&value).map_err(|e| invalid(e.to_string()))?),
            "limit" => page.limit = limit(&value)?,
            "cursor" => cursor = Some(value),
            _ => return Err(invalid(format!("{name:?} is unknown: expected status, name, limit or cursor."))),
        }
        if let Some(name) = names.replace(name) {
            return Err(invalid(format!("{name} must occur once.")));
        }
    }
    page.cursor = cursor.map(|text: Cow<'_, str>| read_cursor(&filter, &text)).transpose()?;
    Ok((filter, page))
}

fn invalid(detail: impl Into<String>) -> Problem {
    codes::INVALID_QUERY.with_detail(detail)
}

fn status(text: &str) -> Result<JobStatus, Problem> {
    let status = JobStatus::ALL.into_iter().find(|status| status.as_str() == text);
    let expected = || JobStatus::ALL.map(JobStatus::as_str).join(", ");
    status.ok_or_else(|| invalid(format!("status must be one of {}.", expected())))
}

fn limit(text: &str) -> Result<u32, Problem> {
    let limit = text.parse().ok().filter(|limit| LIMITS.contains(limit) && text.bytes().all(|b| b.is_ascii_digit()));
    limit.ok_or_else(|| invalid(format!("limit must be {} to {}.", LIMITS.start(), LIMITS.end())))
}

/// Writes a cursor: time, score and id in hexadecimal, then the hash of the filter.
fn write_cursor(filter: &ListFilter, cursor: Cursor) -> String {
    format!(
        "{:016x}{:016x}{:032x}{}",
        cursor.since.as_micros(),
        cursor.score,
        cursor.id.0.as_u128(),
        filter_hash(filter)
    )
}

fn read_cursor(filter: &ListFilter, text: &str) -> Result<Cursor, Problem> {
    let parse = || {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let (place, list) = text.split_at_checked(64).filter(|_| digits)?;
        let since = i64::from_str_radix(&place[..16], 16).ok()?;
        let score = u64::from_str_radix(&place[16..32], 16).ok()?;
        let id = u128::from_str_radix(&place[32..], 16).ok()?;
        let cursor = Cursor { since: Timestamp::from_micros(since), score, id: JobId(uuid::Uuid::from_u128(id)) };
        (list == filter_hash(filter)).then_some(cursor)
    };
    parse().ok_or_else(|| invalid("cursor must be the nextCursor of a page with the same status and name."))
}

/// A short hash of the filter. Lists of different filters have different orders, so a cursor is valid for one filter.
fn filter_hash(filter: &ListFilter) -> String {
    let status = filter.status.map_or("", JobStatus::as_str);
    let name = filter.name.as_ref().map_or("", JobName::as_str);
    let digest = Sha256::digest(format!("{status} {name}"));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trips_for_one_filter() {
        let failed = ListFilter { status: Some(JobStatus::Failed), name: None };
        let cursor = Cursor { since: Timestamp::from_micros(1 << 50), score: u64::MAX, id: JobId::random() };
        let text = write_cursor(&failed, cursor);
        assert_eq!(read_cursor(&failed, &text).ok(), Some(cursor));
        assert_eq!(read(&format!("cursor={text}&status=Failed")).ok().and_then(|(_, page)| page.cursor), Some(cursor));
        assert!(read_cursor(&ListFilter::default(), &text).is_err());
        for bad in ["", "x", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"é".repeat(40)] {
            assert!(read_cursor(&failed, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_query_is_rejected() {
        assert!(read("").is_ok() && read("limit=200&name=a&status=Queued").is_ok());
        for bad in
            ["limit=0", "limit=201", "limit=%2B1", "limit=", "status=queued", "name=a%20b", "limit=1&limit=1", "x=1"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
