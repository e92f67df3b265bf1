//! The forms of handlers, their context, and the outcomes of their results and errors.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, AsyncEndpoints, AttemptInfo, Classification, Endpoint, JobContext, JobError, JobHandler, JobStatus,
    JobType, MemoryStore, Middleware, Next, Options, RetryPolicy,
};
use async_endpoints_testkit::{Checked, ManualClock};
use serde_json::{Value, json};
use support::{Service, ended, found, store};

#[tokio::test]
async fn functions_structs_and_blocking_functions_run() {
    const DOUBLE: JobType<u32, u32> = JobType::new("Double");
    const ADD: JobType<u32, u32> = JobType::new("Add");
    const NEGATE: JobType<i32, i32> = JobType::new("Negate");
    const SUBTRACT: JobType<u32, u32> = JobType::new("Subtract");
    struct Add(u32);
    impl JobHandler<u32, u32> for Add {
        async fn run(&self, ctx: JobContext<u32>) -> Result<u32, JobError> {
            Ok(self.0 + ctx.request())
        }
    }
    async fn double(ctx: JobContext<u32>) -> Result<u32, JobError> {
        Ok(2 * ctx.request())
    }
    let service = Service::start(|builder| {
        builder
            .endpoint(Endpoint::post("/double", DOUBLE))
            .endpoint(Endpoint::put("/add", ADD))
            .endpoint(Endpoint::patch("/negate", NEGATE))
            .handler(DOUBLE, double)
            .handler(ADD, Arc::new(Add(5)))
            .endpoint(Endpoint::post("/subtract", SUBTRACT))
            .handler_with(SUBTRACT, "8".to_owned(), async |ctx: JobContext<u32>, less| {
                Ok(ctx.request() - less.parse::<u32>()?)
            })
            .blocking_handler(NEGATE, |ctx| Ok(-ctx.request()))
    })
    .await;
    let double = service.submit("/double", json!(21)).await;
    let add = service.client.put(service.url("/add")).json(&37).send().await.unwrap().json::<Value>().await.unwrap();
    let negate = service.client.patch(service.url("/negate")).json(&-42).send().await.unwrap();
    let negate = negate.json::<Value>().await.unwrap();
    let subtract = service.submit("/subtract", json!(50)).await;
    for id in [double, id(&add), id(&negate), subtract] {
        let job = service.ended(id).await;
        assert_eq!((&job["status"], &job["result"]), (&json!("Completed"), &json!(42)));
    }
    service.stop().await;
}

fn id(job: &Value) -> async_endpoints::JobId {
    job["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn handler_without_body_sees_request_parts() {
    const PURGE: JobType<(), Value> = JobType::new("Purge");
    async fn purge(ctx: JobContext<()>) -> Result<Value, JobError> {
        Ok(json!({
            "region": ctx.path_param("region"),
            "dry": ctx.query_param("dry"),
            "tags": ctx.query_values("tag").collect::<Vec<_>>(),
            "query": ctx.query_params().collect::<Vec<_>>(),
            "path": ctx.path_params().collect::<Vec<_>>(),
            "user": ctx.header("X-User-Id"),
            "cookie": ctx.header("cookie"),
            "name": ctx.job_name(),
            "attempt": ctx.attempt(),
            "last": ctx.is_last_attempt(),
            "inTime": ctx.deadline() > std::time::Instant::now(),
            "waited": ctx.queue_time() < Duration::from_secs(10),
            "trace": ctx.trace().map(|trace| trace.trace_id()),
        }))
    }
    let service =
        Service::start(|builder| builder.endpoint(Endpoint::delete("/caches/{region}", PURGE)).handler(PURGE, purge))
            .await;
    let request = service
        .client
        .delete(service.url("/caches/eu%20west?dry=yes+please&tag=a&tag=b"))
        .header("x-user-id", "7")
        .header("cookie", "secret")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let job = service.ended(id(&request.send().await.unwrap().json().await.unwrap())).await;
    let seen = json!({
        "region": "eu west", "dry": "yes please", "tags": ["a", "b"], "path": [["region", "eu west"]],
        "query": [["dry", "yes please"], ["tag", "a"], ["tag", "b"]], "user": "7", "cookie": null, "name": "Purge", "attempt": 1,
        "last": false, "inTime": true, "waited": true, "trace": "0af7651916cd43dd8448eb211c80319c",
    });
    assert_eq!(job["result"], seen);
    assert_eq!(job["traceId"], "0af7651916cd43dd8448eb211c80319c");
    service.stop().await;
}

/// Endpoints on a manual clock. The test runs their jobs.
fn manual(
    clock: &ManualClock,
    build: impl FnOnce(async_endpoints::Builder) -> async_endpoints::Builder,
) -> (AsyncEndpoints, Arc<Checked<MemoryStore>>) {
    let store = Arc::new(Checked::new(MemoryStore::with_clock(clock.clone())));
    let endpoints = build(AsyncEndpoints::builder(store.clone())).build().unwrap();
    (endpoints, store)
}

#[tokio::test]
async fn retries_have_growing_jittered_delays_and_end() {
    const FAIL: JobType<(), ()> = JobType::new("Fail").max_retries(4);
    async fn fail(ctx: JobContext<()>) -> Result<(), JobError> {
        assert_eq!(ctx.is_last_attempt(), ctx.attempt() == 5);
        Err("connection refused by postgres://secret")?
    }
    let clock = ManualClock::new();
    let (endpoints, store) = manual(&clock, |builder| builder.handler(FAIL, fail));
    let id = endpoints.submit(FAIL, ()).await.unwrap().job.id;
    for retry in 1..=4_u32 {
        endpoints.run_until_idle().await.unwrap();
        let job = found(&endpoints, id).await;
        assert_eq!((job.status, job.attempt, job.retry_count), (JobStatus::Scheduled, retry, retry));
        let wait = job.scheduled_at.unwrap().since(job.last_updated_at);
        let whole = Duration::from_secs(2 * 2_u64.pow(retry - 1));
        assert!((whole / 2..=whole).contains(&wait), "retry {retry} waits {wait:?}");
        clock.advance(wait - Duration::from_micros(1));
        endpoints.run_until_idle().await.unwrap();
        assert_eq!(found(&endpoints, id).await.attempt, retry, "started before it was due");
        clock.advance(Duration::from_micros(1));
    }
    endpoints.run_until_idle().await.unwrap();
    let job = found(&endpoints, id).await;
    assert_eq!((job.status, job.attempt, job.retry_count), (JobStatus::Failed, 5, 4));
    let error = job.error.unwrap();
    assert_eq!((error.code.as_ref(), error.detail, error.status), ("HANDLER_ERROR", None, 500));
    store.verify().await;
}

#[tokio::test]
async fn error_decides_the_outcome() {
    const OUTCOME: JobType<String, ()> = JobType::new("Outcome");
    async fn fail_as_requested(ctx: JobContext<String>) -> Result<(), JobError> {
        match ctx.request().as_str() {
            "permanent" => Err(JobError::permanent("NO_SUCH_USER", "There is no such user.").status(404)),
            "after" => Err(JobError::retry_after(Duration::from_secs(90), "BUSY", "Later.")),
            "canceled" => Err(JobError::canceled()),
            text => Ok(text.parse::<u32>().map(drop)?),
        }
    }
    let clock = ManualClock::new();
    let parse = |error: &(dyn std::error::Error + 'static)| {
        if error.is::<std::num::ParseIntError>() { Classification::Permanent } else { Classification::Retryable }
    };
    let (endpoints, store) = manual(&clock, |builder| builder.handler(OUTCOME, fail_as_requested.classify(parse)));
    let mut ids = Vec::new();
    for request in ["permanent", "after", "canceled", "no number"] {
        ids.push(endpoints.submit(OUTCOME, request.to_owned()).await.unwrap().job.id);
    }
    endpoints.run_until_idle().await.unwrap();
    let [permanent, after, canceled, parse] = ids[..] else { unreachable!() };
    let job = found(&endpoints, permanent).await;
    let error = job.error.unwrap();
    assert_eq!((job.status, error.code.as_ref(), error.status), (JobStatus::Failed, "NO_SUCH_USER", 404));
    assert_eq!(error.detail.as_deref(), Some("There is no such user."));
    let job = found(&endpoints, after).await;
    assert_eq!(job.scheduled_at.unwrap().since(job.last_updated_at), Duration::from_secs(90));
    assert_eq!(found(&endpoints, canceled).await.status, JobStatus::Canceled);
    let job = found(&endpoints, parse).await;
    assert_eq!((job.status, job.attempt), (JobStatus::Failed, 1), "classified as permanent");
    store.verify().await;
}

#[tokio::test]
async fn type_rules_override_options() {
    const LATER: JobType<(), ()> = JobType::new("Later")
        .delay(Duration::from_secs(60))
        .retry(RetryPolicy::Custom(|n| Duration::from_secs(n.into())));
    async fn once(ctx: JobContext<()>) -> Result<(), JobError> {
        if ctx.attempt() == 1 { Err("not yet")? } else { Ok(()) }
    }
    let clock = ManualClock::new();
    let (endpoints, store) = manual(&clock, |builder| builder.handler(LATER, once));
    let job = endpoints.submit(LATER, ()).await.unwrap().job;
    assert_eq!((job.status, job.scheduled_at), (JobStatus::Scheduled, Some(job.created_at + Duration::from_secs(60))));
    endpoints.run_until_idle().await.unwrap();
    assert_eq!(found(&endpoints, job.id).await.attempt, 0);
    for wait in [60, 1] {
        clock.advance(Duration::from_secs(wait));
        endpoints.run_until_idle().await.unwrap();
    }
    let job = found(&endpoints, job.id).await;
    assert_eq!((job.status, job.attempt, job.error), (JobStatus::Completed, 2, None));
    store.verify().await;
}

#[tokio::test]
async fn panic_and_bad_result_become_errors() {
    const BAD: JobType<String, Value> = JobType::new("Bad").max_retries(1);
    const UNSERIALIZABLE: JobType<(), std::collections::BTreeMap<Vec<u8>, ()>> = JobType::new("Unserializable");
    async fn bad(ctx: JobContext<String>) -> Result<Value, JobError> {
        match ctx.request().as_str() {
            "panic" => panic!("secret"),
            "huge" => Ok("x".repeat(1 << 20).into()),
            _ => Ok("x".repeat((1 << 20) - 2).into()),
        }
    }
    let service = Service::start(|builder| {
        builder
            .access(Access::closed())
            .endpoint(Endpoint::post("/bad", BAD))
            .handler(BAD, bad)
            .handler(UNSERIALIZABLE, async |_| Ok([(vec![0xFF], ())].into()))
    })
    .await;
    let panic = service.submit("/bad", json!("panic")).await;
    let huge = service.submit("/bad", json!("huge")).await;
    let large = service.submit("/bad", json!("large")).await;
    let unserializable = service.endpoints.submit(UNSERIALIZABLE, ()).await.unwrap().job.id;

    let job = service.ended(panic).await;
    assert_eq!(
        (&job["error"]["code"], &job["attempt"], &job["retryCount"]),
        (&json!("HANDLER_PANIC"), &json!(2), &json!(1))
    );
    assert!(!job.to_string().contains("secret"), "{job}");
    let outcomes: Vec<_> = job["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["retried", "failed"]);
    let job = service.ended(huge).await;
    assert_eq!((&job["error"]["code"], &job["attempt"]), (&json!("RESULT_TOO_LARGE"), &json!(1)));
    assert_eq!(service.ended(large).await["status"], "Completed");
    assert_eq!(service.ended(unserializable).await["error"]["code"], "RESULT_UNSERIALIZABLE");
    service.stop().await;
}

#[tokio::test]
async fn payload_of_newer_shape_is_retryable() {
    const OLD: JobType<u32, u32> = JobType::new("Shape").max_retries(0);
    const NEW: JobType<String, String> = JobType::new("Shape").max_retries(0);
    let store = store();
    let new = support::builder(&store).build().unwrap();
    let id = new.submit(NEW, "text".to_owned()).await.unwrap().job.id;
    let old = support::builder(&store).handler(OLD, async |ctx: JobContext<u32>| Ok(*ctx.request())).build().unwrap();
    old.run_until_idle().await.unwrap();
    let error = found(&old, id).await.error.unwrap();
    assert_eq!((error.code.as_ref(), error.retryable), ("PAYLOAD_UNREADABLE", true));
    store.verify().await;
}

#[tokio::test]
async fn error_details_option_shows_messages() {
    const FAIL: JobType<(), ()> = JobType::new("Fail").max_retries(0);
    let store = store();
    let endpoints = support::builder(&store)
        .options(Options { error_details: true, ..support::quick() })
        .handler(FAIL, async |_| Err("the disk is on fire")?)
        .build()
        .unwrap();
    let id = endpoints.submit(FAIL, ()).await.unwrap().job.id;
    endpoints.run_until_idle().await.unwrap();
    assert_eq!(ended(&endpoints, id).await.error.unwrap().detail.as_deref(), Some("the disk is on fire"));
    store.verify().await;
}

#[tokio::test]
async fn middlewares_wrap_in_order_of_addition() {
    const ECHO: JobType<String, String> = JobType::new("Echo");
    struct Mark(&'static str);
    #[async_trait::async_trait]
    impl Middleware for Mark {
        async fn run(&self, attempt: &AttemptInfo, next: Next<'_>) -> Result<bytes::Bytes, JobError> {
            attempt.progress().message(format!(
                "{}{}",
                attempt.progress().current().and_then(|p| p.message).unwrap_or_default(),
                self.0
            ));
            let ended = next.run().await?;
            Ok([&ended[..ended.len() - 1], self.0.as_bytes(), b"\""].concat().into())
        }
    }
    let store = store();
    let endpoints = support::builder(&store)
        .middleware(Mark("1"))
        .middleware(Mark("2"))
        .handler(ECHO, async |ctx: JobContext<String>| Ok(ctx.request().clone()))
        .build()
        .unwrap();
    let id = endpoints.submit(ECHO, "x".to_owned()).await.unwrap().job.id;
    endpoints.run_until_idle().await.unwrap();
    let job = found(&endpoints, id).await;
    assert_eq!(job.result.as_deref(), Some(b"\"x21\"".as_slice()));
    assert_eq!(job.progress.unwrap().message.as_deref(), Some("12"));
    store.verify().await;
}
