//! Follow-up jobs of handlers, why attempts are stopped, and results in code.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_endpoints::{
    AsyncEndpoints, CancellationReason, Endpoint, FollowUps, JobContext, JobError, JobId, JobLookup, JobPage,
    JobStatus, JobType, JobView, MemoryStore, Options, ResultError, SubmitError, WaitingReason,
};
use async_endpoints_testkit::ManualClock;
use serde_json::{Value, json};
use support::{Service, ended, flaky_store, found, quick, store, until};
use tokio::sync::mpsc;

const ORDER: JobType<u32, String> = JobType::new("Order");
const MAIL: JobType<Value, ()> = JobType::new("Mail");

/// Runs all due jobs. Returns the jobs that handlers submitted, newest first.
async fn mails(endpoints: &AsyncEndpoints) -> Vec<JobView> {
    endpoints.run_until_idle().await.unwrap();
    let JobPage { jobs, .. } = endpoints.jobs().job_type(MAIL).await.unwrap();
    jobs
}

#[tokio::test]
async fn repeated_attempt_submits_each_step_once() {
    async fn order(ctx: JobContext<u32>) -> Result<String, JobError> {
        for piece in 0..*ctx.request() {
            ctx.submit(MAIL, json!(piece)).await?;
            ctx.submit(MAIL, json!(piece)).await?;
        }
        let request = json!({ "attempt": ctx.attempt() });
        let receipt = ctx.submit(MAIL, request).step("receipt").delay(Duration::from_secs(60)).await?;
        assert_eq!(receipt.replayed, ctx.attempt() > 1);
        if ctx.attempt() == 1 { Err("not yet")? } else { Ok(ctx.trace_id().to_string()) }
    }
    let clock = ManualClock::new();
    let endpoints = AsyncEndpoints::builder(MemoryStore::with_clock(clock.clone()))
        .options(Options { owner_labels: true, ..quick() })
        .handler(ORDER, order)
        .build()
        .unwrap();
    let id = endpoints.submit(ORDER, 3).owner("ada").await.unwrap().job.id;
    let first = mails(&endpoints).await;
    assert_eq!((found(&endpoints, id).await.status, first.len()), (JobStatus::Scheduled, 4));
    clock.advance(Duration::from_secs(2));
    let second: Vec<JobId> = mails(&endpoints).await.iter().map(|job| job.id).collect();
    assert_eq!(second, first.iter().map(|job| job.id).collect::<Vec<_>>());
    assert_eq!(found(&endpoints, id).await.status, JobStatus::Completed);

    let order = found(&endpoints, id).await;
    for mail in &first {
        assert_eq!((mail.owner, mail.owner_label.as_deref()), (order.owner, Some("ada")));
    }
    assert_eq!(first[0].status, JobStatus::Scheduled, "the receipt is delayed");

    let other = endpoints.submit(ORDER, 3).await.unwrap().job.id;
    assert_eq!(mails(&endpoints).await.len(), 8, "steps of another job are other steps");
    assert_ne!(other, id);
}

#[tokio::test]
async fn follow_up_job_is_in_the_trace_of_its_attempt() {
    async fn order(ctx: JobContext<u32>) -> Result<String, JobError> {
        // The submission runs in the attempt's scope, also from a task that has none.
        let mail = tokio::spawn(async move {
            let mail = ctx.submit(MAIL, Value::Null).await?;
            Ok::<_, SubmitError>((mail.job.id, ctx.trace_id()))
        });
        let (mail, trace) = mail.await??;
        Ok(format!("{mail} {trace}"))
    }
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/order", ORDER)).handler(ORDER, order).handler(MAIL, async |_| Ok(()))
    })
    .await;
    let job = service.ended(service.submit("/order", json!(1)).await).await;
    let (mail, trace) = job["result"].as_str().unwrap().split_once(' ').unwrap();
    let mail = service.ended(mail.parse().unwrap()).await;
    assert_eq!((&mail["status"], &mail["traceId"]), (&json!("Completed"), &json!(trace)));
    service.stop().await;
}

#[tokio::test]
async fn attempt_submits_during_a_drain() {
    static ENDPOINTS: OnceLock<AsyncEndpoints> = OnceLock::new();
    let (started, mut starts) = mpsc::unbounded_channel();
    let service = Service::start(|builder| {
        builder.handler_with(ORDER, started, async |ctx: JobContext<u32>, started| {
            started.send(())?;
            let endpoints = ENDPOINTS.get().ok_or("the test sets it")?;
            while !endpoints.is_shutting_down() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let refused = endpoints.submit(MAIL, Value::Null).await;
            assert!(matches!(refused, Err(SubmitError::ShuttingDown)), "{refused:?}");
            Ok(ctx.submit(MAIL, Value::Null).await?.job.id.to_string())
        })
    })
    .await;
    assert!(ENDPOINTS.set(service.endpoints.clone()).is_ok());
    let id = service.endpoints.submit(ORDER, 1).await.unwrap().job.id;
    starts.recv().await.unwrap();
    let endpoints = service.endpoints.clone();
    service.stop().await;
    let mail = endpoints.result::<String>(id).await.unwrap().parse().unwrap();
    assert_eq!(found(&endpoints, mail).await.status, JobStatus::Queued);
}

#[tokio::test]
async fn collected_follow_ups_are_recognized_as_in_a_store() {
    let follow_ups = FollowUps::default();
    let ctx = JobContext::for_test(()).with_owner("ada").with_follow_ups(&follow_ups);
    let first = ctx.submit(MAIL, json!(1)).await.unwrap();
    assert_eq!(ctx.submit(MAIL, json!(1)).await.unwrap().job.id, first.job.id);
    ctx.submit(MAIL, json!(2)).step("receipt").await.unwrap();
    assert!(ctx.submit(MAIL, json!(3)).step("receipt").await.unwrap().replayed);
    assert_eq!((follow_ups.of(MAIL), follow_ups.len()), (vec![json!(1), json!(2)], 2));
    let invalid = ctx.submit(JobType::<(), ()>::new("no name"), ()).await;
    assert!(matches!(invalid, Err(SubmitError::Invalid(_))), "{invalid:?}");
    assert!(follow_ups.of(ORDER).is_empty());
}

type Reasons = Arc<Mutex<Vec<CancellationReason>>>;

async fn wait_for_token(ctx: JobContext<()>, reasons: Reasons) -> Result<(), JobError> {
    if ctx.attempt() > 1 {
        return Ok(());
    }
    assert_eq!(ctx.cancellation_reason(), None);
    ctx.progress().message("waits");
    ctx.cancellation().cancelled().await;
    reasons.lock().unwrap().extend(ctx.cancellation_reason());
    ctx.check_canceled()
}

/// Adds handlers that wait for their token, and returns the reasons that they read.
fn stoppable(builder: async_endpoints::Builder) -> (async_endpoints::Builder, Reasons) {
    const STOPPABLE: JobType<(), ()> = JobType::new("Stoppable").timeout(Duration::from_secs(600));
    const SHORT: JobType<(), ()> = JobType::new("Short").timeout(Duration::from_millis(50)).max_retries(0);
    let reasons = Reasons::default();
    let builder = builder.endpoint(Endpoint::post("/stoppable", STOPPABLE)).endpoint(Endpoint::post("/short", SHORT));
    let builder = builder.handler_with(STOPPABLE, reasons.clone(), wait_for_token);
    (builder.handler_with(SHORT, reasons.clone(), wait_for_token), reasons)
}

#[tokio::test]
async fn handler_reads_why_it_is_stopped() {
    let store = store();
    let (builder, reasons) =
        stoppable(support::builder(&store).options(Options { shutdown: Duration::from_millis(50), ..quick() }));
    let service = Service::serve(store, builder.build().unwrap()).await;
    let canceled = service.submit("/stoppable", Value::Null).await;
    until(async || found(&service.endpoints, canceled).await.progress.is_some()).await;
    service.cancel(canceled).await;
    assert_eq!(service.ended(canceled).await["status"], "Canceled");
    assert_eq!(service.ended(service.submit("/short", Value::Null).await).await["error"]["code"], "JOB_TIMEOUT");
    let released = service.submit("/stoppable", Value::Null).await;
    until(async || found(&service.endpoints, released).await.progress.is_some()).await;
    service.stop().await;
    use CancellationReason as Reason;
    assert_eq!(*reasons.lock().unwrap(), [Reason::Canceled, Reason::TimedOut, Reason::Shutdown]);
}

#[tokio::test]
async fn lost_lease_is_a_reason() {
    let (_, flaky) = flaky_store();
    let (builder, reasons) = stoppable(AsyncEndpoints::builder(flaky.clone()).options(quick()));
    let endpoints = builder.build().unwrap();
    let id = endpoints.submit(JobType::<(), ()>::new("Stoppable"), ()).await.unwrap().job.id;
    let running = endpoints.clone();
    let run = tokio::spawn(async move { running.run().await });
    until(async || found(&endpoints, id).await.progress.is_some()).await;
    // Without renewals, the lease expires.
    flaky.outage(true);
    until(async || !reasons.lock().unwrap().is_empty()).await;
    flaky.outage(false);
    assert_eq!(*reasons.lock().unwrap(), [CancellationReason::LeaseLost]);
    assert_eq!(ended(&endpoints, id).await.status, JobStatus::Completed);
    endpoints.shutdown();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn result_is_decoded_or_says_why_not() {
    const DOUBLE: JobType<u32, u32> = JobType::new("Double").retention(Duration::from_secs(60));
    async fn double(ctx: JobContext<u32>) -> Result<u32, JobError> {
        let too_large = || JobError::permanent("TOO_LARGE", "The double is too large.");
        ctx.request().checked_mul(2).ok_or_else(too_large)
    }
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let endpoints = AsyncEndpoints::builder(store).options(quick()).handler(DOUBLE, double).build().unwrap();
    let submit = async |number| endpoints.submit(DOUBLE, number).await.unwrap().job.id;
    let (works, fails) = (submit(21).await, submit(u32::MAX).await);

    assert!(matches!(endpoints.result::<u32>(works).await, Err(ResultError::NotEnded(JobStatus::Queued))));
    let waits = endpoints.typed_job(DOUBLE, works).await.unwrap();
    let waiting = waits.waiting.unwrap();
    assert_eq!((waiting.reason, waiting.ahead, waits.result), (WaitingReason::NoWorker, Some(0), None));
    assert_eq!(endpoints.waiting(&found(&endpoints, works).await).await, Some(waiting));

    endpoints.run_until_idle().await.unwrap();
    assert_eq!(endpoints.result::<u32>(works).await.unwrap(), 42);
    let done = endpoints.typed_job(DOUBLE, works).await.unwrap();
    assert_eq!((done.result, done.waiting, done.attempt), (Some(42), None, 1));
    let unreadable = endpoints.result::<String>(works).await.unwrap_err().to_string();
    assert!(unreadable.contains("cannot be read: invalid type"), "{unreadable}");
    match endpoints.result::<u32>(fails).await {
        Err(ResultError::Ended { status: JobStatus::Failed, error: Some(error) }) => {
            assert_eq!(error.code, "TOO_LARGE");
        }
        other => panic!("{other:?}"),
    }
    let other = endpoints.typed_job(ORDER, works).await.unwrap_err().to_string();
    assert_eq!(other, "the job is of type Double, expected Order");
    assert!(matches!(endpoints.result::<u32>(JobId::random()).await, Err(ResultError::NotFound(_))));
    clock.advance(Duration::from_secs(61));
    assert!(matches!(endpoints.job(works).await.unwrap(), JobLookup::Gone { .. }));
    assert!(matches!(endpoints.result::<u32>(works).await, Err(ResultError::Expired(id)) if id == works));
}
