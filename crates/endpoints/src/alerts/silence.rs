//! Silences: an operator's decision that a rule sends no notification for a time.

use std::time::Duration;

use async_endpoints_core::{Store, StoreError, Timestamp, store::StatsQuery};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::document::{SILENCES, read, update};
use crate::{
    store_call::within,
    text::{is_plain_text, shortened},
};

/// Maximum number of silences at a time.
const SILENCES_KEPT: usize = 100;
/// Maximum bytes of an author's name, and of a reason.
const TEXT_BYTES: usize = 1 << 10;
/// Maximum time until the end of a silence.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Suppresses the notifications of a rule. An alert that still fires when its silence ends is notified then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Unique id.
    pub id: Uuid,
    /// Name of the rule.
    pub rule: String,
    /// Who decided it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When it ends, by the store's clock.
    pub ends_at: Timestamp,
}

/// A silence to add.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSilence {
    /// Name of the rule.
    pub rule: String,
    /// Who decides it: 1 to 1024 bytes without control characters and line breaks.
    pub author: String,
    /// Why: 1 to 1024 bytes without control characters and line breaks.
    pub reason: String,
    /// When it ends, by the store's clock: at most a year ahead.
    pub ends_at: Timestamp,
}

/// A silence was not added.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
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
    /// There are too many silences.
    #[error("there are {SILENCES_KEPT} silences: delete one first")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SilenceError {
    /// The error of a rule that is none of `rules`.
    pub(crate) fn unknown_rule(rule: &str, rules: &[&str]) -> Self {
        let expected = match rules {
            [] => "a rule, but there are none".to_owned(),
            rules => format!("one of {}", rules.join(", ")),
        };
        Self::Field { field: "rule", value: shortened(rule), expected }
    }
}

/// The stored silences. Ended ones are removed by the next write.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SilenceDocument {
    silences: Vec<Silence>,
}

/// Returns the silences that have not ended at `now`.
pub(super) async fn active(store: &dyn Store, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
    let SilenceDocument { mut silences } = read(store, SILENCES).await?;
    silences.retain(|silence| silence.ends_at > now);
    Ok(silences)
}

/// The current time, by the store's clock.
pub(super) async fn now(store: &dyn Store) -> Result<Timestamp, StoreError> {
    Ok(within(store.stats(&StatsQuery::default())).await?.now)
}

/// Stores a silence of one of these rules.
pub(super) async fn add(store: &dyn Store, new: NewSilence, rules: &[&str]) -> Result<Silence, SilenceError> {
    check_texts(&new, rules)?;
    let now = now(store).await?;
    let NewSilence { rule, author, reason, ends_at } = new;
    if ends_at <= now || ends_at > now + YEAR {
        let expected = format!("a time after {now}, at most a year later");
        return Err(SilenceError::Field { field: "endsAt", value: ends_at.to_string(), expected });
    }
    let silence = Silence { id: Uuid::now_v7(), rule, author, reason, ends_at };
    let added = update(store, SILENCES, |document: &mut SilenceDocument| {
        document.silences.retain(|silence| silence.ends_at > now);
        let fits = document.silences.len() < SILENCES_KEPT;
        fits.then(|| document.silences.push(silence.clone()))
    });
    added.await?.ok_or(SilenceError::TooMany)?;
    Ok(silence)
}

/// Deletes a silence. Returns whether there was one.
pub(super) async fn delete(store: &dyn Store, id: Uuid) -> Result<bool, StoreError> {
    let now = now(store).await?;
    let deleted = update(store, SILENCES, |document: &mut SilenceDocument| {
        document.silences.retain(|silence| silence.ends_at > now);
        let position = document.silences.iter().position(|silence| silence.id == id)?;
        Some(document.silences.remove(position))
    });
    Ok(deleted.await?.is_some())
}

fn check_texts(new: &NewSilence, rules: &[&str]) -> Result<(), SilenceError> {
    let NewSilence { rule, author, reason, ends_at: _ } = new;
    if !rules.contains(&rule.as_str()) {
        return Err(SilenceError::unknown_rule(rule, rules));
    }
    for (field, value) in [("author", author), ("reason", reason)] {
        if value.trim().is_empty() || value.len() > TEXT_BYTES || !is_plain_text(value) {
            let expected = format!("a text of 1 to {TEXT_BYTES} bytes without control characters or line breaks");
            return Err(SilenceError::Field { field, value: shortened(value), expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{Clock, MemoryStore};
    use async_endpoints_testkit::ManualClock;

    use super::*;

    fn new(clock: &ManualClock, seconds: u64) -> NewSilence {
        let ends_at = clock.now() + Duration::from_secs(seconds);
        NewSilence { rule: "a".to_owned(), author: "Ada".to_owned(), reason: "deployment".to_owned(), ends_at }
    }

    #[tokio::test]
    async fn silence_is_active_until_its_end() {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        let silence = add(&store, new(&clock, 10), &["a"]).await.expect("a silence");
        assert_eq!(active(&store, clock.now()).await.expect("memory answers"), std::slice::from_ref(&silence));
        clock.advance(Duration::from_secs(10));
        assert_eq!(active(&store, clock.now()).await.expect("memory answers"), []);
        assert!(!delete(&store, silence.id).await.expect("memory answers"), "an ended silence is no silence");
    }

    #[tokio::test]
    async fn silence_is_deleted_once() {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        let silence = add(&store, new(&clock, 10), &["a"]).await.expect("a silence");
        let kept = add(&store, new(&clock, 10), &["a"]).await.expect("a silence");
        assert!(delete(&store, silence.id).await.expect("memory answers"));
        assert!(!delete(&store, silence.id).await.expect("memory answers"));
        assert_eq!(active(&store, clock.now()).await.expect("memory answers"), [kept]);
    }

    #[tokio::test]
    async fn invalid_silence_names_field_and_expectation() {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        let valid = || new(&clock, 10);
        for (new, message) in [
            (NewSilence { rule: "c".to_owned(), ..valid() }, r#"invalid rule "c": expected one of a, b"#),
            (
                NewSilence { author: " ".to_owned(), ..valid() },
                r#"invalid author " ": expected a text of 1 to 1024 bytes without control characters or line breaks"#,
            ),
            (
                NewSilence { reason: String::new(), ..valid() },
                r#"invalid reason "": expected a text of 1 to 1024 bytes without control characters or line breaks"#,
            ),
            (
                new(&clock, 0),
                "invalid endsAt \"2026-03-01T12:00:00.000000Z\": expected a time after 2026-03-01T12:00:00.000000Z, at most a \
                 year later",
            ),
        ] {
            assert_eq!(add(&store, new, &["a", "b"]).await.expect_err("invalid").to_string(), message);
        }
    }

    #[tokio::test]
    async fn texts_and_times_are_limited() {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        let year = YEAR.as_secs();
        for (bytes, seconds, fits) in [(1024, year, true), (1025, year, false), (1024, year + 1, false)] {
            let text = "x".repeat(bytes);
            let new = NewSilence { author: text.clone(), reason: text, ..new(&clock, seconds) };
            assert_eq!(add(&store, new, &["a"]).await.is_ok(), fits, "{bytes} bytes, {seconds} s");
        }
    }

    #[tokio::test]
    async fn number_of_silences_is_limited() {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        for _ in 0..SILENCES_KEPT {
            add(&store, new(&clock, 10), &["a"]).await.expect("a silence");
        }
        let refused = add(&store, new(&clock, 20), &["a"]).await;
        assert!(matches!(refused, Err(SilenceError::TooMany)), "{refused:?}");
        clock.advance(Duration::from_secs(10));
        add(&store, new(&clock, 10), &["a"]).await.expect("ended silences do not count");
    }
}
