//! `GET /jobs`: for operators, the jobs page by page.

use std::{borrow::Cow, collections::HashSet};

use async_endpoints_core::{
    JobId, JobName, JobStatus, Timestamp,
    store::{Cursor, ListFilter, Page},
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};

use super::{call::Call, document::JobDocument, problem::Problem};
use crate::store_call::within;

const LIMIT: u32 = 50;
const LIMITS: std::ops::RangeInclusive<u32> = 1..=200;

pub(super) async fn list(call: &Call) -> Result<Response, Problem> {
    let (filter, page) = read(call.query())?;
    let page = within(call.endpoints.store().list(&filter, &page)).await?;
    // The store knows of no owners' lists, so a page may be short: who sees everything is the operators' matter.
    let seen = page.jobs.iter().filter(|job| call.sees.sees(job.owner));
    let jobs = join_all(seen.map(|job| call.document(job))).await;
    let next_cursor = page.next.map(|cursor| write_cursor(&filter, cursor));
    Ok(answer(&jobs, next_cursor.as_deref()))
}

fn answer(jobs: &[JobDocument<'_>], next_cursor: Option<&str>) -> Response {
    let mut out = b"{\"jobs\":[".to_vec();
    for (i, job) in jobs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        job.write(&mut out);
    }
    // A cursor is hexadecimal.
    let next_cursor = next_cursor.map_or("null".to_owned(), |cursor| format!("\"{cursor}\""));
    out.extend_from_slice(format!("],\"nextCursor\":{next_cursor}}}").as_bytes());
    ([(header::CONTENT_TYPE, "application/json")], out).into_response()
}

/// Which part of which list a query asks for.
fn read(query: &str) -> Result<(ListFilter, Page), Problem> {
    let (mut filter, mut page) = (ListFilter::default(), Page { cursor: None, limit: LIMIT });
    let (mut names, mut cursor) = (HashSet::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "status" => filter.status = Some(status(&value)?),
            "name" => filter.name = Some(JobName::new(&value).map_err(|e| Problem::invalid_query(e.to_string()))?),
            "limit" => page.limit = limit(&value)?,
            "cursor" => cursor = Some(value),
            _ => return Err(Problem::invalid_query("There are status, name, limit and cursor.")),
        }
        if !names.insert(name.into_owned()) {
            return Err(Problem::invalid_query("Each parameter comes once."));
        }
    }
    page.cursor = cursor.map(|text: Cow<'_, str>| read_cursor(&filter, &text)).transpose()?;
    Ok((filter, page))
}

fn status(text: &str) -> Result<JobStatus, Problem> {
    let status = JobStatus::ALL.into_iter().find(|status| status.as_str() == text);
    status.ok_or_else(|| {
        Problem::invalid_query(format!("status is one of {}.", JobStatus::ALL.map(|s| s.as_str()).join(", ")))
    })
}

fn limit(text: &str) -> Result<u32, Problem> {
    let limit = text.parse().ok().filter(|limit| LIMITS.contains(limit) && text.bytes().all(|b| b.is_ascii_digit()));
    limit.ok_or_else(|| Problem::invalid_query(format!("limit is {} to {}.", LIMITS.start(), LIMITS.end())))
}

/// A cursor as clients carry it: time, score and id in hexadecimal, and which list it belongs to.
fn write_cursor(filter: &ListFilter, cursor: Cursor) -> String {
    format!("{:016x}{:016x}{:032x}{}", cursor.since.as_micros(), cursor.score, cursor.id.0.as_u128(), mark(filter))
}

fn read_cursor(filter: &ListFilter, text: &str) -> Result<Cursor, Problem> {
    let parse = || {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let (place, list) = text.split_at_checked(64).filter(|_| digits)?;
        let since = i64::from_str_radix(&place[..16], 16).ok()?;
        let score = u64::from_str_radix(&place[16..32], 16).ok()?;
        let id = u128::from_str_radix(&place[32..], 16).ok()?;
        let cursor = Cursor { since: Timestamp::from_micros(since), score, id: JobId(uuid::Uuid::from_u128(id)) };
        (list == mark(filter)).then_some(cursor)
    };
    let wrong = "cursor is the nextCursor of a page of the same status and name.";
    parse().ok_or_else(|| Problem::invalid_query(wrong))
}

/// Tells lists apart: their orders differ, so a cursor of one means nothing in another.
fn mark(filter: &ListFilter) -> String {
    let status = filter.status.map_or("", JobStatus::as_str);
    let name = filter.name.as_ref().map_or("", JobName::as_str);
    let digest = Sha256::digest(format!("{status} {name}"));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_and_belongs_to_one_list() {
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
    fn what_no_list_is_is_told() {
        assert!(read("").is_ok() && read("limit=200&name=a&status=Queued").is_ok());
        for bad in
            ["limit=0", "limit=201", "limit=%2B1", "limit=", "status=queued", "name=a%20b", "limit=1&limit=1", "x=1"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
