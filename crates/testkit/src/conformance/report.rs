//! Progress and log lines of running attempts.

use async_endpoints_core::{
    JobId, JobStore as _,
    job::LogLine,
    limits::LOG_BYTES_PER_JOB,
    store::{Fenced, Lease, Report, ReportedProgress},
};

use crate::{Rig, jobs::line};

pub(super) fn progress(completed: u64) -> ReportedProgress {
    ReportedProgress { completed, total: Some(80), percent: Some(12.5), message: Some("rows  ünï\n".to_owned()) }
}

async fn log(rig: &Rig, lease: Lease, lines: &[&str]) {
    let logs = lines.iter().map(|text| line(*text)).collect();
    assert_eq!(rig.report(Report { lease, progress: None, logs }).await, Fenced::Applied);
}

async fn read(rig: &Rig, id: JobId, after: u64, limit: u32) -> Vec<LogLine> {
    rig.store.logs(id, after, limit).await.expect("the store answers")
}

fn numbered(lines: &[LogLine]) -> Vec<(u64, u32, &str)> {
    lines.iter().map(|line| (line.line, line.attempt, line.message.as_str())).collect()
}

/// Each report of progress is stored with the store's time and is a visible change.
pub async fn progress_is_stored(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let before = rig.view(lease.job).await;
    assert_eq!(before.progress, None);
    rig.advance(1).await;
    assert_eq!(rig.report(Report { lease, progress: Some(progress(10)), logs: vec![] }).await, Fenced::Applied);
    let view = rig.view(lease.job).await;
    assert!(view.version > before.version, "a visible change");
    assert_eq!(view.progress, Some(progress(10).stored(view.last_updated_at)));
    assert!(view.last_updated_at > before.last_updated_at);
    let sparse = ReportedProgress { completed: 11, total: None, percent: None, message: None };
    rig.report(Report { lease, progress: Some(sparse.clone()), logs: vec![] }).await;
    let next = rig.view(lease.job).await;
    assert!(next.version > view.version, "a visible change");
    assert_eq!(next.progress, Some(sparse.stored(next.last_updated_at)));
}

/// Progress is kept after its attempt, until the next attempt starts.
pub async fn next_attempt_clears_progress(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    rig.report(Report { lease, progress: Some(progress(10)), logs: vec![] }).await;
    rig.release(lease).await;
    assert_eq!(rig.view(lease.job).await.progress.map(|progress| progress.completed), Some(10));
    let next = rig.take("alpha").await.lease;
    assert_eq!(rig.view(lease.job).await.progress, None);
    rig.report(Report { lease: next, progress: Some(progress(20)), logs: vec![] }).await;
    rig.complete(next).await;
    assert_eq!(rig.view(lease.job).await.progress.map(|progress| progress.completed), Some(20));
}

/// A report without progress is no visible change.
pub async fn log_lines_do_not_change_the_job(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    rig.report(Report { lease, progress: Some(progress(10)), logs: vec![] }).await;
    let before = rig.view(lease.job).await;
    rig.advance(1).await;
    log(rig, lease, &["one"]).await;
    assert_eq!(rig.view(lease.job).await, before);
}

/// The store sets the number and the attempt of each line. Numbers continue across the attempts of a job.
pub async fn lines_are_numbered_across_attempts(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    let id = lease.job;
    let forged = LogLine { line: 77, attempt: 9, ..line("one") };
    rig.report(Report { lease, progress: None, logs: vec![forged, line("two\n\0ünï")] }).await;
    log(rig, lease, &["three"]).await;
    rig.release(lease).await;
    let next = rig.take("alpha").await.lease;
    log(rig, next, &["four"]).await;
    let all = read(rig, id, 0, 100).await;
    assert_eq!(numbered(&all), [(1, 1, "one"), (2, 1, "two\n\0ünï"), (3, 1, "three"), (4, 2, "four")]);
    assert_eq!(all[0], LogLine { line: 1, attempt: 1, ..line("one") }, "time, level and fields are preserved");
    rig.complete(next).await;
    assert_eq!(read(rig, id, 0, 100).await, all, "an ended job keeps its lines");
}

pub async fn lines_are_paged(rig: &Rig) {
    let lease = rig.start("alpha").await.lease;
    log(rig, lease, &["1", "2", "3", "4", "5"]).await;
    let numbers = async |after, limit| -> Vec<u64> {
        read(rig, lease.job, after, limit).await.iter().map(|line| line.line).collect()
    };
    assert_eq!(numbers(0, 2).await, [1, 2]);
    assert_eq!(numbers(2, 2).await, [3, 4]);
    assert_eq!(numbers(4, 2).await, [5]);
    assert!(numbers(5, 2).await.is_empty());
    assert!(numbers(99, 2).await.is_empty());
}

/// Jobs without lines and unknown jobs have no lines.
pub async fn job_without_lines_reads_empty(rig: &Rig) {
    let id = rig.queue("alpha").await;
    assert_eq!(read(rig, id, 0, 10).await, []);
    assert_eq!(read(rig, JobId::random(), 0, 10).await, []);
}

/// A job keeps at most `LOG_BYTES_PER_JOB` bytes of lines. The oldest attempt's lines are dropped first, and line
/// numbers are not reused.
pub async fn oldest_attempts_lose_lines_first(rig: &Rig) {
    let block = "x".repeat(LOG_BYTES_PER_JOB / 10);
    let id = rig.queue("alpha").await;
    for _ in 0..4 {
        let lease = rig.take("alpha").await.lease;
        log(rig, lease, &[&block, &block, &block]).await;
        rig.release(lease).await;
    }
    let kept = read(rig, id, 0, 1_000).await;
    let bytes: usize = kept.iter().map(LogLine::bytes).sum();
    assert!(bytes <= LOG_BYTES_PER_JOB, "{bytes} bytes are kept");
    assert!(kept.iter().all(|line| line.attempt > 1), "the first attempt's lines are dropped");
    let newest: Vec<u64> = kept.iter().filter(|line| line.attempt == 4).map(|line| line.line).collect();
    assert_eq!(newest, [10, 11, 12], "the newest lines, with new numbers");
    let second = kept.iter().filter(|line| line.attempt == 2).count();
    assert_eq!(second, 3, "no more lines are dropped than necessary");
}

pub async fn reports_answer_in_order(rig: &Rig) {
    let (running, ended) = (rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    rig.complete(ended).await;
    let report = |lease| Report { lease, progress: Some(progress(1)), logs: vec![line("x")] };
    let unknown = Lease { job: JobId::random(), ..running };
    let reports = [report(ended), report(running), report(unknown)];
    let answers = rig.store.report(&reports).await.expect("the store answers");
    assert_eq!(answers, [Fenced::Lost, Fenced::Applied, Fenced::Lost]);
    assert_eq!(read(rig, ended.job, 0, 10).await, []);
    assert_eq!(rig.view(ended.job).await.progress, None);
    assert_eq!(read(rig, running.job, 0, 10).await.len(), 1);
    assert_eq!(rig.store.report(&[]).await.expect("the store answers"), []);
}
