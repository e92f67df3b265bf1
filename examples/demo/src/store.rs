//! Opens the store that `AE_STORE` names. Transient errors are retried; permanent ones are invalid settings.

use std::{
    fmt::Display,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_endpoints::{DeferredStore, MemoryStore, Refusal, SqliteStore, Store, postgres, redis, sqlite};

use crate::settings::{BadSetting, ServerUrl, Settings, StoreChoice};

/// Maximum time that closing waits for other references to the store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval for polling references.
const POLL: Duration = Duration::from_millis(1);

/// The job store, which may still be opening.
pub(crate) struct StoreHandle {
    pub(crate) store: Arc<dyn Store>,
    deferred: Option<(Arc<DeferredStore>, StoreChoice)>,
}

impl StoreHandle {
    /// Opens the store. Retries transient errors in the background.
    ///
    /// # Errors
    /// If the store is permanently unusable.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, BadSetting> {
        match &settings.store {
            StoreChoice::Memory => {
                tracing::warn!("AE_STORE is memory: all jobs are lost when this process ends");
                Ok(Self { store: Arc::new(MemoryStore::new()), deferred: None })
            }
            StoreChoice::Sqlite(path) => Self::deferred(&settings.store, open_sqlite(path).await),
            StoreChoice::Redis(url) => Self::deferred(&settings.store, open_redis(url, settings.allow_volatile).await),
            StoreChoice::Postgres(url) => {
                Self::deferred(&settings.store, open_postgres(url, settings.allow_volatile).await)
            }
        }
    }

    fn deferred(choice: &StoreChoice, opened: Result<DeferredStore, Refusal>) -> Result<Self, BadSetting> {
        let deferred = Arc::new(opened.map_err(|refusal| choice.refused(refusal))?);
        Ok(Self { store: deferred.clone(), deferred: Some((deferred, choice.clone())) })
    }

    /// Returns the invalid setting when the store turns out to be permanently unusable. Otherwise never returns.
    pub(crate) async fn refused(&self) -> BadSetting {
        match &self.deferred {
            Some((deferred, choice)) => choice.refused(deferred.refused().await),
            None => std::future::pending().await,
        }
    }

    /// Closes the store on this thread, so that it is closed before the process exits. A handler that does not stop keeps
    /// the store open.
    pub(crate) fn close(self) {
        let Self { store, deferred } = self;
        drop(deferred);
        let began = Instant::now();
        while Arc::strong_count(&store) > 1 && began.elapsed() < CLOSE_TIMEOUT {
            thread::sleep(POLL);
        }
    }
}

impl StoreChoice {
    fn refused(&self, why: impl Display) -> BadSetting {
        let expected = match self {
            Self::Sqlite(_) | Self::Memory => "sqlite:PATH with a file that this program may write, or memory:",
            Self::Redis(_) => "redis://… of a suitable server, sqlite:PATH or memory:",
            Self::Postgres(_) => "postgres://… of a suitable server, sqlite:PATH or memory:",
        };
        BadSetting::new("AE_STORE", self, format_args!("{why}; expected {expected}"))
    }
}

async fn open_sqlite(path: &Path) -> Result<DeferredStore, Refusal> {
    let path = path.to_owned();
    let deferred =
        DeferredStore::open(move || SqliteStore::open(path.clone()), sqlite::OpenError::is_transient).await?;
    Ok(deferred.named("sqlite"))
}

async fn open_redis(url: &ServerUrl, allow_volatile: bool) -> Result<DeferredStore, Refusal> {
    let url = url.clone();
    let open = move || {
        let (options, url) = (redis::Options::new().allow_volatile(allow_volatile), url.clone());
        async move {
            let store = options.open(url.secret()).await?;
            if let Some(risk) = store.volatile() {
                tracing::warn!(risk, "AE_ALLOW_VOLATILE is true: this server can lose jobs");
            }
            Ok(store)
        }
    };
    Ok(DeferredStore::open(open, redis::OpenError::is_transient).await?.named("redis"))
}

async fn open_postgres(url: &ServerUrl, allow_volatile: bool) -> Result<DeferredStore, Refusal> {
    let url = url.clone();
    let open = move || {
        let (options, url) = (postgres::Options::new().allow_volatile(allow_volatile), url.clone());
        async move {
            let store = options.open(url.secret()).await?;
            if let Some(risk) = store.volatile() {
                tracing::warn!(risk, "AE_ALLOW_VOLATILE is true: this server can lose jobs");
            }
            Ok(store)
        }
    };
    Ok(DeferredStore::open(open, postgres::OpenError::is_transient).await?.named("postgres"))
}
