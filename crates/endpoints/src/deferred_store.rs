//! A store that is opened in the background, so that a process starts while its store is down.
//!
//! Must not know any particular store. The caller says which errors are transient.

use std::{
    error::Error,
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobStore, SharedState, Store, StoreError, forward_store_calls,
    store::{Hint, Result},
};
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, future, stream, stream::BoxStream};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{backoff::Backoff, panics, telemetry::events};

/// How long `open` waits for the first try, so that a process usually starts with an open store.
const FIRST_TRY: Duration = Duration::from_secs(2);

/// Interval of the log lines about failing tries.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The permanent error that ended the tries to open a store.
pub type Refusal = Arc<dyn Error + Send + Sync>;

/// A store that opens in the background.
///
/// Until it is open, every call returns [`StoreError::Unavailable`]. A process whose store is down at its start
/// therefore serves HTTP, answers 503, and works as soon as the store is up.
///
/// Dropping it ends the tries.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use async_endpoints::{AsyncEndpoints, DeferredStore, MemoryStore, StoreError};
///
/// // `Ok(MemoryStore::new())` stands for the client of a server that may be down.
/// async fn connect() -> Result<MemoryStore, StoreError> {
///     Ok(MemoryStore::new())
/// }
///
/// // Returns a permanent error of the first try …
/// let store = Arc::new(DeferredStore::open(connect, StoreError::is_transient).await?);
/// let endpoints = AsyncEndpoints::builder(store.clone()).build()?;
/// tokio::select! {
///     // … and this returns one of a later try.
///     refusal = store.refused() => return Err(refusal.to_string().into()),
///     served = endpoints.run() => served?,
/// #   () = async { endpoints.shutdown(); std::future::pending().await } => {}
/// }
/// # Ok(()) }
/// ```
pub struct DeferredStore {
    kind: &'static str,
    state: watch::Sender<State>,
    _opening: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum State {
    /// Not open yet, with the error of the last try.
    Opening(Option<Arc<str>>),
    Open(Arc<dyn Store>),
    Refused(Refusal),
}

impl DeferredStore {
    /// Opens a store with `open`, which is called again after every `transient` error.
    ///
    /// Waits at most two seconds for the first try, and returns its error if that is permanent. Later tries run in the
    /// background. A try without an end is never repeated, so `open` needs a time limit of its own.
    pub async fn open<S, E, F>(
        open: impl Fn() -> F + Send + Sync + 'static,
        transient: impl Fn(&E) -> bool + Send + Sync + 'static,
    ) -> std::result::Result<Self, Refusal>
    where
        S: Store,
        E: Error + Send + Sync + 'static,
        F: Future<Output = std::result::Result<S, E>> + Send + 'static,
    {
        let state = watch::Sender::new(State::Opening(None));
        let mut first = state.subscribe();
        let opening = AbortOnDropHandle::new(tokio::spawn(keep_trying(state.clone(), open, transient)));
        let _ = timeout(FIRST_TRY, first.changed()).await;
        let refusal = first.borrow().refusal();
        refusal.map_or(Ok(Self { kind: "deferred", state, _opening: opening }), Err)
    }

    /// Sets the [`kind`](JobStore::kind) of the store, the label in metrics: `postgres` or `sqlite`. Defaults to `deferred`,
    /// since the inner store is not known before it is open.
    #[must_use]
    pub fn named(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// Whether the store has been opened. An open store stays open, though its calls may fail as those of any store.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open(_))
    }

    /// Waits for a permanent error and returns it. Never returns if the store opens.
    pub async fn refused(&self) -> Refusal {
        let mut state = self.state.subscribe();
        let refusal = state.wait_for(|state| state.refusal().is_some()).await.ok().and_then(|state| state.refusal());
        match refusal {
            Some(refusal) => refusal,
            None => future::pending().await,
        }
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        let reason = match &*self.state.borrow() {
            State::Open(store) => return Ok(store.clone()),
            State::Opening(None) => "it is not open yet".to_owned(),
            State::Opening(Some(error)) => format!("it is not open yet: {error}"),
            State::Refused(refusal) => format!("it cannot be opened: {refusal}"),
        };
        Err(StoreError::Unavailable(reason))
    }
}

impl State {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::Opening(_) | Self::Open(_) => None,
        }
    }
}

/// Tries until the store is open or an error is permanent.
async fn keep_trying<S, E, F>(state: watch::Sender<State>, open: impl Fn() -> F, transient: impl Fn(&E) -> bool)
where
    S: Store,
    E: Error + Send + Sync + 'static,
    F: Future<Output = std::result::Result<S, E>>,
{
    let began = Instant::now();
    let mut backoff = Backoff::default();
    let mut logged_at: Option<Instant> = None;
    loop {
        // A panic of the caller's code would otherwise end the tries without a trace.
        let opened = AssertUnwindSafe(async {
            match open().await {
                Ok(store) => Ok(State::Open(Arc::new(store))),
                Err(error) if transient(&error) => Err(error.to_string()),
                Err(error) => Ok(State::Refused(Arc::new(error))),
            }
        });
        let opened = opened.catch_unwind().await;
        match opened.unwrap_or_else(|panic| Err(format!("opening it panicked: {}", panics::message(&*panic)))) {
            Ok(end) => {
                if matches!((&*state.borrow(), &end), (State::Opening(Some(_)), State::Open(_))) {
                    events::store_opened(began.elapsed());
                }
                state.send_replace(end);
                return;
            }
            Err(error) => {
                if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                    events::store_not_open(&error);
                    logged_at = Some(Instant::now());
                }
                state.send_replace(State::Opening(Some(error.into())));
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

#[async_trait]
impl JobStore for DeferredStore {
    forward_store_calls!(async self => self.store()?; job_calls);

    fn kind(&self) -> &'static str {
        self.kind
    }

    /// A stream from before the opening begins with [`Hint::Lagged`], since earlier changes are unknown.
    fn hints(&self) -> BoxStream<'static, Hint> {
        if let Ok(store) = self.store() {
            return store.hints();
        }
        let mut state = self.state.subscribe();
        let opened = async move {
            let state = state.wait_for(|state| matches!(state, State::Open(_))).await.map(|state| state.clone());
            match state {
                Ok(State::Open(store)) => {
                    // Subscribed first, so that no hint is missed after `Lagged`.
                    let hints = store.hints();
                    stream::iter([Hint::Lagged]).chain(hints).boxed()
                }
                // The deferred store was dropped.
                _ => stream::empty().boxed(),
            }
        };
        stream::once(opened).flatten().boxed()
    }
}

#[async_trait]
impl SharedState for DeferredStore {
    forward_store_calls!(async self => self.store()?; shared_calls);
}

impl fmt::Debug for DeferredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredStore").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}
