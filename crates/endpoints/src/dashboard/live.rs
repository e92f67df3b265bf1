//! `GET /dashboard/live?at=<path and query>`: an event stream that sends the changed regions of a page.
//!
//! The page is rendered again when its [`Refresh`](super::content::Refresh) says so, and when the store stops or starts to answer.
//! Each render sends an event, also if nothing has changed. Without renders, an event says every two seconds that the page is
//! up to date.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};

use super::{
    content::{Content, Failure, Refresh, Watch},
    pages,
    renderer::Dashboard,
    store_check,
    view::Parameters,
};
use crate::{AccessLevel, Timestamp};

/// Most time between two events. A browser that gets none knows that the stream is cut off.
const HEARTBEAT: Duration = store_check::FRESH;
/// Least time between two renders of one page, on average.
const PAUSE: Duration = Duration::from_millis(250);

/// Starts a stream. Answers 503 if there are too many, and the page polls. Answers 404 or 400 for a page that does not exist.
pub(super) async fn stream(dashboard: &Arc<Dashboard>, head: &Parts) -> Response {
    let Ok(permit) = dashboard.streams.clone().try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    if dashboard.caller(head).level == AccessLevel::None {
        return StatusCode::FORBIDDEN.into_response();
    }
    let query = Parameters::read(head.uri.query().unwrap_or_default().as_bytes());
    // Before the first render, so that later changes count.
    let changes = dashboard.endpoints.job_changes();
    let at = query.get("at").unwrap_or_default();
    let first = dashboard.content(&dashboard.view(head, at), head).await;
    if let Err(failure) = &first
        && failure.status().is_client_error()
    {
        return (failure.status(), failure.to_string()).into_response();
    }
    let page = LivePage {
        dashboard: dashboard.clone(),
        head: head.clone(),
        at: at.to_owned(),
        first: Some(first),
        shown: query.get("tag").unwrap_or_default().to_owned(),
        sent: HashMap::new(),
        refresh: Refresh::STATISTICS,
        rendered: None,
        error: None,
        is_over: false,
        changes,
        _permit: permit,
    };
    let events = stream::unfold(page, |mut page| async { Some((page.next().await?, page)) });
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (head, Body::from_stream(events)).into_response()
}

struct LivePage {
    dashboard: Arc<Dashboard>,
    head: Parts,
    /// The path below `/dashboard`, with its query.
    at: String,
    /// The first render, until it is sent.
    first: Option<Result<Content, Failure>>,
    /// The tag of the content that the browser has.
    shown: String,
    /// Why the store did not answer the last time.
    error: Option<String>,
    /// Hashes of the regions that the browser has.
    sent: HashMap<&'static str, u64>,
    refresh: Refresh,
    /// When the page was rendered last.
    rendered: Option<Instant>,
    /// The last event was sent.
    is_over: bool,
    changes: watch::Receiver<u64>,
    _permit: OwnedSemaphorePermit,
}

/// What a stream does next.
enum Due {
    /// Renders the page with all changes up to this time.
    Page(Instant),
    /// Says that the page is up to date, unless the store stopped or started to answer.
    Heartbeat,
}

/// The data of an event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    at: Timestamp,
    tag: &'a str,
    /// Ids and HTML of changed regions.
    regions: Vec<(&'a str, &'a str)>,
    /// Why the store did not answer. If the page needs it, the browser keeps its regions, and the tag is empty.
    error: Option<&'a str>,
    /// The page does not exist any more, or the caller lost access. The browser loads the page again, which says why.
    is_over: bool,
}

impl LivePage {
    /// The next event. `None` after the last one, and when this process has drained.
    async fn next(&mut self) -> Option<Result<Bytes, Infallible>> {
        let as_of = match self.wait().await? {
            Due::Page(as_of) => Some(as_of),
            // What the store's last answer changed is rendered at once.
            Due::Heartbeat => {
                let is_due = self.dashboard.store.result().await.is_ok() != self.error.is_none();
                is_due.then(Instant::now)
            }
        };
        let json = match as_of {
            Some(as_of) => self.render(as_of).await,
            None => self.event(Vec::new()),
        };
        Some(Ok(Bytes::from(format!("data: {json}\n\n"))))
    }

    async fn render(&mut self, as_of: Instant) -> String {
        self.rendered = Some(Instant::now());
        let mut view = self.dashboard.view(&self.head, &self.at);
        view.as_of = as_of;
        let content = match self.first.take() {
            Some(first) => first,
            None => self.dashboard.content(&view, &self.head).await,
        };
        // A page that needs no store is shown, and says that the store does not answer.
        self.error = match pages::shows_outages(&view) {
            true => self.dashboard.store.result().await.err().map(|error| error.to_string()),
            false => None,
        };
        match &content {
            Ok(content) => {
                let regions = self.changed(content);
                return self.event(regions);
            }
            Err(Failure::Store(error)) => {
                self.error = Some(error.to_string());
                // The next change or check of the store renders the page again.
                if let Watch::Jobs(changes) = &mut self.refresh.watch {
                    *changes = view.changes;
                }
            }
            Err(_) => self.is_over = true,
        }
        self.shown.clear();
        self.event(Vec::new())
    }

    fn event(&self, regions: Vec<(&str, &str)>) -> String {
        let Self { shown, error, is_over, .. } = self;
        let event = Event { at: now(), tag: shown, regions, error: error.as_deref(), is_over: *is_over };
        serde_json::to_string(&event).unwrap_or_default()
    }

    /// Waits until an event is due. `None` if there is none any more.
    async fn wait(&mut self) -> Option<Due> {
        if self.is_over {
            return None;
        }
        let Some(rendered) = self.rendered else { return Some(Due::Page(Instant::now())) };
        let (endpoints, Refresh { watch, every }) = (self.dashboard.endpoints.clone(), self.refresh);
        let (base, changes) = (self.dashboard.began, &mut self.changes);
        let changed = async {
            let as_of = match watch {
                Watch::Nothing => None,
                Watch::Jobs(seen) => next_change(base, rendered, changes, seen).await,
                Watch::Job(id, version) => {
                    tokio::time::sleep_until(rendered + PAUSE).await;
                    let changed = endpoints.wait_until(id, every, |job| job.version != version).await;
                    changed.is_ok().then(Instant::now)
                }
            };
            match as_of {
                Some(as_of) => as_of,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = endpoints.drained() => None,
            as_of = changed => Some(Due::Page(as_of)),
            () = tokio::time::sleep_until(rendered + every) => Some(Due::Page(Instant::now())),
            () = tokio::time::sleep(HEARTBEAT) => Some(Due::Heartbeat),
        }
    }

    /// Ids and HTML of the regions that the browser does not have.
    fn changed<'a>(&mut self, content: &'a Content) -> Vec<(&'a str, &'a str)> {
        self.refresh = content.refresh;
        let tag = content.tag();
        let is_first = self.sent.is_empty();
        let changed = content.live().filter(|region| self.sent.insert(region.id, region.hash()) != Some(region.hash()));
        let mut regions: Vec<_> = changed.map(|region| (region.id, region.html.0.as_str())).collect();
        if is_first && self.shown == tag {
            regions.clear();
        }
        self.shown = tag;
        regions
    }
}

/// Waits until a list is due that was rendered at this time with the first `seen` changes. All streams render pending changes
/// at the same ticks, so that they share reads, and later changes at once. Returns how recent the list has to be.
async fn next_change(
    base: Instant,
    rendered: Instant,
    changes: &mut watch::Receiver<u64>,
    seen: u64,
) -> Option<Instant> {
    tokio::time::sleep_until(last_tick(base, rendered + PAUSE / 2 + PAUSE)).await;
    let is_pending = *changes.borrow() != seen;
    changes.wait_for(|changes| *changes != seen).await.ok()?;
    let now = Instant::now();
    Some(if is_pending { last_tick(base, now) } else { now })
}

/// The last tick at or before a time.
fn last_tick(base: Instant, time: Instant) -> Instant {
    let behind = time.duration_since(base).as_nanos() % PAUSE.as_nanos();
    time - Duration::from_nanos(behind as u64)
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
