//! Follows a job: by server-sent events, otherwise by long polls.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use reqwest::{
    Method, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::{
    connection::{Call, is_temporary},
    error::Error,
    events::{Event, Parser},
    handle::{Hold, JobHandle},
    retries::jittered,
    state::JobState,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The service sends the first bytes of a stream at once. A proxy that collects responses does not pass them on.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// A stream is dead after three missing comments. The service sends one every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Time before a dropped stream is resumed, if the service sent none.
const RECONNECT: Duration = Duration::from_secs(1);
/// Streams in a row that brought no event, before the client stops using streams.
const MAX_BARREN: u32 = 3;

/// The states of a job, a stream. It ends after a terminal state or an error.
///
/// [`next`](Self::next) reads it without further traits. Dropping the stream closes its connection.
pub struct Follow<Res>(stream::BoxStream<'static, Result<JobState<Res>, Error>>);

impl<Res: DeserializeOwned + Send + 'static> JobHandle<Res> {
    /// Follows the job: the present state, then each new one, until the job has ended. States in between may be left out,
    /// the last one never. Sends nothing before the stream is polled.
    ///
    /// ```no_run
    /// # use async_endpoints_client::{Error, JobHandle};
    /// # async fn show(job: JobHandle<u64>) -> Result<(), Error> {
    /// let mut states = job.follow();
    /// while let Some(state) = states.next().await {
    ///     let state = state?;
    ///     println!("{} {:.0} %", state.status, state.percent().unwrap_or(0.0));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn follow(&self) -> Follow<Res> {
        let job = self.clone();
        let following = Following { job, version: None, events: Events::Closed, barren: 0, has_ended: false };
        let states = stream::unfold(following, async |mut following| Some((following.next().await?, following)));
        Follow(states.fuse().boxed())
    }
}

impl<Res> Follow<Res> {
    /// The next state; `None` after the last one. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<JobState<Res>, Error>> {
        StreamExt::next(&mut self.0).await
    }
}

impl<Res> Stream for Follow<Res> {
    type Item = Result<JobState<Res>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl<Res> fmt::Debug for Follow<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follow")
    }
}

struct Following<Res> {
    job: JobHandle<Res>,
    /// The version of the last state.
    version: Option<u64>,
    events: Events,
    /// Streams in a row that brought no event.
    barren: u32,
    has_ended: bool,
}

enum Events {
    Closed,
    Open(Box<EventStream>),
    /// There are none to be had. Only long polls are used from now on.
    Unavailable,
}

impl<Res: DeserializeOwned> Following<Res> {
    async fn next(&mut self) -> Option<Result<JobState<Res>, Error>> {
        if self.has_ended {
            return None;
        }
        let next = loop {
            match self.step().await {
                Ok(Some(state)) if self.is_news(&state) => break Ok(state),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        match &next {
            Ok(state) => {
                self.version = Some(state.version);
                self.has_ended = state.status.is_terminal();
            }
            Err(_) => self.has_ended = true,
        }
        Some(next)
    }

    fn is_news(&self, state: &JobState<Res>) -> bool {
        state.status.is_terminal() || self.version.is_none_or(|version| state.version > version)
    }

    /// Reads an event, opens a stream or polls. A failed stream is never an error: the next poll finds out whether the
    /// service answers.
    async fn step(&mut self) -> Result<Option<JobState<Res>>, Error> {
        match &mut self.events {
            Events::Unavailable => self.poll().await,
            Events::Open(events) => match events.next().await {
                Some(event) => {
                    self.barren = 0;
                    self.parse(&event).map(Some)
                }
                None => {
                    let pause = events.reconnect();
                    self.lose();
                    sleep(jittered(pause)).await;
                    Ok(None)
                }
            },
            Events::Closed => match EventStream::open(&self.job, self.version).await {
                Ok(events) => {
                    self.events = Events::Open(Box::new(events));
                    Ok(None)
                }
                Err(no_events) => {
                    match no_events {
                        NoEvents::Now => self.lose(),
                        NoEvents::Here => self.events = Events::Unavailable,
                    }
                    self.poll().await
                }
            },
        }
    }

    /// Counts a stream that is lost. An event resets the count.
    fn lose(&mut self) {
        self.barren += 1;
        self.events = if self.barren < MAX_BARREN { Events::Closed } else { Events::Unavailable };
    }

    async fn poll(&self) -> Result<Option<JobState<Res>>, Error> {
        self.job.read(self.version.map_or(Hold::No, Hold::UntilChanged)).await
    }

    fn parse(&self, event: &Event) -> Result<JobState<Res>, Error> {
        JobState::parse(event.data.as_bytes()).map_err(|error| Error::Unexpected {
            request: Call::new(Method::GET, self.job.route("events")).name(),
            detail: error.to_string(),
        })
    }
}

/// Why a stream cannot be opened.
enum NoEvents {
    /// The service or the network fails. A later try may succeed.
    Now,
    /// Something between client and service has no streams, or the service has too many.
    Here,
}

/// An open stream.
struct EventStream {
    response: Response,
    parser: Parser,
    /// Complete events that were not returned yet.
    events: VecDeque<Event>,
}

impl EventStream {
    /// Opens a stream that begins after this version, and waits for its first bytes.
    async fn open<Res>(job: &JobHandle<Res>, version: Option<u64>) -> Result<Self, NoEvents> {
        let mut call = Call::new(Method::GET, job.route("events"));
        call.headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        call.headers.extend(version.map(|version| (LAST_EVENT_ID, HeaderValue::from(version))));
        let opening = async {
            let response = job.connection.request(&call).send().await.map_err(|_| NoEvents::Now)?;
            check(&response)?;
            let mut stream = Self { response, parser: Parser::default(), events: VecDeque::new() };
            stream.read().await.map_err(|_| NoEvents::Now)?;
            Ok(stream)
        };
        timeout(FIRST_BYTES, opening).await.unwrap_or(Err(NoEvents::Here))
    }

    /// The next event. `None` if the stream has ended, was cut off or is silent.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            timeout(SILENCE, self.read()).await.ok()?.ok()?;
        }
    }

    /// Reads a chunk. The end of the stream is an error.
    async fn read(&mut self) -> Result<(), ()> {
        let chunk = self.response.chunk().await.map_err(drop)?.ok_or(())?;
        self.events.extend(self.parser.push(&chunk));
        Ok(())
    }

    fn reconnect(&self) -> Duration {
        self.parser.retry.unwrap_or(RECONNECT)
    }
}

/// Fails unless the response is a stream of events.
fn check(response: &Response) -> Result<(), NoEvents> {
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    match response.status() {
        StatusCode::OK if media.starts_with("text/event-stream") => Ok(()),
        status if is_temporary(status) => Err(NoEvents::Now),
        _ => Err(NoEvents::Here),
    }
}
