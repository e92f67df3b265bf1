//! Two processes over one store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore, MemoryStore, Store, StoreError, Timestamp,
    store::{CancelOutcome, JobLookup, StoreOperation, WorkerId},
};
use async_endpoints_testkit::{FlakyStore, When, jobs::job};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::{Act, Acted, Bulk, BulkAction, BulkError, BulkFilter, BulkOperation, BulkStatus, NewBulk};
use crate::error::Builtin;

const LEASE: Duration = Duration::from_millis(200);

/// A process that runs bulk operations. Dropping it is its death: it gives nothing up.
struct Process {
    bulk: Arc<Bulk>,
    _task: AbortOnDropHandle<()>,
}

impl Process {
    fn start(store: &Arc<dyn Store>, act: Act) -> Self {
        let bulk = Bulk::new(store.clone(), WorkerId(Uuid::new_v4()), LEASE);
        let runs = bulk.clone();
        let task = tokio::spawn(async move { runs.run(&act, &CancellationToken::new()).await });
        Self { bulk, _task: AbortOnDropHandle::new(task) }
    }

    async fn preview(&self, status: Option<JobStatus>) -> super::BulkPreview {
        self.bulk.preview(cancel(status)).await.expect("the store answers")
    }

    async fn operation(&self, id: Uuid) -> BulkOperation {
        let operations = self.bulk.operations().await.expect("the store answers");
        operations.into_iter().find(|operation| operation.id == id).expect("started")
    }

    async fn ended(&self, id: Uuid) -> BulkOperation {
        loop {
            let operation = self.operation(id).await;
            if operation.ended_at.is_some() {
                return operation;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn cancel(status: Option<JobStatus>) -> NewBulk {
    NewBulk { action: BulkAction::Cancel, filter: BulkFilter { status, ..BulkFilter::default() } }
}

/// Cancels jobs and counts the calls.
fn canceling(store: &Arc<dyn Store>, calls: &Arc<AtomicUsize>) -> Act {
    let (store, calls) = (store.clone(), calls.clone());
    Box::new(move |_, _, id| {
        let (store, calls) = (store.clone(), calls.clone());
        Box::pin(async move {
            calls.fetch_add(1, Ordering::Relaxed);
            canceled(&*store, id).await
        })
    })
}

async fn canceled(store: &dyn Store, id: JobId) -> Result<Acted, StoreError> {
    Ok(match store.cancel(id, &Builtin::Canceled.record(None)).await? {
        CancelOutcome::Canceled(_) | CancelOutcome::Requested(_) => Acted::Changed,
        CancelOutcome::Terminal(_) => Acted::Already,
        CancelOutcome::Gone { .. } | CancelOutcome::NotFound => Acted::Skipped,
    })
}

/// Cancels this number of jobs, then blocks.
fn blocking_after(store: &Arc<dyn Store>, jobs: usize, blocked: &Arc<Notify>) -> Act {
    let (store, blocked, calls) = (store.clone(), blocked.clone(), Arc::new(AtomicUsize::new(0)));
    Box::new(move |_, _, id| {
        let (store, blocked, calls) = (store.clone(), blocked.clone(), calls.clone());
        Box::pin(async move {
            if calls.fetch_add(1, Ordering::Relaxed) >= jobs {
                blocked.notify_one();
                return std::future::pending().await;
            }
            canceled(&*store, id).await
        })
    })
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

async fn insert(store: &Arc<dyn Store>, jobs: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..jobs {
        let new = job("A", Duration::from_secs(60));
        ids.push(new.id);
        store.insert(new).await.expect("the store answers");
    }
    ids
}

async fn status(store: &Arc<dyn Store>, id: JobId) -> JobStatus {
    match store.get(id).await.expect("the store answers") {
        JobLookup::Found(job) => job.status,
        other => panic!("not found: {other:?}"),
    }
}

fn counts(operation: &BulkOperation) -> (BulkStatus, Option<u64>, u64, u64, u64) {
    let BulkOperation { status, total, changed, skipped, failed, .. } = operation;
    (*status, *total, *changed, *skipped, *failed)
}

#[tokio::test]
async fn members_of_the_preview_are_changed_and_later_jobs_are_not() {
    for filtered in [Some(JobStatus::Queued), None] {
        let store = memory();
        let calls = Arc::default();
        let process = Process::start(&store, canceling(&store, &calls));
        let members = insert(&store, 500).await;
        let preview = process.preview(filtered).await;
        assert_eq!((preview.count, preview.complete, preview.sample.len()), (500, true, 10));
        let late = insert(&store, 70).await;
        // A member that leaves before its turn.
        store.cancel(members[499], &Builtin::Canceled.record(None)).await.expect("the store answers");
        process.bulk.start(preview.id).await.expect("the preview exists");
        let ended = process.ended(preview.id).await;
        assert_eq!(counts(&ended), (BulkStatus::Completed, Some(500), 499, 1, 0), "{filtered:?}");
        for id in members {
            assert_eq!(status(&store, id).await, JobStatus::Canceled);
        }
        for id in late {
            assert_eq!(status(&store, id).await, JobStatus::Queued);
        }
    }
}

#[tokio::test]
async fn another_process_continues_after_a_crash() {
    for jobs_before_the_crash in [0, 3, 64, 100, 499] {
        let store = memory();
        let blocked = Arc::new(Notify::new());
        let dying = Process::start(&store, blocking_after(&store, jobs_before_the_crash, &blocked));
        let members = insert(&store, 500).await;
        let preview = dying.preview(Some(JobStatus::Queued)).await;
        dying.bulk.start(preview.id).await.expect("the preview exists");
        blocked.notified().await;
        drop(dying);
        let calls = Arc::default();
        let next = Process::start(&store, canceling(&store, &calls));
        let ended = next.ended(preview.id).await;
        assert_eq!(counts(&ended), (BulkStatus::Completed, Some(500), 500, 0, 0), "{jobs_before_the_crash}");
        let repeated = calls.load(Ordering::Relaxed) + jobs_before_the_crash - 500;
        assert!(repeated <= 64, "only members of one chunk are repeated: {repeated}");
        for id in members {
            assert_eq!(status(&store, id).await, JobStatus::Canceled);
        }
    }
}

#[tokio::test]
async fn stopped_operation_changes_no_more_jobs() {
    let store = memory();
    let blocked = Arc::new(Notify::new());
    let slow: Act = {
        let (store, blocked) = (store.clone(), blocked.clone());
        Box::new(move |_, _, id| {
            let (store, blocked) = (store.clone(), blocked.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                blocked.notify_one();
                canceled(&*store, id).await
            })
        })
    };
    let process = Process::start(&store, slow);
    insert(&store, 1_000).await;
    let preview = process.preview(Some(JobStatus::Queued)).await;
    process.bulk.start(preview.id).await.expect("the preview exists");
    blocked.notified().await;
    let stopping = process.bulk.stop(preview.id).await.expect("started");
    assert_eq!(stopping.status, BulkStatus::Stopping);
    let ended = tokio::time::timeout(Duration::from_secs(2), process.ended(preview.id)).await.expect("within 2 s");
    assert!(ended.status == BulkStatus::Stopped && ended.changed < 1_000 && ended.total == Some(1_000), "{ended:?}");
    let stopped = process.preview(Some(JobStatus::Queued)).await;
    assert_eq!(stopped.count + ended.changed, 1_000, "the counts are exact");
    assert_eq!(process.bulk.stop(preview.id).await.expect("started"), ended, "it stays stopped");
    assert_eq!(process.bulk.start(preview.id).await.expect("started"), ended, "a repeated start runs nothing again");
}

#[tokio::test]
async fn stopped_operation_of_a_dead_process_changes_no_more_jobs() {
    let store = memory();
    insert(&store, 500).await;
    let blocked = Arc::new(Notify::new());
    let process = Process::start(&store, blocking_after(&store, 100, &blocked));
    let (preview, waiting) =
        (process.preview(Some(JobStatus::Queued)).await, process.preview(Some(JobStatus::Queued)).await);
    for id in [preview.id, waiting.id] {
        process.bulk.start(id).await.expect("the preview exists");
    }
    blocked.notified().await;
    drop(process);
    let calls = Arc::default();
    let next = Process::start(&store, canceling(&store, &calls));
    let stopped = next.bulk.stop(waiting.id).await.expect("started");
    assert_eq!(stopped.status, BulkStatus::Stopped, "it waited");
    assert_eq!(next.bulk.stop(preview.id).await.expect("started").status, BulkStatus::Stopping);
    assert_eq!(next.ended(preview.id).await.status, BulkStatus::Stopped);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn failed_calls_are_repeated_and_counted_once() {
    let inner = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
    let store: Arc<dyn Store> = inner.clone();
    insert(&store, 100).await;
    for when in [When::Before, When::After] {
        inner.fail_next(StoreOperation::Cancel, when);
    }
    let calls = Arc::default();
    let process = Process::start(&store, canceling(&store, &calls));
    let preview = process.preview(Some(JobStatus::Queued)).await;
    for when in [When::Before, When::After] {
        inner.fail_next(StoreOperation::PutDocument, when);
    }
    // The start itself may fail.
    while process.bulk.start(preview.id).await.is_err() {}
    let ended = process.ended(preview.id).await;
    assert_eq!(counts(&ended), (BulkStatus::Completed, Some(100), 100, 0, 0));
}

#[tokio::test]
async fn operations_of_two_processes_run_one_after_the_other() {
    let store = memory();
    let calls: Arc<AtomicUsize> = Arc::default();
    let first = Process::start(&store, canceling(&store, &calls));
    let second = Process::start(&store, canceling(&store, &calls));
    insert(&store, 300).await;
    let (a, b) = (first.preview(Some(JobStatus::Queued)).await, second.preview(None).await);
    first.bulk.start(a.id).await.expect("the preview exists");
    second.bulk.start(b.id).await.expect("the preview exists");
    let again = second.bulk.start(a.id).await.expect("a repeat");
    assert_eq!(again.id, a.id);
    let (a, b) = (first.ended(a.id).await, first.ended(b.id).await);
    assert_eq!(counts(&a), (BulkStatus::Completed, Some(300), 300, 0, 0));
    assert_eq!(counts(&b), (BulkStatus::Completed, Some(300), 0, 300, 0));
}

#[tokio::test]
async fn invalid_requests_are_errors() {
    let bulk = Bulk::new(memory(), WorkerId(Uuid::nil()), LEASE);
    let all = BulkFilter::default;
    for (action, filter, message) in [
        (
            BulkAction::Cancel,
            BulkFilter { status: Some(JobStatus::Failed), ..all() },
            r#"invalid status "Failed": expected Queued, Scheduled or InProgress to cancel"#,
        ),
        (
            BulkAction::Retry,
            BulkFilter { status: Some(JobStatus::Queued), ..all() },
            r#"invalid status "Queued": expected Failed or Canceled to retry"#,
        ),
        (
            BulkAction::Retry,
            BulkFilter { owner: Some("ada".to_owned()), ..all() },
            r#"invalid owner "ada": expected 64 hexadecimal digits, as in the owner of a job"#,
        ),
        (
            BulkAction::Retry,
            BulkFilter { text: Some(String::new()), ..all() },
            r#"invalid q "": expected a text of 1 to 200 bytes"#,
        ),
        (
            BulkAction::Retry,
            BulkFilter { since: Some(Timestamp::from_micros(1)), until: Some(Timestamp::from_micros(0)), ..all() },
            r#"invalid since "1970-01-01T00:00:00.000001Z": expected a time that is not after until"#,
        ),
    ] {
        let error = bulk.preview(NewBulk { action, filter }).await.expect_err("invalid");
        assert_eq!(error.to_string(), message);
    }
    for result in [bulk.start(Uuid::nil()).await, bulk.stop(Uuid::nil()).await, bulk.operation(Uuid::nil()).await] {
        assert!(matches!(result, Err(BulkError::NotFound)), "{result:?}");
    }
    let preview = bulk.preview(cancel(None)).await.expect("memory answers");
    for result in [bulk.stop(preview.id).await, bulk.operation(preview.id).await] {
        assert!(matches!(result, Err(BulkError::NotStarted)), "a preview is no operation: {result:?}");
    }
}

#[tokio::test]
async fn numbers_of_previews_and_operations_are_limited() {
    let bulk = Bulk::new(memory(), WorkerId(Uuid::nil()), LEASE);
    let mut previews = Vec::new();
    for _ in 0..21 {
        previews.push(bulk.preview(cancel(None)).await.expect("memory answers").id);
    }
    let oldest = previews[0];
    for result in [bulk.start(oldest).await, bulk.stop(oldest).await, bulk.operation(oldest).await] {
        assert!(matches!(result, Err(BulkError::Expired)), "{result:?}");
    }
    for id in &previews[1..11] {
        bulk.start(*id).await.expect("the preview exists");
    }
    assert!(matches!(bulk.start(previews[11]).await, Err(BulkError::TooMany)));
    bulk.start(previews[10]).await.expect("a repeat");
    for _ in 0..110 {
        bulk.preview(cancel(None)).await.expect("memory answers");
    }
    assert!(matches!(bulk.start(oldest).await, Err(BulkError::NotFound)), "the ids of the last 100 are kept");
    assert!(matches!(bulk.start(previews[11]).await, Err(BulkError::Expired)));
}
