//! `/dashboard/jobs.csv`: the jobs of a filter as a file for spreadsheets.

use std::time::{Duration, Instant};

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{
    super::{content::Failure, view::View},
    filter::Filter,
};
use crate::{Jobs, core::limits::PAGE_JOBS, http::csv_for_operators};

/// Maximum number of jobs in a file.
pub(super) const JOBS: usize = 10_000;
/// No further page is read after this time.
const TIME: Duration = Duration::from_secs(10);

/// The jobs that match the filter, in the order of the list. The name of a file that lacks some of them says so.
pub(in super::super) async fn file(view: &View) -> Result<Response, Failure> {
    let filter = Filter::read(view)?;
    let (began, mut jobs, mut cursor) = (Instant::now(), Vec::new(), None);
    loop {
        let query = filter.matching().limit(PAGE_JOBS);
        let page = cursor.take().into_iter().fold(query, Jobs::cursor).await?;
        jobs.extend(page.jobs);
        cursor = page.next_cursor;
        if cursor.is_none() || jobs.len() >= JOBS || began.elapsed() > TIME {
            break;
        }
    }
    let disposition = match cursor {
        Some(_) => "attachment; filename=\"jobs-incomplete.csv\"",
        None => "attachment; filename=\"jobs.csv\"",
    };
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition)),
    ];
    Ok((head, csv_for_operators(&jobs)).into_response())
}
