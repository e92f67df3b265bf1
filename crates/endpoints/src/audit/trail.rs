//! Records actions: the intent before an action runs, the outcome after it.
//!
//! An action runs although its record cannot be written: the trail is one document that all processes write, and a moment of
//! contention must not refuse what an operator needs now. While the store is away, most actions fail by themselves, and the test
//! of alert senders must work. Records that could not be written wait, and the next record writes them too. Each action is
//! also logged, as `operator.action`.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{Store, StoreError};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    AuditEntry,
    document::{AUDIT, AuditDocument, ENTRIES, Stored, put},
};
use crate::{
    error::cut,
    shared_document,
    store_call::{limited, within},
    sync::Mutex,
    telemetry::{current_trace_id, events},
};

/// How long an action waits for its record.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum bytes of a target and of a text in the values. A longer one is cut.
const TEXT_BYTES: usize = 256;
/// Maximum bytes of the values, as JSON. Longer ones are left out.
const VALUES_BYTES: usize = 1024;
/// Maximum levels of objects in a request, itself included. The values of one with more levels are left out.
const VALUES_LEVELS: u8 = 2;

const STARTED: &str = "started";
const INTERRUPTED: &str = "interrupted";
/// The outcome of an action that did what it should.
pub(crate) const OK: &str = "ok";

/// An action that an operator wants.
pub(crate) struct Action {
    pub(crate) who: String,
    /// Its name, such as `job.cancel`.
    pub(crate) name: &'static str,
    /// The id or name of what it acts on.
    pub(crate) target: Option<String>,
    /// The fields of the request, without the target.
    pub(crate) values: Map<String, Value>,
}

/// What became of an action.
pub(crate) struct Outcome {
    /// `ok`, or the code of the problem.
    pub(crate) text: String,
    /// The id of what the action made; none where the action names its target.
    pub(crate) target: Option<String>,
}

impl From<&str> for Outcome {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), target: None }
    }
}

/// The audit trail of the fleet.
pub(crate) struct Trail {
    store: Arc<dyn Store>,
    /// Records that are not yet stored.
    pending: Mutex<Vec<Stored>>,
    /// Held by the one call that writes. Records that come meanwhile are written together by the next one.
    turn: tokio::sync::Mutex<()>,
}

impl Trail {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, pending: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    /// Runs an action, and records its intent and outcome. If the future is dropped, the outcome is `interrupted`.
    pub(crate) async fn record<T>(
        self: &Arc<Self>,
        action: Action,
        run: impl Future<Output = T>,
        outcome: impl FnOnce(&T) -> Outcome,
    ) -> T {
        let mut recording = Recording { trail: self, record: started(action), has_ended: false };
        self.add(recording.record.clone());
        self.write_or_log().await;
        let done = run.await;
        let Outcome { text, target } = outcome(&done);
        if let Some(target) = target {
            recording.record.entry.target = Some(cut(target, TEXT_BYTES));
        }
        recording.end(text);
        self.write_or_log().await;
        done
    }

    /// Records an action that was refused. Returns at once: a refusal has no effect that the record must come before.
    pub(crate) fn record_refusal(self: &Arc<Self>, action: Action, outcome: &str) {
        let mut recording = Recording { trail: self, record: started(action), has_ended: false };
        recording.end(outcome.to_owned());
        self.write_later();
    }

    /// Returns the stored entries, newest first.
    pub(crate) async fn entries(&self) -> Result<Vec<AuditEntry>, StoreError> {
        let document = within(self.store.document(AUDIT)).await?;
        let AuditDocument { entries } = AuditDocument::decode(document.as_ref().map(|document| &*document.bytes))?;
        Ok(entries.into_iter().rev().map(|stored| stored.entry).collect())
    }

    /// Adds a record to those to write. If there are too many, it is in the log alone.
    fn add(&self, record: Stored) {
        let mut pending = self.pending.lock();
        if pending.len() < ENTRIES || pending.iter().any(|waiting| waiting.id == record.id) {
            put(&mut pending, record);
        }
    }

    async fn write_or_log(&self) {
        if let Err(error) = limited(PATIENCE, self.write()).await {
            events::audit_not_written(self.pending.lock().len(), &error);
        }
    }

    /// Writes all pending records at once. They stay pending if this fails or is dropped.
    async fn write(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let records = self.pending.lock().clone();
        if records.is_empty() {
            return Ok(());
        }
        let add = |document: &mut AuditDocument| {
            document.add(&records);
            Some(())
        };
        shared_document::update(&*self.store, AUDIT, AuditDocument::decode, add).await?;
        self.pending.lock().retain(|record| !records.contains(record));
        Ok(())
    }

    fn write_later(self: &Arc<Self>) {
        let trail = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { trail.write_or_log().await });
        }
    }
}

fn started(Action { who, name, target, values }: Action) -> Stored {
    let entry = AuditEntry {
        at: std::time::SystemTime::now().into(),
        who,
        action: name.to_owned(),
        target: target.map(|target| cut(target, TEXT_BYTES)),
        values: kept(values),
        outcome: STARTED.to_owned(),
        trace_id: current_trace_id(),
    };
    Stored { id: Uuid::new_v4(), entry }
}

/// The values to store. The trail is read as a whole, so they must not make it long or impossible to parse.
fn kept(mut values: Map<String, Value>) -> Option<Map<String, Value>> {
    values.retain(|_, value| !value.is_null());
    let Value::Object(values) = shortened(Value::Object(values), VALUES_LEVELS)? else { return None };
    let size = serde_json::to_string(&values).ok()?.len();
    (!values.is_empty() && size <= VALUES_BYTES).then_some(values)
}

/// Cuts long texts. None for a list, and for more levels of objects.
fn shortened(value: Value, levels: u8) -> Option<Value> {
    match value {
        Value::String(text) => Some(Value::String(cut(text, TEXT_BYTES))),
        Value::Object(fields) => {
            let levels = levels.checked_sub(1)?;
            let fields = fields.into_iter().map(|(name, value)| Some((name, shortened(value, levels)?)));
            Some(Value::Object(fields.collect::<Option<_>>()?))
        }
        Value::Array(_) => None,
        plain => Some(plain),
    }
}

/// The record of a running action.
struct Recording<'a> {
    trail: &'a Arc<Trail>,
    record: Stored,
    has_ended: bool,
}

impl Recording<'_> {
    fn end(&mut self, outcome: String) {
        self.has_ended = true;
        self.record.entry.outcome = outcome;
        let AuditEntry { who, action, target, values, outcome, .. } = &self.record.entry;
        let values = values.as_ref().and_then(|values| serde_json::to_string(values).ok());
        events::operator_action(who, action, target.as_deref(), values.as_deref(), outcome);
        self.trail.add(self.record.clone());
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(INTERRUPTED.to_owned());
            self.trail.write_later();
        }
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{MemoryStore, store::StoreOperation};
    use async_endpoints_testkit::{FlakyStore, When};
    use futures_util::{FutureExt, future};
    use serde_json::json;

    use super::*;

    fn action(name: &'static str) -> Action {
        Action { who: "ada".to_owned(), name, target: Some("7".to_owned()), values: Map::new() }
    }

    async fn outcomes(trail: &Trail) -> Vec<(String, String)> {
        let entries = trail.entries().await.expect("memory answers");
        entries.into_iter().map(|entry| (entry.action, entry.outcome)).collect()
    }

    fn pair(action: &str, outcome: &str) -> (String, String) {
        (action.to_owned(), outcome.to_owned())
    }

    #[tokio::test]
    async fn intent_is_stored_before_the_action_runs() {
        let trail = Trail::new(Arc::new(MemoryStore::new()));
        let run = async {
            assert_eq!(outcomes(&trail).await, [pair("job.cancel", STARTED)]);
            "JOB_ENDED"
        };
        trail.record(action("job.cancel"), run, |code| (*code).into()).await;
        trail.record(action("job.retry"), async {}, |()| OK.into()).await;
        assert_eq!(outcomes(&trail).await, [pair("job.retry", OK), pair("job.cancel", "JOB_ENDED")]);
        let entry = &trail.entries().await.expect("memory answers")[0];
        assert_eq!((entry.who.as_str(), entry.target.as_deref()), ("ada", Some("7")));
    }

    #[tokio::test]
    async fn target_that_the_action_made_replaces_the_intended_one() {
        let trail = Trail::new(Arc::new(MemoryStore::new()));
        let made = |target: Option<&str>| Outcome { target: target.map(str::to_owned), ..OK.into() };
        trail.record(Action { target: None, ..action("bulk.preview") }, async {}, |()| made(Some("8"))).await;
        trail.record(action("bulk.start"), async {}, |()| made(None)).await;
        let entries = trail.entries().await.expect("memory answers");
        let targets: Vec<_> = entries.iter().map(|entry| entry.target.as_deref()).collect();
        assert_eq!(targets, [Some("7"), Some("8")]);
    }

    #[test]
    fn values_are_short_and_flat() {
        let (long, cut) = ("é".repeat(TEXT_BYTES), "é".repeat(TEXT_BYTES / 2));
        let pause = json!({ "reason": cut, "until": "2026-12-01T12:00:00Z" });
        let bulk = json!({ "action": "retry", "filter": { "code": cut, "q": cut } });
        for (values, expected) in [
            (json!({}), None),
            (json!({ "until": null }), None),
            (json!({ "perProcess": 2 }), Some(json!({ "perProcess": 2 }))),
            (json!({ "reason": long, "until": "2026-12-01T12:00:00Z" }), Some(pause)),
            (json!({ "action": "retry", "filter": { "code": long, "q": long } }), Some(bulk)),
            (json!({ "a": long, "b": long, "c": long, "d": long }), None),
            (json!({ "a": { "b": {} } }), None),
            (json!({ "a": [] }), None),
        ] {
            let Value::Object(values) = values else { panic!("expected an object, not {values}") };
            assert_eq!(kept(values).map(Value::Object), expected);
        }
    }

    #[tokio::test]
    async fn deep_values_leave_the_trail_readable() {
        let trail = Trail::new(Arc::new(MemoryStore::new()));
        let deep = format!("{{\"reason\": {}{}}}", "[".repeat(125), "]".repeat(125));
        let values = serde_json::from_str(&deep).expect("JSON");
        trail.record(Action { values, ..action("type.pause") }, async {}, |()| OK.into()).await;
        trail.record(action("type.resume"), async {}, |()| OK.into()).await;
        assert_eq!(outcomes(&trail).await, [pair("type.resume", OK), pair("type.pause", OK)]);
    }

    #[tokio::test]
    async fn records_that_come_together_are_written_together() {
        let store = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let trail = Trail::new(store.clone());
        let all = (0..50).map(|_| trail.record(action("job.cancel"), async {}, |()| OK.into()));
        future::join_all(all).await;
        assert_eq!(outcomes(&trail).await, vec![pair("job.cancel", OK); 50]);
        // Each wait for the turn ends with at most one write, and the last ones find nothing to write.
        assert!(trail.pending.lock().is_empty());
    }

    #[tokio::test]
    async fn trails_of_two_processes_keep_each_others_entries() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (here, there) = (Trail::new(store.clone()), Trail::new(store));
        let ten = |trail: &Arc<Trail>| {
            let trail = trail.clone();
            async move {
                let all = (0..10).map(|_| trail.record(action("job.cancel"), async {}, |()| OK.into()));
                future::join_all(all).await;
            }
        };
        tokio::join!(ten(&here), ten(&there));
        assert_eq!(outcomes(&here).await, vec![pair("job.cancel", OK); 20]);
    }

    #[tokio::test]
    async fn action_runs_though_the_trail_cannot_be_written() {
        let store = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let trail = Trail::new(store.clone());
        store.fail_next(StoreOperation::PutDocument, When::Before);
        let run = async { assert_eq!(outcomes(&trail).await, [], "the intent is not stored") };
        trail.record(action("job.cancel"), run, |()| OK.into()).await;
        assert_eq!(outcomes(&trail).await, [pair("job.cancel", OK)], "the outcome is");
        store.fail_next(StoreOperation::PutDocument, When::After);
        trail.record(action("job.retry"), async {}, |()| OK.into()).await;
        assert_eq!(outcomes(&trail).await, [pair("job.retry", OK), pair("job.cancel", OK)], "each once");
    }

    #[tokio::test]
    async fn dropped_action_is_interrupted() {
        let trail = Trail::new(Arc::new(MemoryStore::new()));
        let never = trail.record(action("job.cancel"), future::pending::<()>(), |()| OK.into());
        assert!(Box::pin(never).now_or_never().is_none());
        while outcomes(&trail).await != [pair("job.cancel", INTERRUPTED)] {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn refusal_is_recorded() {
        let trail = Trail::new(Arc::new(MemoryStore::new()));
        trail.record_refusal(action("job.cancel"), "CROSS_SITE_REQUEST");
        while outcomes(&trail).await != [pair("job.cancel", "CROSS_SITE_REQUEST")] {
            tokio::task::yield_now().await;
        }
    }
}
