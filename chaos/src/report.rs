//! Compares the service's final answers with the clients' responses and the handlers' ledger, and reports violations.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::{
    document::{attempts, text},
    fleet::Fleet,
    history::{FaultHistory, after},
    ledger::{LedgerReader, Line},
    load::{Accepted, ClientLog, Response},
    recovery::{self, Recovery},
};

/// Maximum time for a handler to stop after it lost its lease, including the delay of reading the ledger.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Maximum delay of reading a ledger line, on a busy machine.
const READ_DELAY: Duration = Duration::from_secs(1);

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub(crate) faults: BTreeMap<String, usize>,
    pub(crate) accepted: usize,
    pub(crate) found: usize,
    pub(crate) ends: BTreeMap<String, usize>,
    pub(crate) seen_ended: usize,
    pub(crate) refused: Vec<Duration>,
    pub(crate) recovery: Recovery,
    /// Violations that a promotion explains: the replica lacked the last writes.
    pub lost_by_failover: Vec<String>,
    /// Accepted jobs that no longer exist.
    pub lost: Vec<String>,
    /// One job for two keys, or two jobs for one key.
    pub duplicated: Vec<String>,
    /// Jobs that changed after their end.
    pub changed: Vec<String>,
    /// Jobs that had not ended long after the last fault.
    pub stuck: Vec<String>,
    /// Jobs with more starts than counted attempts, or more attempts than retries, losses and releases explain.
    pub uncounted: Vec<String>,
    /// Jobs that an attempt before the last one settled.
    pub settled_twice: Vec<String>,
    /// Handlers that still ran after the next attempt had started.
    pub overlapping: Vec<String>,
    /// Submissions that an undisturbed process answered too late.
    pub late: Vec<String>,
    /// Graceful stops with a bad exit.
    pub bad_exits: Vec<String>,
    /// Inconsistencies in the SQLite file.
    pub inconsistent: Vec<String>,
}

impl Report {
    /// Each kind of violation with its occurrences.
    pub(crate) fn violations(&self) -> [(&'static str, &[String]); 12] {
        [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("changed after their end", &self.changed),
            ("stuck", &self.stuck),
            ("run more often than counted", &self.uncounted),
            ("settled twice", &self.settled_twice),
            ("still running after the next attempt started", &self.overlapping),
            ("submissions not answered within 5 s", &self.late),
            ("outages without an attempt within 5 s of their end", &self.recovery.late_after_outage),
            ("workers without an attempt within 5 s of reconnection", &self.recovery.late_after_cut),
            ("graceful stops with a bad exit", &self.bad_exits),
            ("inconsistencies in the store", &self.inconsistent),
        ]
    }

    /// Whether there are no violations.
    pub fn is_good(&self) -> bool {
        self.violations().iter().all(|(_, found)| found.is_empty())
    }

    /// Whether the run tested anything: there were faults, accepted jobs and interrupted attempts.
    pub fn is_meaningful(&self) -> bool {
        !self.faults.is_empty() && self.accepted > 0 && self.recovery.interrupted > 0
    }

    /// The `q` quantile of the time from the kill of a process to the next attempt of its jobs.
    pub fn recovery(&self, q: f64) -> Option<Duration> {
        recovery::quantile(&self.recovery.after_kill, q)
    }
}

/// Reads every accepted job twice and compares the records. Jobs may take `patience` to end.
pub(crate) async fn of(
    fleet: &Fleet,
    clients: ClientLog,
    ledger: &LedgerReader,
    patience: Duration,
) -> io::Result<Report> {
    let http = Client::builder().no_proxy().timeout(STOP_LIMIT * 3).build().map_err(io::Error::other)?;
    let (end, until) = (Timestamp::now(), Instant::now() + patience);
    let (mut jobs, mut missing, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
    let accepted: BTreeMap<&str, &Accepted> = clients.accepted.iter().map(|job| (job.id.as_str(), job)).collect();
    for id in accepted.keys() {
        match ended(fleet, &http, id, until).await? {
            None => missing.push((*id).to_owned()),
            Some(job) if job["completedAt"].is_null() => stuck.push(job.to_string()),
            Some(job) => jobs.push(job),
        }
    }
    // Read again from another process, after all jobs were read.
    let mut again = HashMap::new();
    for job in &jobs {
        let id = text(job, "id");
        again.insert(id.to_owned(), get(fleet, &http, id, 1, until).await?.unwrap_or_default());
    }
    let history = fleet.history.lock().clone();
    let checker = Checker { history: &history, lines: by_job(ledger.lines()?), accepted, report: Report::default() };
    let mut report = checker.report(&clients, &jobs, &again, &missing);
    report.stuck = stuck;
    report.recovery = Recovery::of(&history, &ledger.lines()?, &jobs, end);
    Ok(report)
}

struct Checker<'a> {
    history: &'a FaultHistory,
    lines: HashMap<String, Vec<Line>>,
    accepted: BTreeMap<&'a str, &'a Accepted>,
    report: Report,
}

impl Checker<'_> {
    fn report(
        mut self,
        clients: &ClientLog,
        jobs: &[Value],
        again: &HashMap<String, Value>,
        missing: &[String],
    ) -> Report {
        let Self { history, accepted, report, .. } = &mut self;
        for event in &history.events {
            *report.faults.entry(event.fault.to_string()).or_default() += 1;
        }
        (report.accepted, report.found) = (accepted.len(), accepted.len() - missing.len());
        report.seen_ended = clients.ended.len();
        // A frozen process cannot answer in time.
        let undisturbed = |answer: &&Response| !history.is_disturbed(answer.process, answer.from, answer.until);
        report.refused = clients.refused.iter().filter(undisturbed).map(Response::took).collect();
        report.late = clients.late.iter().filter(undisturbed).map(ToString::to_string).collect();
        for id in missing {
            self.record(id, id.clone(), |report| &mut report.lost);
        }
        self.check_keys(clients);
        for job in jobs {
            *self.report.ends.entry(text(job, "status").to_owned()).or_default() += 1;
            self.check(job, clients.ended.get(text(job, "id")), &again[text(job, "id")]);
        }
        self.report
    }

    fn check(&mut self, job: &Value, seen: Option<&Value>, again: &Value) {
        let id = text(job, "id").to_owned();
        let lines = self.lines.get(&id).map(Vec::as_slice).unwrap_or_default();
        let starts = lines.iter().filter(|line| !line.is_end).count();
        let (counted, overlapping) = (is_counted(job, starts), overlap(self.history, lines));
        let settled_once = is_settled_once(job) && is_settled_by_its_last(job, lines);
        if again != job || seen.is_some_and(|seen| seen != job) {
            self.record(&id, format!("{} {job}", seen.unwrap_or(again)), |report| &mut report.changed);
        }
        if !counted {
            self.record(&id, format!("{starts} starts: {job}"), |report| &mut report.uncounted);
        }
        if !settled_once {
            self.record(&id, job.to_string(), |report| &mut report.settled_twice);
        }
        if let Some(line) = overlapping {
            self.record(&id, line, |report| &mut report.overlapping);
        }
    }

    /// Checks that each key has one job: every job in the ledger was accepted once.
    fn check_keys(&mut self, clients: &ClientLog) {
        let mut ids = BTreeSet::new();
        let same = clients.accepted.iter().filter(|job| !ids.insert(&job.id)).map(|job| job.id.clone());
        let unknown = self.lines.keys().filter(|id| !self.accepted.contains_key(id.as_str())).cloned();
        for id in same.chain(unknown).collect::<Vec<_>>() {
            self.record(&id, id.clone(), |report| &mut report.duplicated);
        }
    }

    /// Records a violation, or a loss by failover if the job was written in the last second before a promotion.
    fn record(&mut self, id: &str, what: String, list: impl FnOnce(&mut Report) -> &mut Vec<String>) {
        let lines = self.lines.get(id).into_iter().flatten().map(|line| line.at);
        let accepted = self.accepted.get(id).map(|job| job.at);
        if lines.chain(accepted).any(|at| self.history.is_lost_by_failover(at)) {
            self.report.lost_by_failover.push(what);
        } else {
            list(&mut self.report).push(what);
        }
    }
}

fn by_job(all: Vec<Line>) -> HashMap<String, Vec<Line>> {
    let mut lines: HashMap<String, Vec<Line>> = HashMap::new();
    for line in all {
        lines.entry(line.job.clone()).or_default().push(line);
    }
    lines
}

/// Whether each start was counted as an attempt, and each attempt has a reason.
fn is_counted(job: &Value, starts: usize) -> bool {
    let number = |name: &str| job[name].as_u64().unwrap_or_default();
    let attempts = attempts(job);
    let released = attempts.iter().filter(|attempt| attempt["outcome"] == "released").count() as u64;
    let reasons = 1 + number("retryCount") + number("lossCount") + released;
    starts as u64 <= number("attempt") && (number("attempt") <= reasons || attempts.len() == 20)
}

/// Whether no attempt before the last one settled the job.
fn is_settled_once(job: &Value) -> bool {
    let settled = |attempt: &Value| ["completed", "failed", "canceled"].contains(&text(attempt, "outcome"));
    let before = attempts(job).split_last().map(|(_, before)| before).unwrap_or_default();
    !before.iter().any(settled)
}

/// Whether the job completed after the handler of its last attempt ended. A handler writes its end to the ledger before
/// the worker settles the attempt.
fn is_settled_by_its_last(job: &Value, lines: &[Line]) -> bool {
    let Ok(ended) = text(job, "completedAt").parse::<Timestamp>() else { return true };
    if text(job, "status") != "Completed" {
        return true;
    }
    let last = |line: &&Line| Some(line.attempt) == job["attempt"].as_u64();
    let (start, end) =
        (lines.iter().filter(last).find(|line| !line.is_end), lines.iter().filter(last).rfind(|line| line.is_end));
    match (start, end) {
        (Some(_), Some(end)) => after(ended, READ_DELAY) >= end.at,
        _ => false,
    }
}

/// Describes an attempt that still ran after the next one started, unless its process was frozen or gone.
fn overlap(history: &FaultHistory, lines: &[Line]) -> Option<String> {
    lines.iter().filter(|line| !line.is_end).find_map(|start| {
        let next = lines.iter().find(|next| !next.is_end && next.attempt > start.attempt)?;
        let end = lines.iter().find(|end| end.is_end && (end.attempt, end.process) == (start.attempt, start.process));
        let (limit, ended) = (after(next.at, STOP_LIMIT), end.map_or(Timestamp::MAX, |end| end.at));
        let excused = match end {
            Some(_) => history.is_frozen(start.process, start.at, ended),
            None => history.gone.contains_key(&start.process),
        };
        (ended > limit && !excused).then(|| format!("{start:?}, then {next:?}, ended {end:?}"))
    })
}

/// Waits until the job has ended or the time is up, and returns its document. `None` if the job does not exist.
async fn ended(fleet: &Fleet, http: &Client, id: &str, until: Instant) -> io::Result<Option<Value>> {
    loop {
        let job = get(fleet, http, id, 0, until).await?;
        if Instant::now() > until || job.as_ref().is_none_or(|job| !job["completedAt"].is_null()) {
            return Ok(job);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads the job from one process. Repeats until the process answers or the time is up.
async fn get(fleet: &Fleet, http: &Client, id: &str, place: usize, until: Instant) -> io::Result<Option<Value>> {
    loop {
        let answer = http.get(format!("{}/jobs/{id}", fleet.any(place).url)).send().await;
        match answer.as_ref().map(reqwest::Response::status) {
            Ok(StatusCode::NOT_FOUND | StatusCode::GONE) => return Ok(None),
            Ok(StatusCode::OK) => return answer.map_err(io::Error::other)?.json().await.map_err(io::Error::other),
            _ if Instant::now() < until => tokio::time::sleep(Duration::from_millis(100)).await,
            other => return Err(io::Error::other(format!("{other:?} for job {id}"))),
        }
    }
}

#[cfg(test)]
mod tests;
