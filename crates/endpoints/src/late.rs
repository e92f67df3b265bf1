//! A store that is opened while the process already serves, for one that may be down when the process starts.
//!
//! Owns the tries to open it. Must not know any particular store, nor what its errors mean: it is told which are final.

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

use crate::{error::panic_message, jitter, telemetry::events};

/// How long the first try is waited for, so that a process usually starts with an open store.
const FIRST: Duration = Duration::from_secs(2);

/// Why a store will not be opened, however often it is tried.
pub type Refusal = Arc<dyn Error + Send + Sync>;

/// A store that opens when it can: until then every call is [`StoreError::Unavailable`], so that a process whose store
/// is down at its start listens, tells its callers to come back, and works as soon as the store is there.
///
/// Dropping it ends the tries.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use async_endpoints::{AsyncEndpoints, DeferredStore, MemoryStore, StoreError};
///
/// // A server that may be down; `Ok(MemoryStore::new())` stands for its client.
/// async fn connect() -> Result<MemoryStore, StoreError> {
///     Ok(MemoryStore::new())
/// }
///
/// // An error that waiting will not mend comes back from here if it is found out at once …
/// let store = Arc::new(DeferredStore::open(connect, StoreError::is_transient).await?);
/// let endpoints = AsyncEndpoints::builder(store.clone()).build()?;
/// tokio::select! {
///     // … and from here if it is found out later.
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
    /// And what went wrong last.
    Opening(Option<Arc<str>>),
    Open(Arc<dyn Store>),
    Refused(Refusal),
}

impl DeferredStore {
    /// Opens a store with `open`, again and again in the background until it works or fails with an error that is not
    /// `transient`. Waits for the first try for two seconds at most, and returns its error if that is final.
    ///
    /// A try that never ends is never repeated: give it a time limit of its own.
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
        // Too late is no error: it goes on by itself.
        let _ = timeout(FIRST, first.changed()).await;
        let refusal = first.borrow().refusal();
        refusal.map_or(Ok(Self { kind: "late", state, _opening: opening }), Err)
    }

    /// What operators call the store that it opens, which nobody knows before it is open: `redis` or `sqlite`, as that
    /// store's own [`kind`](JobStore::kind) says.
    #[must_use]
    pub fn named(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// Whether it is open. Once it is, it stays so, though a call may fail as with any store.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open(_))
    }

    /// Why it will never be open, as soon as that is known; waits for ever if that never happens.
    pub async fn refused(&self) -> Refusal {
        let mut state = self.state.subscribe();
        let refusal = state.wait_for(|state| state.refusal().is_some()).await.ok().and_then(|state| state.refusal());
        match refusal {
            Some(refusal) => refusal,
            None => future::pending().await,
        }
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        let why = match &*self.state.borrow() {
            State::Open(store) => return Ok(store.clone()),
            State::Opening(None) => "it is not open yet".to_owned(),
            State::Opening(Some(why)) => format!("it is not open yet: {why}"),
            State::Refused(refusal) => format!("it cannot be opened: {refusal}"),
        };
        Err(StoreError::Unavailable(why))
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

/// Tries until there is nothing more to try.
async fn keep_trying<S, E, F>(state: watch::Sender<State>, open: impl Fn() -> F, transient: impl Fn(&E) -> bool)
where
    S: Store,
    E: Error + Send + Sync + 'static,
    F: Future<Output = std::result::Result<S, E>>,
{
    let began = Instant::now();
    for tries in 0_u32.. {
        // Everything of the caller's: what panics here would end the tries, and nobody would know.
        let tried = async {
            match open().await {
                Ok(store) => Ok(State::Open(Arc::new(store))),
                Err(error) if transient(&error) => Err(error.to_string()),
                Err(error) => Ok(State::Refused(Arc::new(error))),
            }
        };
        let tried = AssertUnwindSafe(tried).catch_unwind().await;
        match tried.unwrap_or_else(|panic| Err(format!("opening it panicked: {}", panic_message(&*panic)))) {
            Ok(end) => {
                if tries > 0 && matches!(end, State::Open(_)) {
                    events::store_opened(began.elapsed());
                }
                state.send_replace(end);
                return;
            }
            Err(why) => failed(&state, why),
        }
        tokio::time::sleep(pause(tries)).await;
    }
}

/// Says what went wrong, in the log once for as long as it is the same.
fn failed(state: &watch::Sender<State>, why: String) {
    let is_news = !matches!(&*state.borrow(), State::Opening(Some(before)) if **before == *why);
    if is_news {
        events::store_not_open(&why);
        state.send_replace(State::Opening(Some(why.into())));
    }
}

/// Between two tries: growing to a second, so that work begins soon after the store is there.
fn pause(tries: u32) -> Duration {
    jitter::about(Duration::from_millis(50 << tries.min(4)))
}

#[async_trait]
impl JobStore for DeferredStore {
    forward_store_calls!(async self => self.store()?; job_calls);

    fn kind(&self) -> &'static str {
        self.kind
    }
    /// Those who listened before it was open are told to look at everything: what changed before is not known.
    fn hints(&self) -> BoxStream<'static, Hint> {
        if let Ok(store) = self.store() {
            return store.hints();
        }
        let mut state = self.state.subscribe();
        let opened = async move {
            let state = state.wait_for(|state| matches!(state, State::Open(_))).await.map(|state| state.clone());
            match state {
                Ok(State::Open(store)) => {
                    // Taken first, so that nothing is missed between the two.
                    let hints = store.hints();
                    stream::iter([Hint::Lagged]).chain(hints).boxed()
                }
                // It was dropped.
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
