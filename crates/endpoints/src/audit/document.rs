//! The stored entries of the audit trail.

use async_endpoints_core::StoreError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::AuditEntry;
use crate::telemetry::events;

/// The document with the entries.
pub(super) const AUDIT: &str = "audit";
/// Maximum number of entries.
pub(super) const ENTRIES: usize = 500;
/// Maximum number of entries about refused actions, so that attempts without rights do not push out what operators did.
const REFUSED: usize = 100;
/// The outcomes of refused actions.
const REFUSALS: [&str; 3] = ["CROSS_SITE_REQUEST", "FORBIDDEN", "UNAUTHORIZED"];

/// The entries, oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct AuditDocument {
    pub(super) entries: Vec<Stored>,
}

/// An entry with its id. A later record of the same id replaces it, so a repeated write changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) id: Uuid,
    #[serde(flatten)]
    pub(super) entry: AuditEntry,
}

impl AuditDocument {
    /// A document that cannot be decoded is replaced: a damaged trail must not stop the recording.
    pub(super) fn decode(bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        let document = bytes.map(serde_json::from_slice).transpose().unwrap_or_else(|error| {
            events::internal("the audit trail cannot be read, and begins anew", &error);
            None
        });
        Ok(document.unwrap_or_default())
    }

    /// Adds records, and removes the oldest ones beyond the limits.
    pub(super) fn add(&mut self, records: &[Stored]) {
        records.iter().for_each(|record| put(&mut self.entries, record.clone()));
        let is_refused = |stored: &Stored| REFUSALS.contains(&stored.entry.outcome.as_str());
        let mut surplus = self.entries.iter().filter(|stored| is_refused(stored)).count().saturating_sub(REFUSED);
        self.entries.retain(|stored| {
            let is_removed = surplus > 0 && is_refused(stored);
            surplus -= usize::from(is_removed);
            !is_removed
        });
        self.entries.drain(..self.entries.len().saturating_sub(ENTRIES));
    }
}

/// Replaces the record of the same id, or adds one.
pub(super) fn put(records: &mut Vec<Stored>, record: Stored) {
    match records.iter_mut().find(|stored| stored.id == record.id) {
        Some(stored) => *stored = record,
        None => records.push(record),
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::Timestamp;

    use super::*;

    fn record(id: u128, who: &str, outcome: &str) -> Stored {
        let entry = AuditEntry {
            at: Timestamp::from_micros(0),
            who: who.to_owned(),
            action: "job.cancel".to_owned(),
            target: None,
            values: None,
            outcome: outcome.to_owned(),
            trace_id: None,
        };
        Stored { id: Uuid::from_u128(id), entry }
    }

    fn ids(document: &AuditDocument) -> Vec<u128> {
        document.entries.iter().map(|stored| stored.id.as_u128()).collect()
    }

    #[test]
    fn outcome_replaces_intent_in_place() {
        let mut document = AuditDocument::default();
        document.add(&[record(1, "ada", "started"), record(2, "bob", "started")]);
        let end = [record(1, "ada", "ok")];
        document.add(&end);
        document.add(&end);
        assert_eq!(document.entries, [record(1, "ada", "ok"), record(2, "bob", "started")]);
    }

    #[test]
    fn oldest_entries_make_way() {
        let mut document = AuditDocument::default();
        let all: Vec<Stored> = (0..ENTRIES as u128 + 3).map(|id| record(id, "ada", "ok")).collect();
        document.add(&all);
        assert_eq!((document.entries.len(), ids(&document)[0]), (ENTRIES, 3));
    }

    #[test]
    fn refused_actions_push_out_refused_actions_only() {
        for (who, refusal) in
            [("unknown", "UNAUTHORIZED"), ("token:a7f3da13", "FORBIDDEN"), ("loopback", "CROSS_SITE_REQUEST")]
        {
            let mut document = AuditDocument::default();
            document.add(&[record(1, "ada", "ok")]);
            for id in 0..1_000 {
                document.add(&[record(1_000 + id, who, refusal)]);
            }
            assert_eq!(document.entries.len(), 1 + REFUSED, "{refusal}");
            assert_eq!(ids(&document)[..2], [1, 1_900], "{refusal}");
        }
    }

    #[test]
    fn damaged_document_is_replaced() {
        assert!(AuditDocument::decode(Some(b"{")).is_ok_and(|document| document.entries.is_empty()));
        let bytes = serde_json::to_vec(&AuditDocument { entries: vec![record(1, "ada", "ok")] }).expect("JSON");
        assert_eq!(AuditDocument::decode(Some(&bytes)).expect("a document").entries, [record(1, "ada", "ok")]);
    }
}
