//! Tests of the monitor on paused time.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    check::{BoxError, Check, CheckResult, HealthCheck, HealthStatus},
    monitor::{Monitor, OnChange},
};
use crate::sync::Mutex;

/// A round, with its interval and jitter.
const ROUND: Duration = Duration::from_secs(7);

/// The changes that a monitor reported.
type Changes = Arc<Mutex<Vec<(String, HealthStatus, Option<String>)>>>;

fn monitor<const N: usize>(checks: [(&str, Check); N]) -> (Monitor, Changes) {
    let changes = Changes::default();
    let seen = changes.clone();
    let on_change: OnChange = Box::new(move |name, status, description| {
        seen.lock().push((name.to_owned(), status, description.map(str::to_owned)));
    });
    (Monitor::new(checks.map(|(name, check)| (name.to_owned(), check)).into(), on_change), changes)
}

/// The status and description of the first check.
async fn first(monitor: &Monitor) -> (HealthStatus, String) {
    let check = monitor.report(None).await.checks.swap_remove(0);
    (check.status, check.description.unwrap_or_default())
}

fn healthy() -> impl HealthCheck {
    async || Ok::<_, BoxError>(CheckResult::healthy())
}

fn hanging() -> impl HealthCheck {
    async || -> Result<CheckResult, BoxError> { std::future::pending().await }
}

#[tokio::test(start_paused = true)]
async fn failure_has_the_failure_status() {
    let fails = async || Err::<CheckResult, _>(io::Error::other("no route"));
    let panics = async || -> Result<CheckResult, BoxError> { panic!("no paper {}", 7) };
    let check = |check: Check| check.failure_status(HealthStatus::Degraded);
    for (check, text) in
        [(check(Check::new(fails)), "no route"), (check(Check::new(panics)), "the check panicked: no paper 7")]
    {
        let (monitor, _) = monitor([("check", check)]);
        assert_eq!(first(&monitor).await, (HealthStatus::Degraded, text.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_check_fails_after_its_timeout() {
    let check = Check::new(hanging()).timeout(Duration::from_secs(2));
    let (monitor, changes) = monitor([("hangs", check), ("works", healthy().into())]);
    let report = monitor.report(None).await;
    assert_eq!(report.checks[0].description.as_deref(), Some("not checked yet"));
    assert_eq!(report.checks[1].status, HealthStatus::Healthy, "checks run side by side");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(first(&monitor).await, (HealthStatus::Unhealthy, "no result within 2s".to_owned()));
    sleep(10 * ROUND).await;
    assert_eq!(changes.lock().len(), 1, "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn report_waits_for_the_first_round_only() {
    let (monitor, _) = monitor([("hangs", hanging().into())]);
    let began = Instant::now();
    monitor.report(None).await;
    assert!(began.elapsed() <= Duration::from_millis(100));
    let again = Instant::now();
    monitor.report(None).await;
    assert_eq!(again.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn report_runs_no_check() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let check = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, BoxError>(CheckResult::healthy()) }
    };
    let (monitor, _) = monitor([("counted", check.into())]);
    for _ in 0..10_000 {
        monitor.report(None).await;
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    sleep(60 * Duration::from_secs(1)).await;
    let rounds = runs.load(Ordering::Relaxed);
    assert!((9..=17).contains(&rounds), "{rounds} rounds in 60 s, with 3.75 s to 6.25 s between them");
}

#[tokio::test(start_paused = true)]
async fn each_change_is_reported_once() {
    let status = Arc::new(Mutex::new(HealthStatus::Healthy));
    let current = status.clone();
    let check = move || {
        let status = *current.lock();
        async move { Ok::<_, BoxError>(CheckResult { status, ..CheckResult::degraded("slow") }) }
    };
    let (monitor, changes) = monitor([("changes", check.into())]);
    let mut since = Vec::new();
    for next in [HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy, HealthStatus::Healthy] {
        *status.lock() = next;
        monitor.report(None).await;
        for _ in 0..2 {
            sleep(3 * ROUND).await;
            since.push(monitor.report(None).await.checks[0].since.expect("a result"));
        }
    }
    assert!(since.chunks(2).all(|same| same[0] == same[1]), "{since:?}");
    assert!(since.is_sorted() && since[1] < since[2] && since[3] < since[4] && since[5] < since[6], "{since:?}");
    let seen: Vec<HealthStatus> = changes.lock().iter().map(|(_, status, _)| *status).collect();
    assert_eq!(seen, [HealthStatus::Degraded, HealthStatus::Unhealthy, HealthStatus::Healthy]);
}

#[tokio::test(start_paused = true)]
async fn tag_selects_checks() {
    let (monitor, _) = monitor([("a", Check::new(healthy()).tag("ready")), ("b", healthy().into())]);
    let names = |report: super::HealthReport| report.checks.into_iter().map(|check| check.name).collect::<Vec<_>>();
    assert_eq!(names(monitor.report(Some("ready")).await), ["a"]);
    assert_eq!(names(monitor.report(None).await), ["a", "b"]);
    assert_eq!(monitor.statuses(), [("a", HealthStatus::Healthy), ("b", HealthStatus::Healthy)]);
}

/// A check that blocks its thread until the receiver has a value or no sender.
struct Blocks {
    runs: Arc<AtomicU32>,
    until: Mutex<std::sync::mpsc::Receiver<()>>,
}

#[async_trait::async_trait]
impl HealthCheck for Blocks {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let _ = self.until.lock().recv();
        Ok(CheckResult::healthy())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn blocking_check_runs_once_and_reports_its_time() {
    let (unblock, until) = std::sync::mpsc::channel();
    let runs = Arc::new(AtomicU32::new(0));
    let check = Check::new(Blocks { runs: runs.clone(), until: Mutex::new(until) }).timeout(Duration::from_millis(20));
    let (monitor, changes) = monitor([("blocks", check)]);
    while changes.lock().is_empty() {
        monitor.report(None).await;
        sleep(Duration::from_millis(1)).await;
    }
    let (status, description) = first(&monitor).await;
    assert_eq!(status, HealthStatus::Unhealthy);
    assert!(description.starts_with("has not returned for 0."), "{description}");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    drop(unblock);
    while !first(&monitor).await.1.starts_with("no result within") {
        sleep(Duration::from_millis(1)).await;
    }
}
