//! Opens the store that `AE_STORE` names.
//!
//! Owns which errors of it are the operator's to mend. Must not know endpoints, handlers or HTTP.

use std::{
    fmt::Display,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_endpoints::{DeferredStore, MemoryStore, Refusal, SqliteStore, Store, redis, sqlite};

use crate::settings::{BadSetting, ServerUrl, Settings, StoreChoice};

/// How long the end of the process waits for others to let go of the store, and between two looks.
const CLOSING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// Where jobs are kept, now or as soon as it can be reached.
pub(crate) struct Jobs {
    pub(crate) store: Arc<dyn Store>,
    late: Option<(Arc<DeferredStore>, StoreChoice)>,
}

impl Jobs {
    /// Opens the store, or keeps trying in the background. One that will never do is a setting to change.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, BadSetting> {
        match &settings.store {
            StoreChoice::Memory => {
                tracing::warn!("AE_STORE is memory: every job is in this process, and lost when it ends");
                Ok(Self { store: Arc::new(MemoryStore::new()), late: None })
            }
            StoreChoice::Sqlite(path) => Self::late(&settings.store, open_sqlite(path).await),
            StoreChoice::Redis(url) => Self::late(&settings.store, open_redis(url, settings.allow_volatile).await),
        }
    }

    fn late(choice: &StoreChoice, opened: Result<DeferredStore, Refusal>) -> Result<Self, BadSetting> {
        let late = Arc::new(opened.map_err(|refusal| choice.refused(refusal))?);
        Ok(Self { store: late.clone(), late: Some((late, choice.clone())) })
    }

    /// What to change, once it is known that the store will never do; else this never ends.
    pub(crate) async fn refused(&self) -> BadSetting {
        match &self.late {
            Some((late, choice)) => choice.refused(late.refused().await),
            None => std::future::pending().await,
        }
    }

    /// Closes the store in this thread, which the process waits for, and not in whichever happened to have it last. A
    /// handler that does not stop keeps it open.
    pub(crate) fn close(self) {
        let Self { store, late } = self;
        drop(late);
        let began = Instant::now();
        while Arc::strong_count(&store) > 1 && began.elapsed() < CLOSING {
            thread::sleep(LOOK);
        }
    }
}

impl StoreChoice {
    fn refused(&self, why: impl Display) -> BadSetting {
        let set = match self {
            Self::Sqlite(_) | Self::Memory => "sqlite:PATH with a file that this program may write, or memory:",
            Self::Redis(_) => "redis://… of a server that will do, sqlite:PATH or memory:",
        };
        BadSetting::new("AE_STORE", self, format_args!("{why}; set {set}"))
    }
}

async fn open_sqlite(path: &Path) -> Result<DeferredStore, Refusal> {
    let path = path.to_owned();
    let late = DeferredStore::open(move || SqliteStore::open(path.clone()), sqlite::OpenError::is_transient).await?;
    Ok(late.named("sqlite"))
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
