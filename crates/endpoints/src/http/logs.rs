//! `GET /jobs/{id}/logs`: the log lines of a job's handler, as JSON lines, as text, or as an event stream.

use std::{collections::VecDeque, convert::Infallible, fmt::Write, time::Duration};

use async_endpoints_core::{JobId, StoreError, job::LogLine};
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
use crate::{
    hub::{LINES, LogFollower},
    log_buffer::is_own,
    store_call::within,
    text::is_plain,
};

const NDJSON: &str = "application/x-ndjson";
const TEXT: &str = "text/plain";
const EVENTS: &str = "text/event-stream";
/// Pause of a stream after a failed read.
const RETRY: Duration = Duration::from_secs(1);

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
        Ok(read_shown(&call, id, 0).await?)
    });
    let (first, after) = first.await?;
    let rest = stream::unfold((call, after), move |(call, after)| async move {
        Some(match read_shown(&call, id, after?).await {
            Ok((lines, after)) => (Ok(lines), (call, after)),
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
    call.endpoints.job_logs(id, after).await
}

/// Reads lines, and returns those that the caller sees. Also returns the line after which the next read starts; `None`
/// after the last line.
async fn read_shown(call: &Call, id: JobId, after: u64) -> Result<(Vec<LogLine>, Option<u64>), StoreError> {
    let mut lines = read(call, id, after).await?;
    let next = lines.last().filter(|_| lines.len() == LINES as usize).map(|line| line.line);
    lines.retain(|line| is_shown(call, line));
    Ok((lines, next))
}

/// Whether the caller sees a line. The library's own lines are for operators.
fn is_shown(call: &Call, line: &LogLine) -> bool {
    call.is_operator() || !line.target.as_deref().is_some_and(is_own)
}

fn json(line: &LogLine) -> String {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// `2026-11-22T12:49:33.759604Z INFO 1 app::import: the message key=value`. Characters that end a line or command a terminal
/// are escaped, so each entry is one line.
fn text(line: &LogLine) -> String {
    let LogLine { timestamp, level, attempt, target, message, fields, .. } = line;
    let target = target.as_ref().map(|target| format!("{target}: ")).unwrap_or_default();
    let mut text = format!("{timestamp} {level} {attempt} {target}{message}");
    for (name, value) in fields {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " {name}={value}");
    }
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if is_plain(c) { escaped.push(c) } else { escaped.extend(c.escape_default()) }
    }
    escaped + "\n"
}

/// An event stream of lines with their numbers as ids, until the job has ended and its last line was sent.
async fn follow(call: Call, id: JobId) -> Result<Response, Problem> {
    let follower = call.endpoints.follow(id).ok_or(codes::TOO_MANY_STREAMS)?.log();
    let last_read = headers::last_event_id(call.headers()).unwrap_or(0);
    let (status, lines) = within::<_, Problem>(async {
        let lookup = call.endpoints.job(id).await?;
        follower.saw(&lookup);
        let status = call.found(lookup)?.status;
        // Read after the job: if the job has ended, all its lines are stored.
        Ok((status, read(&call, id, last_read).await?))
    })
    .await?;
    if status.is_terminal() && !lines.iter().any(|line| is_shown(&call, line)) {
        // The client has all lines, or there are none. 204 makes browsers stop reconnecting.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut log = LogStream {
        call,
        id,
        follower,
        behind: true,
        has_ended: status.is_terminal(),
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
    follower: LogFollower,
    /// Lines may be stored that the follower does not receive. They are read from the store.
    behind: bool,
    /// The job has ended. If the stream is not behind, all its lines were read.
    has_ended: bool,
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
            Some(line) if !is_shown(&log.call, &line) => continue,
            Some(line) => format!("id: {}\ndata: {}\n\n", line.line, json(&line).trim_end()).into(),
            None if log.has_ended && !log.behind => return None,
            None if log.sent.elapsed() >= HEARTBEAT => Bytes::from_static(COMMENT.as_bytes()),
            None => {
                log.wait().await?;
                continue;
            }
        };
        log.sent = Instant::now();
        return Some((Ok(chunk), Some(log)));
    }
}

impl LogStream {
    /// Takes lines that were read from the store.
    fn set_lines(&mut self, lines: Vec<LogLine>) {
        self.behind = lines.len() == LINES as usize;
        self.last_read = lines.last().map_or(self.last_read, |line| line.line);
        self.lines = lines.into();
        if !self.behind {
            self.follower.begin_after(self.last_read);
        }
    }

    /// Waits for lines, for the end of the log, or until a comment is due. `None` when this process has drained.
    async fn wait(&mut self) -> Option<()> {
        let (endpoints, comment_at) = (self.call.endpoints.clone(), self.sent + HEARTBEAT);
        tokio::select! {
            biased;
            () = endpoints.drained() => return None,
            () = tokio::time::sleep_until(comment_at) => {}
            () = self.advance() => {}
        }
        Some(())
    }

    async fn advance(&mut self) {
        if self.behind {
            match read(&self.call, self.id, self.last_read).await {
                Ok(lines) => self.set_lines(lines),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
            return;
        }
        let news = self.follower.news(self.last_read).await;
        self.has_ended |= news.is_last;
        match news.lines {
            Some(lines) => {
                self.last_read = lines.last().map_or(self.last_read, |line| line.line);
                self.lines = lines.into();
            }
            None => self.behind = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_line_escapes_breaks_and_controls() {
        let line = LogLine {
            line: 3,
            attempt: 2,
            timestamp: async_endpoints_core::Timestamp::from_micros(0),
            level: "INFO".into(),
            target: Some("app".to_owned()),
            message: "two\nlines".to_owned(),
            fields: [("n".to_owned(), 7.into()), ("s".to_owned(), "\u{9b}2J\u{2028}é".into())].into(),
        };
        let expected = "1970-01-01T00:00:00.000000Z INFO 2 app: two\\nlines n=7 s=\"\\u{9b}2J\\u{2028}é\"\n";
        assert_eq!(text(&line), expected);
    }
}
