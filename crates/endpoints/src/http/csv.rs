//! A list of jobs as CSV (RFC 4180), for spreadsheets.

#[cfg(feature = "dashboard")]
use async_endpoints_core::JobView;

use super::document::JobDocument;

/// The header row: the paths of the values in the JSON of a job.
const COLUMNS: [&str; 24] = [
    "id",
    "name",
    "status",
    "attempt",
    "retryCount",
    "lossCount",
    "maxRetries",
    "priority",
    "createdAt",
    "scheduledAt",
    "startedAt",
    "completedAt",
    "lastUpdatedAt",
    "expiresAt",
    "cancelRequestedAt",
    "progress.percent",
    "progress.message",
    "error.code",
    "error.detail",
    "retryOf",
    "retriedBy",
    "traceId",
    "owner",
    "ownerLabel",
];

/// The header row and a row for each job. The last two cells are empty unless the documents are for operators.
pub(super) fn csv(jobs: &[JobDocument<'_>]) -> String {
    let mut text = COLUMNS.join(",");
    text.push_str("\r\n");
    for job in jobs {
        for (at, value) in row(job).iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            push_cell(&mut text, value);
        }
        text.push_str("\r\n");
    }
    text
}

/// The same for operators.
#[cfg(feature = "dashboard")]
pub(crate) fn csv_for_operators(jobs: &[JobView]) -> String {
    let document = |job| JobDocument { job, waiting: None, expected_wait: None, jobs: "", for_operator: true };
    csv(&jobs.iter().map(document).collect::<Vec<_>>())
}

fn row(document: &JobDocument<'_>) -> [String; COLUMNS.len()] {
    let job = document.job;
    let (progress, error) = (job.progress.as_ref(), job.error.as_ref());
    let owner = job.owner.filter(|_| document.for_operator);
    [
        job.id.to_string(),
        job.name.to_string(),
        job.status.to_string(),
        job.attempt.to_string(),
        job.retry_count.to_string(),
        job.loss_count.to_string(),
        job.max_retries.to_string(),
        job.priority.get().to_string(),
        job.created_at.to_string(),
        cell(job.scheduled_at),
        cell(job.started_at),
        cell(job.completed_at),
        job.last_updated_at.to_string(),
        cell(job.expires_at),
        cell(job.cancel_requested_at),
        cell(progress.and_then(|progress| progress.percent)),
        cell(progress.and_then(|progress| progress.message.as_ref())),
        cell(error.map(|error| &error.code)),
        cell(error.and_then(|error| error.detail.as_ref())),
        cell(job.retry_of),
        cell(job.retried_by),
        cell(job.trace.as_ref().map(|trace| trace.trace_id())),
        cell(owner),
        cell(job.owner_label.as_ref().filter(|_| owner.is_some())),
    ]
}

/// The text of a value. A value that a job does not have is an empty cell.
fn cell(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Appends a cell. A spreadsheet would run a text that starts like a formula, so such a text gets an apostrophe in front.
fn push_cell(text: &mut String, value: &str) {
    let is_formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_quoted = value.contains([',', '"', '\r', '\n']);
    if is_quoted {
        text.push('"');
    }
    if is_formula {
        text.push('\'');
    }
    if is_quoted {
        text.push_str(&value.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_formulas_are_text() {
        for (value, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("ends\n", "\"ends\n\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\rx", "\"'\rx\""),
            ("=HYPERLINK(\"a\",\"b\")", "\"'=HYPERLINK(\"\"a\"\",\"\"b\"\")\""),
            ("1=1", "1=1"),
            ("größe", "größe"),
        ] {
            let mut text = String::new();
            push_cell(&mut text, value);
            assert_eq!(text, expected, "{value:?}");
        }
    }
}
