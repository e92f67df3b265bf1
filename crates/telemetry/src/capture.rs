//! Gives the events inside a span to the sink that is attached to this span.
//!
//! The sink is attached when the span is made. An event goes to the sink of the nearest span around it. Without a
//! [`capture_layer`] in the subscriber, nothing is captured.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use async_endpoints_telemetry::capture::{CapturedLine, LineSink, capture_layer, set_min_level, with_sink};
//! use tracing::{Metadata, level_filters::LevelFilter};
//! use tracing_subscriber::prelude::*;
//!
//! #[derive(Default)]
//! struct Messages(Mutex<Vec<String>>);
//!
//! impl LineSink for Messages {
//!     fn wants(&self, _metadata: &Metadata<'_>) -> bool { true }
//!     fn receive(&self, line: CapturedLine) { self.0.lock().unwrap().push(line.message) }
//! }
//!
//! let subscriber = tracing_subscriber::registry().with(capture_layer());
//! set_min_level(LevelFilter::INFO);
//! let messages = Arc::new(Messages::default());
//! tracing::subscriber::with_default(subscriber, || {
//!     let span = with_sink(|| messages.clone(), || tracing::info_span!("import"));
//!     span.in_scope(|| tracing::info!("one row"));
//!     tracing::info!("outside");
//! });
//! assert_eq!(*messages.0.lock().unwrap(), ["one row"]);
//! ```

#[cfg(feature = "sdk")]
mod layer;

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use serde_json::Value as Json;
use tracing::{Level, Metadata, level_filters::LevelFilter};

#[cfg(feature = "sdk")]
pub use self::layer::capture_layer;

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// The most verbose level that is captured, as an index of `LEVELS`.
static LEVEL: AtomicUsize = AtomicUsize::new(0);
/// Whether a layer was made. Without one, no sink is needed.
static HAS_LAYER: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The sink of the span that this thread is making.
    static PENDING: Cell<Option<Arc<dyn LineSink>>> = const { Cell::new(None) };
}

/// Receives the events inside a span.
pub trait LineSink: Send + Sync + 'static {
    /// Whether to capture events of this level and target. Called before anything is formatted.
    fn wants(&self, metadata: &Metadata<'_>) -> bool;

    /// Receives an event. Must not block.
    fn receive(&self, line: CapturedLine);
}

/// A captured event.
#[derive(Clone, Debug, PartialEq)]
pub struct CapturedLine {
    /// When it was captured.
    pub time: SystemTime,
    /// Its level.
    pub level: Level,
    /// Its target, usually a module path.
    pub target: String,
    /// Its message, at most 8 KiB.
    pub message: String,
    /// Its other fields, and those of the spans around it; the innermost of a name counts. Fields of spans of [`SCOPE_TARGET`](crate::SCOPE_TARGET)
    /// are left out. Texts have at most 8 KiB; the values of credentials are replaced.
    pub fields: BTreeMap<String, Json>,
}

/// Makes a span with `make`, and attaches a sink to it if a subscriber captures.
pub fn with_sink<S: LineSink, T>(sink: impl FnOnce() -> Arc<S>, make: impl FnOnce() -> T) -> T {
    /// Also forgets the sink if `make` panics.
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            PENDING.take();
        }
    }

    if !HAS_LAYER.load(Ordering::Relaxed) || LEVEL.load(Ordering::Relaxed) == 0 {
        return make();
    }
    let _forget = Forget;
    PENDING.set(Some(sink()));
    make()
}

/// Captures events down to at least this level. Each sink may want fewer. Nothing is captured before the first call.
pub fn set_min_level(level: LevelFilter) {
    let index = LEVELS.iter().position(|known| *known == level).unwrap_or(0);
    // Without a subscriber, a rebuild would set the greatest level, as if all lines were wanted.
    if LEVEL.fetch_max(index, Ordering::Relaxed) < index && HAS_LAYER.load(Ordering::Relaxed) {
        tracing::callsite::rebuild_interest_cache();
    }
}
