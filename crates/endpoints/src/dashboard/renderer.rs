//! Renders the pages that a caller may see.

use std::sync::Arc;

use axum::http::request::Parts;
use tokio::sync::Semaphore;

use super::{
    content::{Content, Failure},
    login, pages,
    view::View,
};
use crate::{
    AccessLevel, AsyncEndpoints,
    http::{Granted, HttpConfig, is_foreign},
};

/// Maximum number of live streams in this process. Further pages poll.
const STREAMS: usize = 64;

/// What the routes share.
pub(super) struct Dashboard {
    pub(super) endpoints: AsyncEndpoints,
    pub(super) config: Arc<HttpConfig>,
    pub(super) streams: Arc<Semaphore>,
}

impl Dashboard {
    pub(super) fn new(endpoints: &AsyncEndpoints, config: &Arc<HttpConfig>) -> Self {
        let streams = Arc::new(Semaphore::new(STREAMS));
        Self { endpoints: endpoints.clone(), config: config.clone(), streams }
    }

    /// What the caller of a request may do. Nothing, if a page of another site uses the caller's session. Panics if the
    /// application's rule does.
    pub(super) fn caller(&self, head: &Parts) -> Granted {
        let caller = self.config.access.grant(head);
        if caller.by_session && is_foreign(head) { Granted::default() } else { caller }
    }

    /// Renders the page at a path and query below `/dashboard`.
    pub(super) async fn content(&self, head: &Parts, at: &str) -> (View, Result<Content, Failure>) {
        let view = View::new(&self.endpoints, self.caller(head), &head.headers, at);
        let content = match view.caller.level {
            AccessLevel::None => Err(login::refusal(&self.config, head, at)),
            AccessLevel::View | AccessLevel::Operate => Box::pin(pages::content(&view)).await,
        };
        (view, content)
    }
}
