//! `GET /dashboard/live?at=<path and query>`: an event stream that sends the changed regions of a page.
//!
//! The page is rendered again when its [`Refresh`](super::content::Refresh) says so. Each render sends an event, also if
//! nothing has changed: without events, the browser knows that the stream is cut off, and polls.

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
    renderer::Dashboard,
    view::Parameters,
};
use crate::{AccessLevel, Timestamp};

/// Least time between two renders of one page.
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
    let mut changes = dashboard.endpoints.job_changes();
    changes.mark_unchanged();
    let at = query.get("at").unwrap_or_default();
    let (_, first) = dashboard.content(head, at).await;
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

/// The data of an event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    at: Timestamp,
    tag: String,
    /// Ids and HTML of changed regions.
    regions: Vec<(&'a str, &'a str)>,
    /// Why the page could not be rendered. The browser keeps its regions.
    error: Option<String>,
    /// The page does not exist any more, or the caller lost access. The browser loads the page again, which says why.
    is_over: bool,
}

impl LivePage {
    /// The next event. `None` after the last one, and when this process has drained.
    async fn next(&mut self) -> Option<Result<Bytes, Infallible>> {
        self.wait().await?;
        self.rendered = Some(Instant::now());
        if self.first.is_none() {
            self.changes.mark_unchanged();
        }
        let content = match self.first.take() {
            Some(first) => first,
            None => self.dashboard.content(&self.head, &self.at).await.1,
        };
        let data = match &content {
            Ok(content) => self.changed(content),
            Err(Failure::Store(error)) => Event::without_regions(Some(error.to_string()), false),
            Err(_) => Event::without_regions(None, true),
        };
        self.is_over = data.is_over;
        let json = serde_json::to_string(&data).unwrap_or_default();
        Some(Ok(Bytes::from(format!("data: {json}\n\n"))))
    }

    /// Waits until the page is due.
    async fn wait(&mut self) -> Option<()> {
        if self.is_over {
            return None;
        }
        let Some(rendered) = self.rendered else { return Some(()) };
        let (endpoints, Refresh { watch, every }) = (self.dashboard.endpoints.clone(), self.refresh);
        let changes = &mut self.changes;
        let changed = async {
            tokio::time::sleep_until(rendered + PAUSE).await;
            let is_changed = match watch {
                Watch::Nothing => false,
                Watch::Jobs => changes.changed().await.is_ok(),
                Watch::Job(id, version) => endpoints.wait_until(id, every, |job| job.version != version).await.is_ok(),
            };
            if !is_changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = endpoints.drained() => None,
            () = changed => Some(()),
            () = tokio::time::sleep_until(rendered + every) => Some(()),
        }
    }

    fn changed<'a>(&mut self, content: &'a Content) -> Event<'a> {
        self.refresh = content.refresh;
        let tag = content.tag();
        let is_first = self.sent.is_empty();
        let changed = content.live().filter(|region| self.sent.insert(region.id, region.hash()) != Some(region.hash()));
        let mut regions: Vec<_> = changed.map(|region| (region.id, region.html.0.as_str())).collect();
        if is_first && self.shown == tag {
            regions.clear();
        }
        Event { at: now(), tag, regions, error: None, is_over: false }
    }
}

impl Event<'_> {
    fn without_regions(error: Option<String>, is_over: bool) -> Self {
        Self { at: now(), tag: String::new(), regions: Vec::new(), error, is_over }
    }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
