//! `GET /jobs/{id}/logs`: the log lines of a job's handler, as JSON lines, as text, or as an event stream.

use std::{collections::VecDeque, convert::Infallible, fmt::Write, time::Duration};

use async_endpoints_core::{JobId, JobStatus, StoreError, job::LogLine, store::JobLookup};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    call::Call,
    codes,
    events::{self, COMMENT, HEARTBEAT, OPENING},
    headers,
    problem::Problem,
};
use crate::{hub::Follower, store_call::within};

const NDJSON: &str = "application/x-ndjson";
const TEXT: &str = "text/plain";
const EVENTS: &str = "text/event-stream";
/// Lines per read of the store.
const LINES: u32 = 500;
/// Polling interval for the lines of a running job. A new line does not change the job, so the store sends no hint.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn logs(call: Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let available = [NDJSON, TEXT, EVENTS];
    let content_type = headers::best_type(call.headers(), &available).ok_or_else(|| {
        let detail = format!("The Accept header must allow one of {}.", available.join(", "));
        let problem = codes::NOT_ACCEPTABLE.with_detail(detail);
        problem.with_header(header::VARY, HeaderValue::from_static("Accept"))
    })?;
    if content_type == EVENTS {
        return follow(call, id).await;
    }
    let write = if content_type == TEXT { text } else { json };
    // The first lines are read before the response starts, so that an error can still be a problem response.
    let first = within::<_, Problem>(async {
        call.found(call.endpoints.job(id).await?)?;
        Ok(read(&call, id, 0).await?)
    });
    let first = first.await?;
    let after = next_after(&first);
    let rest = stream::unfold((call, after), move |(call, after)| async move {
        let lines = read(&call, id, after?).await.map(|lines| (next_after(&lines), lines));
        Some(match lines {
            Ok((after, lines)) => (Ok(lines), (call, after)),
            // Aborts the response, so that the client sees that it is incomplete.
            Err(error) => (Err(error), (call, None)),
        })
    });
    let lines = stream::iter([Ok(first)]).chain(rest);
    let body = lines.map(move |lines| lines.map(|lines| Bytes::from(lines.iter().map(write).collect::<String>())));
    let content_type = if content_type == TEXT { "text/plain; charset=utf-8" } else { NDJSON };
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::VARY, HeaderValue::from_static("Accept")),
    ];
    Ok((head, Body::from_stream(body)).into_response())
}

async fn read(call: &Call, id: JobId, after: u64) -> Result<Vec<LogLine>, StoreError> {
    within(call.endpoints.store().logs(id, after, LINES)).await
}

/// The line after which the next read starts; `None` after the last line.
fn next_after(lines: &[LogLine]) -> Option<u64> {
    lines.last().filter(|_| lines.len() == LINES as usize).map(|line| line.line)
}

fn json(line: &LogLine) -> String {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// `2026-11-22T12:49:33.759604Z INFO 1 the message key=value`. Control characters are escaped, so each entry is one line.
fn text(line: &LogLine) -> String {
    let LogLine { timestamp, level, attempt, message, fields, .. } = line;
    let mut text = format!("{timestamp} {level} {attempt} ");
    for c in message.chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    for (name, value) in fields {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " {name}={value}");
    }
    text.push('\n');
    text
}

/// An event stream of lines with their numbers as ids, until the job has ended and its last line was sent.
async fn follow(call: Call, id: JobId) -> Result<Response, Problem> {
    let follower = call.endpoints.follow(id).ok_or(codes::TOO_MANY_STREAMS)?;
    let last_read = headers::last_event_id(call.headers()).unwrap_or(0);
    let (job, lines) = within::<_, Problem>(async {
        let lookup = call.endpoints.job(id).await?;
        follower.saw(&lookup);
        let job = call.found(lookup)?;
        // Read after the job: if the job has ended, all its lines are stored.
        Ok((job, read(&call, id, last_read).await?))
    })
    .await?;
    let (version, status) = (job.version, job.status);
    if status.is_terminal() && lines.is_empty() {
        // The client has all lines, or there are none. 204 makes browsers stop reconnecting.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut log = LogStream {
        call,
        id,
        follower,
        version,
        status,
        more: false,
        complete: false,
        last_read,
        lines: VecDeque::new(),
        sent: Instant::now(),
    };
    log.set_lines(lines);
    let rest = stream::unfold(Some(log), |log| async { next(log?).await });
    Ok(events::response(stream::iter([Ok(Bytes::from_static(OPENING.as_bytes()))]).chain(rest)))
}

struct LogStream {
    call: Call,
    id: JobId,
    follower: Follower,
    /// The job's version, as last read.
    version: u64,
    status: JobStatus,
    /// The last read was full, so more lines may be stored.
    more: bool,
    /// The job has ended, and all its lines were read since.
    complete: bool,
    /// The number of the last line that was read.
    last_read: u64,
    lines: VecDeque<LogLine>,
    /// When the last chunk was sent.
    sent: Instant,
}

type Chunk = Result<Bytes, Infallible>;

async fn next(mut log: LogStream) -> Option<(Chunk, Option<LogStream>)> {
    loop {
        let chunk = match log.lines.pop_front() {
            Some(line) => format!("id: {}\ndata: {}\n\n", line.line, json(&line).trim_end()).into(),
            None if log.complete => return None,
            None if log.sent.elapsed() >= HEARTBEAT => Bytes::from_static(COMMENT.as_bytes()),
            None => {
                if log.more || log.wait().await? {
                    log.read_more().await;
                }
                continue;
            }
        };
        log.sent = Instant::now();
        return Some((Ok(chunk), Some(log)));
    }
}

impl LogStream {
    fn set_lines(&mut self, lines: Vec<LogLine>) {
        self.more = lines.len() == LINES as usize;
        self.complete = self.status.is_terminal() && !self.more;
        self.last_read = lines.last().map_or(self.last_read, |line| line.line);
        self.lines = lines.into();
    }

    /// Reads new lines. After an error, the next poll reads them.
    async fn read_more(&mut self) {
        self.more = false;
        if let Ok(lines) = read(&self.call, self.id, self.last_read).await {
            self.set_lines(lines);
        }
    }

    /// Waits until new lines are possible (`true`) or a comment is due. `None` when the job is gone or this process has
    /// drained. A job that waits to run writes no lines and is not polled. An ended job is polled after a failed read.
    async fn wait(&mut self) -> Option<bool> {
        let Self { call, follower, version, status, sent, .. } = self;
        let now = Instant::now();
        let may_write = *status == JobStatus::InProgress || status.is_terminal();
        let poll_at = now + if may_write { POLL } else { HEARTBEAT };
        let pause = tokio::time::sleep_until(poll_at.min(*sent + HEARTBEAT));
        tokio::pin!(pause);
        loop {
            let news = tokio::select! {
                biased;
                () = call.endpoints.drained() => return None,
                () = &mut pause => return Some(may_write),
                news = follower.changed(Some(*version)) => news,
            };
            let before = *status;
            match &*news {
                JobLookup::Found(job) => (*version, *status) = (job.version, job.status),
                JobLookup::Gone { .. } | JobLookup::NotFound => return None,
            }
            if *status != before {
                return Some(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_line_escapes_line_breaks() {
        let line = LogLine {
            line: 3,
            attempt: 2,
            timestamp: async_endpoints_core::Timestamp::from_micros(0),
            level: "INFO".into(),
            target: None,
            message: "two\nlines".to_owned(),
            fields: [("n".to_owned(), 7.into())].into(),
        };
        assert_eq!(text(&line), "1970-01-01T00:00:00.000000Z INFO 2 two\\nlines n=7\n");
    }
}
