//! Checks what operators change about a job type, and stores it.

use std::time::Duration;

use async_endpoints_core::{
    JobName, StoreError, Timestamp,
    store::{StatsQuery, Store},
};

use super::{
    controls::{TypeControl, TypePause},
    shared::SharedControls,
    state::{TypeState, state, states},
};
use crate::{
    capacity::without_silent,
    store_call::within,
    text::{is_plain_text, shortened},
};

/// Maximum characters of a reason.
const REASON_CHARS: usize = 500;
/// Maximum time until the end of a pause.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Maximum limit of a type. [`Options::concurrency`](crate::Options::concurrency) has the same one.
const MAX_LIMIT: u32 = 100_000;

/// A pause or limit of a job type was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TypeChangeError {
    /// The type is neither declared in this process, nor has it jobs, a live worker, a pause or a limit.
    #[error("unknown job type {0:?}: expected a type that is declared, has jobs or has a live worker")]
    Unknown(String),
    /// A field is invalid.
    #[error("invalid {field} {value:?}: expected {expected}")]
    Field {
        /// The field's name in JSON.
        field: &'static str,
        /// The invalid value.
        value: String,
        /// A description of valid values.
        expected: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of one job type.
pub(crate) enum Change {
    Pause { reason: String, until: Option<Timestamp> },
    Resume,
    Limit(Option<u32>),
}

impl Change {
    /// Checks everything that needs no store.
    fn check(&self) -> Result<(), TypeChangeError> {
        let (field, value, expected) = match self {
            Self::Pause { reason, .. } if !is_reason(reason) => {
                let expected =
                    format!("a text of 1 to {REASON_CHARS} characters without control characters or line breaks");
                ("reason", shortened(reason), expected)
            }
            Self::Limit(Some(0)) => ("perProcess", "0".to_owned(), "1 or more: pause the type to stop it".to_owned()),
            Self::Limit(Some(limit)) if *limit > MAX_LIMIT => {
                ("perProcess", limit.to_string(), format!("a number from 1 to {MAX_LIMIT}"))
            }
            _ => return Ok(()),
        };
        Err(TypeChangeError::Field { field, value, expected })
    }

    /// Checks the end of a pause.
    fn check_end(&self, now: Timestamp) -> Result<(), TypeChangeError> {
        match self {
            Self::Pause { until: Some(until), .. } if *until <= now || *until > now + YEAR => {
                let expected = format!("a time after {now}, at most a year later");
                Err(TypeChangeError::Field { field: "until", value: until.to_string(), expected })
            }
            _ => Ok(()),
        }
    }

    /// Applies the change. A new pause of a paused type replaces reason and end.
    fn apply(&self, control: &mut TypeControl, now: Timestamp) {
        match self {
            Self::Pause { reason, until } => {
                let since = control.pause.as_ref().map_or(now, |pause| pause.since);
                control.pause = Some(TypePause { reason: reason.clone(), since, until: *until });
            }
            Self::Resume => control.pause = None,
            Self::Limit(limit) => control.per_process = *limit,
        }
    }
}

fn is_reason(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= REASON_CHARS && is_plain_text(text)
}

/// Changes a type, and returns its new state. `declared` are the types of this process.
pub(crate) async fn change(
    store: &dyn Store,
    shared: &SharedControls,
    name: &str,
    declared: &[JobName],
    lease: Duration,
    change: Change,
) -> Result<TypeState, TypeChangeError> {
    change.check()?;
    let unknown = || TypeChangeError::Unknown(shortened(name));
    let name = JobName::new(name).map_err(|_| unknown())?;
    let stats = within(store.stats(&StatsQuery::default())).await?;
    let stats = without_silent(stats, lease);
    change.check_end(stats.now)?;
    let before = shared.read().await?;
    if !states(&stats, &before, declared).iter().any(|state| state.name == name) {
        return Err(unknown());
    }
    let after = shared.change(&name, stats.now, |control| change.apply(control, stats.now)).await?;
    Ok(state(&name, &stats, &after))
}
