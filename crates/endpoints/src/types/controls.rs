//! What operators decided about job types, and its stored form: one document for all types and processes.

use std::collections::BTreeMap;

use async_endpoints_core::{JobName, StoreError, Timestamp};
use serde::{Deserialize, Serialize};

/// The name of the document.
pub(super) const TYPES: &str = "types";
/// The format that this release writes.
const FORMAT: u32 = 1;

/// A pause of a job type: no process starts its jobs. Running attempts go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypePause {
    /// Why an operator paused it.
    pub reason: String,
    /// When it was paused, by the store's clock.
    pub since: Timestamp,
    /// When the pause ends by itself, by the store's clock. None if only an operator ends it.
    pub until: Option<Timestamp>,
}

/// What operators decided about one job type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TypeControl {
    /// The pause, if the type is paused.
    pub(crate) pause: Option<TypePause>,
    /// Maximum number of concurrent attempts in each process, if an operator limits them.
    pub(crate) per_process: Option<u32>,
}

/// What operators decided, by job type. Types without a decision are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controls(BTreeMap<JobName, TypeControl>);

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    types: BTreeMap<JobName, TypeControl>,
}

impl Serialize for Controls {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { format: FORMAT, types: self.0.clone() }.serialize(serializer)
    }
}

impl Controls {
    /// Decodes the document. None stands for a store without one.
    pub(super) fn decode(bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let damaged = |error| StoreError::Corrupt(format!("the document {TYPES:?} cannot be read: {error}"));
        let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            let text = format!("format {format} of the document {TYPES:?}: expected {FORMAT} or less");
            return Err(StoreError::Corrupt(text));
        }
        let Stored { types, .. } = serde_json::from_slice(bytes).map_err(damaged)?;
        Ok(Self(types))
    }

    /// What operators decided about a type.
    pub(crate) fn of(&self, name: &JobName) -> TypeControl {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// The pause of a type.
    pub(crate) fn pause(&self, name: &JobName) -> Option<&TypePause> {
        self.0.get(name)?.pause.as_ref()
    }

    /// The limit of concurrent attempts of a type in one process, which declares `declared`. An operator can only lower it.
    pub(crate) fn limit(&self, name: &JobName, declared: u32) -> u32 {
        self.0.get(name).and_then(|control| control.per_process).map_or(declared, |limit| limit.min(declared))
    }

    /// Number of attempts of a type that one process may run at once: none while the type is paused.
    pub(crate) fn allowed(&self, name: &JobName, declared: u32) -> u32 {
        if self.pause(name).is_some() { 0 } else { self.limit(name, declared) }
    }

    /// The types with a pause or limit.
    pub(crate) fn names(&self) -> impl Iterator<Item = &JobName> {
        self.0.keys()
    }

    /// The paused types.
    pub(crate) fn paused(&self) -> impl Iterator<Item = &JobName> {
        self.0.iter().filter(|(_, control)| control.pause.is_some()).map(|(name, _)| name)
    }

    /// Whether a pause ends by itself.
    pub(super) fn has_ends(&self) -> bool {
        self.0.values().any(|control| control.pause.as_ref().is_some_and(|pause| pause.until.is_some()))
    }

    /// The decisions that count at `now`: pauses that have ended are left out.
    pub(crate) fn at(mut self, now: Timestamp) -> Self {
        let has_ended = |pause: &TypePause| pause.until.is_some_and(|until| until <= now);
        self.0.values_mut().for_each(|control| control.pause = control.pause.take().filter(|pause| !has_ended(pause)));
        self.tidied()
    }

    /// Changes the decisions about a type.
    pub(crate) fn change(&mut self, name: &JobName, change: impl FnOnce(&mut TypeControl)) {
        change(self.0.entry(name.clone()).or_default());
        *self = std::mem::take(self).tidied();
    }

    /// Removes the types without a decision.
    fn tidied(mut self) -> Self {
        self.0.retain(|_, control| *control != TypeControl::default());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> JobName {
        JobName::new(name).expect("a valid name")
    }

    fn pause(until: Option<i64>) -> TypePause {
        let until = until.map(Timestamp::from_micros);
        TypePause { reason: "no paper".to_owned(), since: Timestamp::from_micros(1), until }
    }

    fn controls() -> Controls {
        let mut controls = Controls::default();
        controls.change(&name("Paused"), |control| control.pause = Some(pause(None)));
        controls.change(&name("Timed"), |control| control.pause = Some(pause(Some(10))));
        controls.change(&name("Timed"), |control| control.per_process = Some(2));
        controls
    }

    #[test]
    fn document_survives_its_stored_form() {
        let bytes = serde_json::to_vec(&controls()).expect("JSON");
        assert_eq!(Controls::decode(Some(&bytes)).expect("a document"), controls());
        assert_eq!(Controls::decode(None).expect("no document"), Controls::default());
    }

    #[test]
    fn unusable_document_is_an_error() {
        for (bytes, message) in [
            (r#"{"format": 2, "kinds": {}}"#, r#"format 2 of the document "types": expected 1 or less"#),
            (r#"{"format": 1}"#, r#"the document "types" cannot be read"#),
            ("{", r#"the document "types" cannot be read"#),
        ] {
            let error = Controls::decode(Some(bytes.as_bytes())).expect_err(bytes).to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn pause_ends_at_its_time() {
        let at = |micros| controls().at(Timestamp::from_micros(micros));
        assert_eq!(at(9), controls());
        assert_eq!(at(10).paused().collect::<Vec<_>>(), [&name("Paused")]);
        assert_eq!(at(10).of(&name("Timed")), TypeControl { pause: None, per_process: Some(2) });
        assert!(at(9).has_ends() && !at(10).has_ends());
    }

    #[test]
    fn limit_only_lowers() {
        let controls = controls().at(Timestamp::from_micros(10));
        assert_eq!((controls.limit(&name("Timed"), 8), controls.limit(&name("Timed"), 1)), (2, 1));
        assert_eq!((controls.allowed(&name("Timed"), 8), controls.allowed(&name("Paused"), 8)), (2, 0));
        assert_eq!((controls.limit(&name("Other"), 8), controls.limit(&name("Paused"), 8)), (8, 8));
    }

    #[test]
    fn type_without_decision_is_left_out() {
        let mut controls = controls();
        controls.change(&name("Paused"), |control| control.pause = None);
        assert_eq!(controls.names().collect::<Vec<_>>(), [&name("Timed")]);
    }
}
