//! Renders the pages that a caller may see.

use std::sync::Arc;

use axum::http::request::Parts;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    content::{Content, Failure},
    login, pages,
    recent_lists::RecentLists,
    store_check::StoreCheck,
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
    pub(super) store: StoreCheck,
    lists: Arc<RecentLists>,
    /// The base of the ticks at which live streams render lists.
    pub(super) began: Instant,
}

impl Dashboard {
    pub(super) fn new(endpoints: &AsyncEndpoints, config: &Arc<HttpConfig>) -> Self {
        let (streams, store) = (Arc::new(Semaphore::new(STREAMS)), StoreCheck::new(endpoints));
        let (lists, began) = (Arc::new(RecentLists::new(endpoints)), Instant::now());
        Self { endpoints: endpoints.clone(), config: config.clone(), streams, store, lists, began }
    }

    /// What the caller of a request may do. Nothing, if a page of another site uses the caller's session. Panics if the
    /// application's rule does.
    pub(super) fn caller(&self, head: &Parts) -> Granted {
        let caller = self.config.access.grant(head);
        if caller.by_session && is_foreign(head) { Granted::default() } else { caller }
    }

    /// A request for a path and query below `/dashboard`.
    pub(super) fn view(&self, head: &Parts, at: &str) -> View {
        self.view_of(self.caller(head), head, at)
    }

    /// A request of this caller.
    pub(super) fn view_of(&self, caller: Granted, head: &Parts, at: &str) -> View {
        View::new(&self.endpoints, &self.lists, caller, &head.headers, at)
    }

    /// Renders the page of a view. Without the store, only the page of health checks is rendered.
    pub(super) async fn content(&self, view: &View, head: &Parts) -> Result<Content, Failure> {
        self.admit(view, head)?;
        if !pages::shows_outages(view) {
            self.store.result().await?;
        }
        Box::pin(pages::content(view)).await
    }

    /// Fails if the caller of a view may not read.
    pub(super) fn admit(&self, view: &View, head: &Parts) -> Result<(), Failure> {
        match view.caller.level {
            AccessLevel::None => Err(login::refusal(&self.config, head, &view.at())),
            AccessLevel::View | AccessLevel::Operate => Ok(()),
        }
    }
}
