//! `GET /jobs/{id}/logs`: the lines that a job's handler logged, as JSON lines, as text, or as a stream that follows.

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
    call::{Call, in_time},
    events::{self, COMMENT, HEARTBEAT, OPENING},
    headers,
    problem::Problem,
};
use crate::{hub::Follower, store_call::within};

const NDJSON: &str = "application/x-ndjson";
const TEXT: &str = "text/plain";
const EVENTS: &str = "text/event-stream";
/// Lines of one read.
const LINES: u32 = 500;
/// Between two looks for new lines of a running job: they are no change of the job, so no hint tells of them.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn logs(call: Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let form = headers::accepted(call.headers(), &[NDJSON, TEXT, EVENTS]);
    let form = form.ok_or_else(|| {
        let problem = Problem::not_acceptable("application/x-ndjson, text/plain and text/event-stream");
        problem.with_header(header::VARY, HeaderValue::from_static("Accept"))
    })?;
    if form == EVENTS {
        return follow(call, id).await;
    }
    let write = if form == TEXT { text } else { json };
    // The first lines before the answer begins: a store that is away can still be told.
    let first = in_time(async {
        call.found(call.endpoints.job(id).await?)?;
        Ok(read(&call, id, 0).await?)
    });
    let first = first.await?;
    let after = next_after(&first);
    let rest = stream::unfold((call, after), move |(call, after)| async move {
        let lines = read(&call, id, after?).await.map(|lines| (next_after(&lines), lines));
        Some(match lines {
            Ok((after, lines)) => (Ok(lines), (call, after)),
            // Cuts the answer off, so that nobody takes it for the whole.
            Err(error) => (Err(error), (call, None)),
        })
    });
    let lines = stream::iter([Ok(first)]).chain(rest);
    let body = lines.map(move |lines| lines.map(|lines| Bytes::from(lines.iter().map(write).collect::<String>())));
    let form = if form == TEXT { "text/plain; charset=utf-8" } else { NDJSON };
    let head =
        [(header::CONTENT_TYPE, HeaderValue::from_static(form)), (header::VARY, HeaderValue::from_static("Accept"))];
    Ok((head, Body::from_stream(body)).into_response())
}

async fn read(call: &Call, id: JobId, after: u64) -> Result<Vec<LogLine>, StoreError> {
    within(call.endpoints.store().logs(id, after, LINES)).await
}

/// Where the next part begins; none if this was the last.
fn next_after(lines: &[LogLine]) -> Option<u64> {
    lines.last().filter(|_| lines.len() == LINES as usize).map(|line| line.line)
}

fn json(line: &LogLine) -> String {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// `2026-11-22T12:49:33.759604Z INFO 1 the message key=value`, on one line whatever was logged.
fn text(line: &LogLine) -> String {
    let LogLine { timestamp, level, attempt, message, fields, .. } = line;
    let mut text = format!("{timestamp} {level} {attempt} ");
    for c in message.chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    for (name, value) in fields {
        // Writing to a string does not fail.
        let _ = write!(text, " {name}={value}");
    }
    text.push('\n');
    text
}

/// A stream of lines, each with its number as id, until the job has ended and its last line was told.
async fn follow(call: Call, id: JobId) -> Result<Response, Problem> {
    let follower = call.endpoints.follow(id).ok_or_else(Problem::too_many_streams)?;
    let known = headers::last_event_id(call.headers());
    let told = known.unwrap_or(0);
    let (job, lines) = in_time(async {
        let lookup = call.endpoints.job(id).await?;
        follower.saw(&lookup);
        let job = call.found(lookup)?;
        // After the job: whatever an ended job's handler said is there.
        Ok((job, read(&call, id, told).await?))
    })
    .await?;
    let (version, status) = (job.version, job.status);
    if status.is_terminal() && known.is_some() && lines.is_empty() {
        // Nothing is left to tell; this is how browsers are told not to come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let sent = Instant::now();
    let following = Following {
        call,
        id,
        follower,
        version,
        status,
        more: false,
        complete: false,
        told,
        lines: VecDeque::new(),
        sent,
    };
    let following = following.with(lines);
    let rest = stream::unfold(Some(following), |following| async { next(following?).await });
    Ok(events::answer(stream::iter([Ok(Bytes::from_static(OPENING.as_bytes()))]).chain(rest)))
}

struct Following {
    call: Call,
    id: JobId,
    follower: Follower,
    /// The job's, as last seen.
    version: u64,
    status: JobStatus,
    /// The last read was full: more is there.
    more: bool,
    /// The job has ended, and all its lines were read since.
    complete: bool,
    /// The number of the last line that was read.
    told: u64,
    lines: VecDeque<LogLine>,
    /// When something was sent last.
    sent: Instant,
}

type Chunk = Result<Bytes, Infallible>;

async fn next(mut following: Following) -> Option<(Chunk, Option<Following>)> {
    loop {
        let chunk = match following.lines.pop_front() {
            Some(line) => format!("id: {}\ndata: {}\n\n", line.line, json(&line).trim_end()).into(),
            None if following.complete => return None,
            None if following.sent.elapsed() >= HEARTBEAT => Bytes::from_static(COMMENT.as_bytes()),
            None => {
                if following.more || following.wait().await? {
                    following = following.look().await;
                }
                continue;
            }
        };
        following.sent = Instant::now();
        return Some((Ok(chunk), Some(following)));
    }
}

impl Following {
    fn with(mut self, lines: Vec<LogLine>) -> Self {
        self.more = lines.len() == LINES as usize;
        self.complete = self.status.is_terminal() && !self.more;
        self.told = lines.last().map_or(self.told, |line| line.line);
        self.lines = lines.into();
        self
    }

    /// Reads what is new. What cannot be read now comes with the next look.
    async fn look(mut self) -> Self {
        self.more = false;
        match read(&self.call, self.id, self.told).await {
            Ok(lines) => self.with(lines),
            Err(_) => self,
        }
    }

    /// Whether there may be new lines, now or after a while; none if this process or the client goes. A job that waits
    /// writes none, and progress tells of none: only a running one is looked at again.
    async fn wait(&mut self) -> Option<bool> {
        let Self { call, follower, version, status, sent, .. } = self;
        let now = Instant::now();
        let may_write = *status == JobStatus::InProgress || status.is_terminal();
        let look = now + if may_write { LOOK } else { HEARTBEAT };
        let pause = tokio::time::sleep_until(look.min(*sent + HEARTBEAT));
        tokio::pin!(pause);
        loop {
            let news = async {
                tokio::select! {
                    biased;
                    () = call.endpoints.gone() => None,
                    () = &mut pause => Some(None),
                    news = follower.changed(Some(*version)) => Some(Some(news)),
                }
            };
            let Some(news) = call.unless_gone(news).await?? else { return Some(may_write) };
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
    fn a_line_of_text_is_one_line() {
        let line = LogLine {
            line: 3,
            attempt: 2,
            timestamp: async_endpoints_core::Timestamp::from_micros(0),
            level: "INFO".into(),
            message: "two\nlines".to_owned(),
            fields: [("n".to_owned(), 7.into())].into(),
        };
        assert_eq!(text(&line), "1970-01-01T00:00:00.000000Z INFO 2 two\\nlines n=7\n");
    }
}
