//! Event streams of lists: reads that streams share, and changes that each of them shows.
#![cfg(feature = "dashboard")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{Access, AsyncEndpoints, JobId, JobType, core::store::StoreOperation};
use reqwest::Response;
use support::{
    PATIENCE, Service,
    dashboard::{get, serve},
    hooked::HookedStore,
    quick,
};

const LATER: JobType<(), ()> = JobType::new("Later");

/// Returns a service and the number of its reads of lists.
async fn start() -> (Service, Arc<AtomicU64>) {
    let (inner, lists) = (support::store(), Arc::new(AtomicU64::new(0)));
    let counted = lists.clone();
    let counting = HookedStore::new(inner.clone()).before(move |operation| {
        counted.fetch_add(u64::from(operation == StoreOperation::List), Ordering::Relaxed);
    });
    let builder = AsyncEndpoints::builder(counting).options(quick()).access(Access::loopback());
    (serve(inner, builder.handled_elsewhere(LATER).build().unwrap()).await, lists)
}

async fn submit(service: &Service) -> JobId {
    service.endpoints.submit(LATER, ()).await.unwrap().job.id
}

/// Reads events until one has this text.
async fn read_until(stream: &mut Response, wanted: &str) {
    let reading = async {
        let mut text = String::new();
        while !text.contains(wanted) {
            text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an event in time");
}

#[tokio::test]
async fn streams_of_a_list_share_reads() {
    let (service, lists) = start().await;
    let first = submit(&service).await.to_string();
    let mut streams =
        [get(&service, "/dashboard/live?at=/jobs").await, get(&service, "/dashboard/live?at=/jobs").await];
    for stream in &mut streams {
        read_until(stream, &first).await;
    }
    let (before, began) = (lists.load(Ordering::Relaxed), Instant::now());
    let mut last = String::new();
    while began.elapsed() < Duration::from_secs(3) {
        last = submit(&service).await.to_string();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for stream in &mut streams {
        read_until(stream, &last).await;
    }
    let (reads, ticks) = (lists.load(Ordering::Relaxed) - before, began.elapsed().as_millis() as u64 / 250);
    assert!((2..=ticks * 5 / 4 + 2).contains(&reads), "{reads} reads in {ticks} ticks");
    drop(streams);
    service.stop().await;
}

#[tokio::test]
async fn each_stream_shows_single_changes() {
    let (service, _) = start().await;
    let mut streams =
        [get(&service, "/dashboard/live?at=/jobs").await, get(&service, "/dashboard/live?at=/jobs").await];
    // Pauses around the ticks, so that a change comes before, during and after a read.
    for pause in (0..20).map(|n| Duration::from_millis(n * 37 % 260)) {
        tokio::time::sleep(pause).await;
        let (id, began) = (submit(&service).await.to_string(), Instant::now());
        for stream in &mut streams {
            read_until(stream, &id).await;
        }
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "before the next render without a change: {:?}",
            began.elapsed()
        );
    }
    drop(streams);
    service.stop().await;
}
