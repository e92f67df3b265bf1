//! `GET /jobs/{id}/logs`: the lines that a job's handler logged, as JSON lines, as text, or as a stream that follows.

use std::{collections::VecDeque, convert::Infallible, fmt::Write, time::Duration};

use async_endpoints_core::{JobId, StoreError, job::LogLine};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    call::Call,
    events::{self, COMMENT, HEARTBEAT, OPENING},
    headers,
    problem::Problem,
};
use crate::{hub::Follower, submit::within};

const NDJSON: &str = "application/x-ndjson";
const TEXT: &str = "text/plain";
const EVENTS: &str = "text/event-stream";
/// Lines of one read.
const LINES: u32 = 500;
/// Between two looks for new lines: they are no change of the job, so no hint tells of them.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn logs(call: Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let form = headers::accepted(call.headers(), &[NDJSON, TEXT, EVENTS]);
    let form = form.ok_or_else(|| Problem::not_acceptable("application/x-ndjson, text/plain and text/event-stream"))?;
    if form == EVENTS {
        return follow(call, id).await;
    }
    call.found(call.endpoints.job(id).await?)?;
    let write = if form == TEXT { text } else { json };
    // The first lines before the answer begins: a store that is away can still be told.
    let first = read(&call, id, 0).await?;
    let after = first.last().map(|line| line.line);
    let rest = stream::unfold((call, after), move |(call, after)| async move {
        let lines = read(&call, id, after?).await.map(|lines| (lines.last().map(|line| line.line), lines));
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
    let lookup = call.endpoints.job(id).await?;
    follower.saw(&lookup);
    let job = call.found(lookup)?;
    let told = headers::last_event_id(call.headers()).unwrap_or(0);
    let (version, ended) = (job.version, job.status.is_terminal());
    let following =
        Following { call, id, follower, version, ended, told, lines: VecDeque::new(), quiet: Duration::ZERO };
    let rest = stream::unfold(Some(following), |following| async { next(following?).await });
    Ok(events::answer(stream::iter([Ok(Bytes::from_static(OPENING.as_bytes()))]).chain(rest)))
}

struct Following {
    call: Call,
    id: JobId,
    follower: Follower,
    /// The job's, as last seen.
    version: u64,
    /// No line comes any more but those that the store has now.
    ended: bool,
    /// The number of the last line that was read.
    told: u64,
    lines: VecDeque<LogLine>,
    /// Since when nothing was sent.
    quiet: Duration,
}

type Chunk = Result<Bytes, Infallible>;

async fn next(mut following: Following) -> Option<(Chunk, Option<Following>)> {
    loop {
        if let Some(line) = following.lines.pop_front() {
            following.quiet = Duration::ZERO;
            let event = format!("id: {}\ndata: {}\n\n", line.line, json(&line).trim_end());
            return Some((Ok(event.into()), Some(following)));
        }
        // Read once more after the end was seen: its last lines may have come with it.
        let ended = following.ended;
        if let Ok(lines) = read(&following.call, following.id, following.told).await {
            following.told = lines.last().map_or(following.told, |line| line.line);
            following.lines = lines.into();
            if following.lines.is_empty() && ended {
                return None;
            }
        }
        if following.lines.is_empty() {
            following.wait().await?;
            if following.quiet >= HEARTBEAT {
                following.quiet = Duration::ZERO;
                return Some((Ok(Bytes::from_static(COMMENT.as_bytes())), Some(following)));
            }
        }
    }
}

impl Following {
    /// Until it is worth looking again; none if this process or the client goes.
    async fn wait(&mut self) -> Option<()> {
        let Self { call, follower, version, ended, quiet, .. } = self;
        let news = async {
            tokio::select! {
                biased;
                news = follower.changed(Some(*version)) => Some(Some(news)),
                () = call.endpoints.gone() => None,
                () = tokio::time::sleep(LOOK) => Some(None),
            }
        };
        match call.unless_gone(news).await?? {
            Some(news) => match &*news {
                async_endpoints_core::store::Lookup::Found(job) => {
                    (*version, *ended) = (job.version, job.status.is_terminal());
                }
                _ => *ended = true,
            },
            None => *quiet += LOOK,
        }
        Some(())
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
