//! `GET /jobs/{id}/events`: a job as a stream of its states, until it has ended.

use std::{convert::Infallible, time::Duration};

use async_endpoints_core::{JobStatus, JobView, Timestamp, store::JobLookup};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;

use super::{call::Call, headers, problem::Problem};
use crate::hub::Follower;

/// Between two signs of life on a stream that has nothing to tell.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Comes first on each stream: browsers come back a second after it was cut off.
pub(super) const OPENING: &str = "retry: 1000\n\n";
pub(super) const COMMENT: &str = ":\n\n";

pub(super) async fn events(call: Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let follower = call.endpoints.follow(id).ok_or_else(Problem::too_many_streams)?;
    let lookup = call.endpoints.job(id).await?;
    follower.saw(&lookup);
    let job = call.found(lookup)?;
    let known = headers::last_event_id(call.headers());
    if job.status.is_terminal() && known == Some(job.version) {
        // Nothing is left to tell; this is how browsers are told not to come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // An end is told whatever the client claims to know: nothing would ever follow it.
    let is_news = job.status.is_terminal() || known.is_none_or(|known| job.version > known);
    let told = Told::of(&job);
    let first = match is_news {
        true => [OPENING.as_bytes(), &event(&call, "status", &job).await].concat(),
        false => OPENING.into(),
    };
    let watching = (!job.status.is_terminal()).then_some(Watching { call, follower, told });
    let rest = stream::unfold(watching, |watching| async { next(watching?).await });
    Ok(answer(stream::StreamExt::chain(stream::iter([Ok(Bytes::from(first))]), rest)))
}

/// A stream as an answer that nobody keeps or holds back.
pub(super) fn answer(body: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (head, Body::from_stream(body)).into_response()
}

struct Watching {
    call: Call,
    follower: Follower,
    told: Told,
}

/// What the client was told last, as far as it decides what to call the next event.
#[derive(PartialEq, Eq)]
struct Told {
    version: u64,
    status: JobStatus,
    attempt: u32,
    cancel_requested_at: Option<Timestamp>,
}

impl Told {
    fn of(job: &JobView) -> Self {
        let JobView { version, status, attempt, cancel_requested_at, .. } = *job;
        Self { version, status, attempt, cancel_requested_at }
    }

    /// What the event is called that tells this after `before`.
    fn kind(&self, before: &Self) -> &'static str {
        match *self == (Self { version: self.version, ..*before }) {
            true => "progress",
            false => "status",
        }
    }
}

type Chunk = Result<Bytes, Infallible>;

/// The next thing to send, and what goes on after it. Ends with the job, with this process, with the client.
async fn next(mut watching: Watching) -> Option<(Chunk, Option<Watching>)> {
    let Watching { call, follower, told } = &mut watching;
    let news = async {
        tokio::select! {
            biased;
            news = follower.changed(Some(told.version)) => Some(Some(news)),
            () = call.endpoints.gone() => None,
            () = tokio::time::sleep(HEARTBEAT) => Some(None),
        }
    };
    let Some(news) = call.unless_gone(news).await?? else {
        return Some((Ok(Bytes::from_static(COMMENT.as_bytes())), Some(watching)));
    };
    let JobLookup::Found(job) = &*news else { return None };
    let now = Told::of(job);
    let event = event(call, now.kind(told), job).await;
    *told = now;
    let more = !job.status.is_terminal();
    Some((Ok(event.into()), more.then_some(watching)))
}

/// One event: the whole job, its version as id.
async fn event(call: &Call, kind: &str, job: &JobView) -> Vec<u8> {
    let mut event = format!("event: {kind}\nid: {}\ndata: ", job.version).into_bytes();
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
    async fn beyond_the_limit_streams_are_refused_and_waits_answer_at_once() {
        const WAITING: JobType<(), ()> = JobType::new("Waiting");
        let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("it fits");
        let id = endpoints.submit(WAITING, ()).await.expect("memory is there").job.id;
        let mut followers: Vec<_> = (0..10_000).map_while(|_| endpoints.follow(id)).collect();
        assert_eq!(followers.len(), 10_000);
        let get = async |path: &str| {
            let request = Request::get(format!("/jobs/{id}{path}")).body(Body::empty()).expect("a request");
            endpoints.job_routes::<()>().call(request).await.expect("routes do not fail")
        };
        for path in ["/events", "/events?x", "?wait=60"] {
            let response = tokio::time::timeout(Duration::from_secs(20), get(path)).await.expect("it is not held");
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.status().as_u16(), if path == "?wait=60" { 200 } else { 503 });
        }
        followers.pop();
        assert_eq!(get("/events").await.status(), 200, "a place is free again");
    }
}
