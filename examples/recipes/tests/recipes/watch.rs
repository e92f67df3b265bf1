//! Tests of the client with the service, as two programs.

use tokio::process::Command;

use crate::support::{Program, Service, in_time};

const PROGRESS: &str = env!("CARGO_BIN_EXE_progress");
const WATCH: &str = env!("CARGO_BIN_EXE_watch");

#[tokio::test]
async fn job_is_followed_to_its_end() {
    let service = Service::start(PROGRESS).await;
    let (lines, status) = Program::start(WATCH, &[&service.url, "8"], &[]).end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let [states @ .., completed, last] = lines.as_slice() else { panic!("{lines:#?}") };
    assert_eq!((&**completed, &**last), ("Completed  100 % packing photo 8 of 8", "8 photos are packed"));
    let is_state = |line: &String| line.starts_with("Queued ") || line.starts_with("InProgress ");
    assert!(states.iter().all(is_state), "{lines:#?}");
    assert!(states.iter().any(|line| line.contains(" % packing photo ")), "{lines:#?}");
}

#[tokio::test]
async fn ctrl_c_cancels_the_job() {
    let service = Service::start(PROGRESS).await;
    let mut watch = Program::start(WATCH, &[&service.url, "100000"], &[]);
    while !watch.line().await.unwrap().contains("packing photo") {}
    assert!(watch.signal("INT").await.unwrap().success());
    let (lines, status) = watch.end().await;
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "requesting cancellation"), "{lines:#?}");
    assert!(lines.last().unwrap().starts_with("Canceled     0 % "), "{lines:#?}");
}

#[tokio::test]
async fn unreachable_service_is_an_error() {
    let ended = in_time("its end", Command::new(WATCH).arg("http://127.0.0.1:1").output()).await.unwrap();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]));
    assert!(ended.stderr.starts_with(b"POST http://127.0.0.1:1/api/pack: no answer ("), "{ended:?}");
}
