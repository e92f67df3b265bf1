//! `GET /jobs/{id}/events`: the states of a job as server-sent events, until the job has ended.

use std::{convert::Infallible, time::Duration};

use async_endpoints_core::{JobStatus, JobView, Timestamp, store::JobLookup};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;

use super::{call::Call, codes, headers, problem::Problem};
use crate::hub::Follower;

/// Interval of comments on a stream without events.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Start of each stream: browsers reconnect one second after a stream was cut off.
pub(super) const OPENING: &str = "retry: 1000\n\n";
pub(super) const COMMENT: &str = ":\n\n";

pub(super) async fn events(call: Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let follower = call.endpoints.follow(id).ok_or(codes::TOO_MANY_STREAMS)?;
    let lookup = call.endpoints.job(id).await?;
    follower.saw(&lookup);
    let job = call.found(lookup)?;
    let known = headers::last_event_id(call.headers());
    if job.status.is_terminal() && known == Some(job.version) {
        // The client has the terminal event. 204 makes browsers stop reconnecting.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // A terminal event is sent even if the client claims a later version: no other event would follow.
    let is_newer = job.status.is_terminal() || known.is_none_or(|known| job.version > known);
    let sent = SentState::of(&job);
    let first = match is_newer {
        true => [OPENING.as_bytes(), &event(&call, "status", &job).await].concat(),
        false => OPENING.into(),
    };
    let events = (!job.status.is_terminal()).then_some(EventStream { call, follower, sent });
    let rest = stream::unfold(events, |events| async { next(events?).await });
    Ok(response(stream::StreamExt::chain(stream::iter([Ok(Bytes::from(first))]), rest)))
}

/// A response with an event stream, which proxies must neither store nor buffer.
pub(super) fn response(body: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (head, Body::from_stream(body)).into_response()
}

struct EventStream {
    call: Call,
    follower: Follower,
    sent: SentState,
}

/// The job of the last event, as far as it decides the name of the next one.
#[derive(PartialEq, Eq)]
struct SentState {
    version: u64,
    status: JobStatus,
    attempt: u32,
    cancel_requested_at: Option<Timestamp>,
}

impl SentState {
    fn of(job: &JobView) -> Self {
        let JobView { version, status, attempt, cancel_requested_at, .. } = *job;
        Self { version, status, attempt, cancel_requested_at }
    }

    /// The name of the event for this state after `before`: `progress` if only the version differs.
    fn event_name(&self, before: &Self) -> &'static str {
        match *self == (Self { version: self.version, ..*before }) {
            true => "progress",
            false => "status",
        }
    }
}

type Chunk = Result<Bytes, Infallible>;

/// Waits for the next chunk. The stream ends with the terminal event, or when this process has drained.
async fn next(mut events: EventStream) -> Option<(Chunk, Option<EventStream>)> {
    let EventStream { call, follower, sent } = &mut events;
    let news = tokio::select! {
        biased;
        news = follower.changed(Some(sent.version)) => news,
        () = call.endpoints.drained() => return None,
        () = tokio::time::sleep(HEARTBEAT) => {
            return Some((Ok(Bytes::from_static(COMMENT.as_bytes())), Some(events)));
        }
    };
    let JobLookup::Found(job) = &*news else { return None };
    let now = SentState::of(job);
    let event = event(call, now.event_name(sent), job).await;
    *sent = now;
    let more = !job.status.is_terminal();
    Some((Ok(event.into()), more.then_some(events)))
}

/// An event with the whole job as data and its version as id.
async fn event(call: &Call, name: &str, job: &JobView) -> Vec<u8> {
    let mut event = format!("event: {name}\nid: {}\ndata: ", job.version).into_bytes();
    call.document(job).await.write(&mut event);
    event.extend_from_slice(b"\n\n");
    event
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use tower_service::Service;

    use super::*;
    use crate::{AsyncEndpoints, JobType, MemoryStore};

    #[tokio::test]
    async fn follower_limit_refuses_streams_and_ends_waits() {
        const WAITING: JobType<(), ()> = JobType::new("Waiting");
        let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints");
        let id = endpoints.submit(WAITING, ()).await.expect("the memory store accepts").job.id;
        let mut followers: Vec<_> = (0..10_000).map_while(|_| endpoints.follow(id)).collect();
        assert_eq!(followers.len(), 10_000);
        let get = async |path: &str| {
            let request = Request::get(format!("/jobs/{id}{path}")).body(Body::empty()).expect("a request");
            endpoints.job_routes::<()>().call(request).await.expect("routes do not fail")
        };
        for path in ["/events", "/events?x", "?wait=60"] {
            let response =
                tokio::time::timeout(Duration::from_secs(20), get(path)).await.expect("the request is not held");
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.status().as_u16(), if path == "?wait=60" { 200 } else { 503 });
        }
        followers.pop();
        assert_eq!(get("/events").await.status(), 200, "the limit is no longer reached");
    }
}
