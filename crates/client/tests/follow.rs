//! Streams of states: by events, over dropped connections, through proxies without streams, over a restart.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{fs, net::SocketAddr, path::Path};

use async_endpoints::SqliteStore;
use async_endpoints_client::{Follow, JobHandle, JobState, JobStatus, WaitingReason};
use async_endpoints_testkit::server::free_port;
use axum::{Router, http::StatusCode};
use support::{Order, Paper, Printed, Seen, Service, endpoints, in_time, proxy};

async fn next(states: &mut Follow<Printed>) -> Option<JobState<Printed>> {
    in_time(states.next()).await.map(Result::unwrap)
}

/// Follows a job to its end. Gives the handler one sheet of paper after each state of a running job.
async fn follow(job: &JobHandle<Printed>, paper: &Paper) -> Vec<JobState<Printed>> {
    let (mut states, mut seen) = (job.follow(), Vec::new());
    while let Some(state) = next(&mut states).await {
        if state.status == JobStatus::InProgress {
            paper.add(1);
        }
        seen.push(state);
    }
    seen
}

/// Asserts that the states end with this result, without repeats.
fn assert_complete(states: &[JobState<Printed>], pages: u64) {
    assert!(states.windows(2).all(|pair| pair[0].version < pair[1].version), "{states:#?}");
    let (last, before) = states.split_last().unwrap();
    assert_eq!((last.status, &last.result), (JobStatus::Completed, &Some(Printed { pages })));
    assert!(before.iter().all(|state| !state.status.is_terminal()), "{states:#?}");
    assert!(before.iter().any(|state| state.status == JobStatus::InProgress), "{states:#?}");
}

/// Requests of streams, and requests that were held.
fn requests(seen: &Seen) -> (Vec<String>, Vec<String>) {
    let seen = seen.all();
    let with = |part: &str| seen.iter().filter(|line| line.contains(part)).cloned().collect();
    (with("/events"), with("wait="))
}

/// Submits a job behind a proxy and follows it.
async fn followed_behind(pages: u64, proxy: impl FnOnce(Router) -> Router) -> (Vec<JobState<Printed>>, Seen) {
    let (paper, seen) = (Paper::sheets(0), Seen::default());
    let service = Service::behind(paper.clone(), |app| proxy::noted(proxy(app), &seen)).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages }).await.unwrap();
    let states = follow(&job, &paper).await;
    service.stop().await;
    (states, seen)
}

#[tokio::test]
async fn every_state_comes_by_one_stream() {
    let (states, seen) = followed_behind(3, |app| app).await;
    assert_complete(&states, 3);
    let (streams, held) = requests(&seen);
    assert_eq!((streams.len(), held.len()), (1, 0), "{:?}", seen.all());
    let percents: Vec<_> = states.iter().filter_map(JobState::percent).collect();
    assert_eq!(percents.last(), Some(&100.0));
    assert!(percents.len() >= 3, "{percents:?}");
}

#[tokio::test]
async fn dropped_stream_is_resumed_after_the_last_event() {
    let (states, seen) = followed_behind(2, proxy::cutting).await;
    assert_complete(&states, 2);
    let (streams, held) = requests(&seen);
    assert!(streams.len() >= 3 && held.is_empty(), "{:?}", seen.all());
    // The state of each stream but the last is the one that the next stream begins after.
    let resumed: Vec<_> = streams.iter().skip(1).map(|line| line.split_once("last-event-id=").unwrap().1).collect();
    let versions: Vec<_> = states.iter().map(|state| state.version.to_string()).collect();
    assert_eq!(resumed, versions[..versions.len() - 1]);
}

#[tokio::test]
async fn proxy_that_refuses_streams_gets_long_polls() {
    for status in [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
        let (states, seen) = followed_behind(2, |app| proxy::refusing(app, status)).await;
        assert_complete(&states, 2);
        let (streams, held) = requests(&seen);
        assert_eq!(streams.len(), if status == StatusCode::NOT_FOUND { 1 } else { 3 }, "{:?}", seen.all());
        assert!(!held.is_empty(), "{:?}", seen.all());
    }
}

#[tokio::test]
async fn proxy_that_collects_responses_gets_long_polls() {
    let (states, seen) = followed_behind(2, proxy::buffering).await;
    assert_complete(&states, 2);
    let (streams, held) = requests(&seen);
    assert!(streams.len() == 1 && !held.is_empty(), "{:?}", seen.all());
}

#[tokio::test]
async fn ended_job_is_one_state() {
    let service = Service::start(Paper::sheets(1)).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    in_time(job.wait()).await.unwrap();
    let mut states = service.client().job::<Printed>(job.id()).follow();
    assert_eq!(next(&mut states).await.unwrap().into_result(), Some(Ok(Printed { pages: 1 })));
    assert!(next(&mut states).await.is_none() && next(&mut states).await.is_none());
    service.stop().await;
}

#[tokio::test]
async fn waiting_job_says_why() {
    let service = Service::start(Paper::sheets(0)).await;
    let job = service.client().submit::<_, Printed>("/api/waiting", &()).await.unwrap();
    let state = next(&mut job.follow()).await.unwrap();
    assert_eq!((state.status, state.waiting.unwrap().reason), (JobStatus::Queued, WaitingReason::NoWorker));
    service.stop().await;
}

#[tokio::test]
async fn restarted_service_is_followed_further() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("restart-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let start = async |paper: &Paper, address: SocketAddr| {
        let store = SqliteStore::open(folder.join("jobs.db")).await.unwrap();
        Service::serve(endpoints(store, paper.clone()), address, |app| app).await
    };
    let (empty, paper) = (Paper::sheets(0), Paper::sheets(2));
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let service = start(&empty, address).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 2 }).await.unwrap();
    let waiting = tokio::spawn({
        let job = job.clone();
        async move { job.wait().await }
    });
    let mut states = job.follow();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|state: &JobState<Printed>| state.status != JobStatus::InProgress) {
        seen.push(next(&mut states).await.unwrap());
    }
    let (restarted, rest) = tokio::join!(
        async {
            service.stop().await;
            start(&paper, address).await
        },
        async {
            let mut rest = Vec::new();
            while let Some(state) = next(&mut states).await {
                rest.push(state);
            }
            rest
        }
    );
    seen.extend(rest);
    assert_complete(&seen, 2);
    assert_eq!(seen.last().unwrap().attempt, 2, "the second process ran it again");
    assert_eq!(in_time(waiting).await.unwrap().unwrap(), Printed { pages: 2 });
    restarted.stop().await;
    fs::remove_dir_all(folder).unwrap();
}
