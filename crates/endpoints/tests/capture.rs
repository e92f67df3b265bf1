//! Lines that handlers log with `tracing`, kept with their jobs.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{fmt, sync::Arc, sync::Once};

use async_endpoints::{
    Access, AsyncEndpoints, Builder, CaptureLevel, Endpoint, JobContext, JobError, JobId, JobStatus, JobType, Options,
    core::{job::LogLine, store::StoreOperation},
    telemetry::capture_layer,
};
use async_endpoints_testkit::When;
use reqwest::StatusCode;
use serde_json::Value;
use support::{PATIENCE, Process, Service, ended, flaky_store, quick, until, watch};
use tokio::sync::Notify;
use tracing::Instrument;
use tracing_subscriber::{Layer, filter::LevelFilter, prelude::*};

const WORK: JobType<(), ()> = JobType::new("Work");

/// Captures in the whole process, whatever another layer shows.
fn capture() {
    static CAPTURING: Once = Once::new();
    CAPTURING.call_once(|| {
        let silent = tracing_subscriber::fmt::layer().with_test_writer().with_filter(LevelFilter::ERROR);
        tracing_subscriber::registry().with(silent).with(capture_layer()).init();
    });
}

/// A service whose only job runs this handler.
async fn service(build: impl FnOnce(Builder) -> Builder) -> Service {
    capture();
    Service::start(|builder| build(builder.endpoint(Endpoint::post("/work", WORK)))).await
}

async fn lines(endpoints: &AsyncEndpoints, id: JobId) -> Vec<LogLine> {
    endpoints.store().logs(id, 0, 2_000).await.unwrap()
}

fn messages(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.message.as_str()).collect()
}

struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a value that cannot be shown")
    }
}

#[tokio::test]
async fn lines_of_a_handler_are_kept() {
    let service = service(|builder| {
        builder.handler(WORK, async |_: JobContext<()>| {
            tracing::info!(rows = 7, ratio = 0.5, name = "weather", api_token = "hunter2", "read {}", "all");
            async { tracing::warn!("in a nested span") }.instrument(tracing::info_span!("step", part = 1)).await;
            async { tracing::info!("in a span that is not captured") }.instrument(tracing::debug_span!("detail")).await;
            tracing::debug!("below the level");
            tracing::info!(value = %Panics, "lost");
            tracing::error!(target: "my_crate", "the end");
            Ok(())
        })
    })
    .await;
    let id = service.submit("/work", Value::Null).await;
    tracing::info!("outside of the job");
    ended(&service.endpoints, id).await;
    let text = service.client.get(service.url(&format!("/jobs/{id}/logs"))).send().await.unwrap().text().await.unwrap();
    let read: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<(&str, &str)> =
        read.iter().map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap())).collect();
    let expected = [
        ("INFO", "read all"),
        ("WARN", "in a nested span"),
        ("INFO", "in a span that is not captured"),
        ("ERROR", "the end"),
    ];
    assert_eq!(shown, expected);
    let fields = serde_json::json!({"rows": 7, "ratio": 0.5, "name": "weather", "api_token": "[redacted]"});
    assert_eq!((&read[0]["fields"], &read[0]["target"]), (&fields, &"capture".into()));
    assert_eq!((&read[3]["attempt"], &read[3]["line"], &read[3]["target"]), (&1.into(), &4.into(), &"my_crate".into()));
    assert!(!text.contains("hunter2"));
    service.stop().await;
}

#[tokio::test]
async fn lines_of_a_blocking_handler_are_kept() {
    let service = service(|builder| {
        builder.blocking_handler(WORK, |_| {
            tracing::info!("on a thread");
            Ok(())
        })
    })
    .await;
    let id = service.submit("/work", Value::Null).await;
    ended(&service.endpoints, id).await;
    assert_eq!(messages(&lines(&service.endpoints, id).await), ["on a thread"]);
    service.stop().await;
}

#[tokio::test]
async fn line_is_stored_while_its_handler_runs() {
    let go = Arc::new(Notify::new());
    let handler_go = go.clone();
    let service = service(|builder| {
        builder.handler(WORK, move |ctx: JobContext<()>| {
            let go = handler_go.clone();
            async move {
                tracing::info!("first");
                ctx.progress().set(1, 2);
                go.notified().await;
                tracing::info!("last");
                Ok(())
            }
        })
    })
    .await;
    let id = service.submit("/work", Value::Null).await;
    until(async || !lines(&service.endpoints, id).await.is_empty()).await;
    let job = support::found(&service.endpoints, id).await;
    assert_eq!((job.status, job.progress.map(|progress| progress.completed)), (JobStatus::InProgress, Some(1)));
    go.notify_one();
    ended(&service.endpoints, id).await;
    assert_eq!(messages(&lines(&service.endpoints, id).await), ["first", "last"]);
    service.stop().await;
}

#[tokio::test]
async fn many_lines_are_truncated() {
    let service = service(|builder| {
        builder.handler(WORK, async |_: JobContext<()>| {
            (1..=3_000).for_each(|number| tracing::info!("{number}"));
            Ok(())
        })
    })
    .await;
    let id = service.submit("/work", Value::Null).await;
    ended(&service.endpoints, id).await;
    let lines = lines(&service.endpoints, id).await;
    let own: Vec<&LogLine> = lines.iter().filter(|line| line.fields.contains_key("truncated")).collect();
    assert_eq!((lines.len(), own.len()), (1_000, 1));
    assert_eq!((own[0].line, &own[0].fields["truncated"]), (901, &2_001.into()));
    assert_eq!(own[0].target.as_deref(), Some("async_endpoints"));
    assert_eq!((&*lines[899].message, &*lines[901].message, &*lines[999].message), ("900", "2902", "3000"));
    service.stop().await;
}

#[tokio::test]
async fn capture_can_be_switched_off() {
    let service = service(|builder| {
        let options = Options { capture_level: CaptureLevel::Off, ..quick() };
        builder.options(options).handler(WORK, async |_: JobContext<()>| {
            tracing::error!("not kept");
            Ok(())
        })
    })
    .await;
    let id = service.submit("/work", Value::Null).await;
    ended(&service.endpoints, id).await;
    assert_eq!(lines(&service.endpoints, id).await, []);
    service.stop().await;
}

#[tokio::test]
async fn lines_of_a_failed_report_are_stored() {
    capture();
    let (inner, flaky) = flaky_store();
    let go = Arc::new(Notify::new());
    let handler_go = go.clone();
    let endpoints = AsyncEndpoints::builder(flaky.clone()).options(quick()).handler(WORK, move |_: JobContext<()>| {
        let go = handler_go.clone();
        async move {
            tracing::info!("first");
            go.notified().await;
            tracing::info!("last");
            Ok(())
        }
    });
    flaky.fail_next(StoreOperation::Report, When::Before);
    let process = Process::start(endpoints.build().unwrap(), 2);
    let id = process.endpoints.submit(WORK, ()).await.unwrap().job.id;
    until(async || flaky.faults() > 0).await;
    go.notify_one();
    ended(&process.endpoints, id).await;
    assert_eq!(messages(&lines(&process.endpoints, id).await), ["first", "last"]);
    drop(process);
    inner.verify().await;
}

/// A worker that loses its store after a report leaves the reported lines. The next attempt appends its own.
#[tokio::test]
async fn lost_attempt_keeps_its_reported_lines() {
    capture();
    let (inner, flaky) = flaky_store();
    let work = |message: &'static str| {
        move |ctx: JobContext<()>| async move {
            tracing::info!("{message} {}", ctx.attempt());
            if ctx.attempt() == 1 {
                ctx.cancellation().cancelled().await;
                tracing::info!("unreported");
            }
            Ok::<_, JobError>(())
        }
    };
    let cut_off =
        AsyncEndpoints::builder(flaky.clone()).options(quick()).handler(WORK, work("cut off")).build().unwrap();
    let cut_off = Process::start(cut_off, 2);
    let id = cut_off.endpoints.submit(WORK, ()).await.unwrap().job.id;
    let reader = watch(&inner);
    until(async || !lines(&reader, id).await.is_empty()).await;
    flaky.outage(true);
    let other = Process::start(support::builder(&inner).handler(WORK, work("other")).build().unwrap(), 2);
    ended(&other.endpoints, id).await;
    let lines = lines(&reader, id).await;
    let kept: Vec<(u32, &str)> = lines.iter().map(|line| (line.attempt, line.message.as_str())).collect();
    assert_eq!(kept, [(1, "cut off 1"), (2, "other 2")]);
    flaky.outage(false);
    drop((cut_off, other));
    inner.verify().await;
}

#[tokio::test]
async fn exposed_logs_hide_the_librarys_lines() {
    for (expose_logs, status) in [(false, StatusCode::UNAUTHORIZED), (true, StatusCode::OK)] {
        let service = service(|builder| {
            let options = Options { expose_logs, ..quick() };
            builder.options(options).access(Access::token("letmein")).handler(WORK, async |_: JobContext<()>| {
                (1..=1_500).for_each(|number| tracing::info!("line {number}"));
                Ok(())
            })
        })
        .await;
        let id = service.submit("/work", Value::Null).await;
        ended(&service.endpoints, id).await;
        let get = || service.client.get(service.url(&format!("/jobs/{id}/logs")));
        let text = get().bearer_auth("letmein").send().await.unwrap().text().await.unwrap();
        assert_eq!(text.matches(r#""target":"async_endpoints""#).count(), 1, "an operator sees all lines");
        for accept in ["application/x-ndjson", "text/plain", "text/event-stream"] {
            let response = get().header("accept", accept).send().await.unwrap();
            assert_eq!(response.status(), status, "{accept}");
            let text = tokio::time::timeout(PATIENCE, response.text()).await.unwrap().unwrap();
            assert!(!text.contains("dropped"), "{accept}");
            assert_eq!(text.contains("line 1500"), expose_logs, "{accept}");
        }
        let job = service.job(id).await;
        assert_eq!(job["links"]["logs"], format!("/jobs/{id}/logs"), "the link stays");
        service.stop().await;
    }
}
