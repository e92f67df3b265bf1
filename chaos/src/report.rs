//! What became of every job, by what clients were told, what the service says in the end, and what the handlers wrote down.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::{
    diary::{Pages, after},
    fleet::Fleet,
    ledger::{Line, Watch},
    load::{Accepted, Answer, Heard},
    recovery::{self, Recovery},
};

/// What a handler may take to stop when its lease was lost; less than that is what this tool takes to notice.
const GRACE: Duration = Duration::from_secs(2);

/// How much later than it was written a line may be read, on a busy machine.
const READ: Duration = Duration::from_secs(1);

/// What a run comes to.
#[derive(Debug, Default)]
pub struct Report {
    pub(crate) happened: BTreeMap<String, usize>,
    pub(crate) accepted: usize,
    pub(crate) found: usize,
    pub(crate) ends: BTreeMap<String, usize>,
    pub(crate) seen_ended: usize,
    pub(crate) refused: Vec<Duration>,
    pub(crate) recovery: Recovery,
    /// Touched in the last moment before a promotion, and not as they were any more: what an asynchronous replica costs.
    pub tail: Vec<String>,
    /// Accepted, and not there any more.
    pub lost: Vec<String>,
    /// The same job by different keys, or a second one by the same key.
    pub twice: Vec<String>,
    /// Ended, and different when it was read again later.
    pub changed: Vec<String>,
    /// Not ended long after everything was calm.
    pub stuck: Vec<String>,
    /// More starts than the service counted, or more attempts than their reasons allow.
    pub uncounted: Vec<String>,
    /// More than one attempt settled it, or one that was not the last.
    pub settled_twice: Vec<String>,
    /// Handlers that went on after another attempt had begun.
    pub went_on: Vec<String>,
    /// Submissions that were not answered within the time promised, by processes that ran.
    pub late: Vec<String>,
    /// Stops that did not end well.
    pub bad_exits: Vec<String>,
    /// What the store itself holds in the end that does not fit together.
    pub unfit: Vec<String>,
}

impl Report {
    /// Each promise, and how it was broken.
    pub(crate) fn broken(&self) -> [(&'static str, &[String]); 12] {
        [
            ("lost", &self.lost),
            ("made twice", &self.twice),
            ("changed after their end", &self.changed),
            ("stuck", &self.stuck),
            ("run more often than was counted", &self.uncounted),
            ("settled twice", &self.settled_twice),
            ("run on after another attempt had begun", &self.went_on),
            ("submissions answered later than after 5 s", &self.late),
            ("outages with no attempt within 5 s of their end", &self.recovery.late_after_outage),
            ("workers with none within 5 s after being cut off", &self.recovery.late_after_cut),
            ("stops that did not end well", &self.bad_exits),
            ("places where the store does not fit together", &self.unfit),
        ]
    }

    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        self.broken().iter().all(|(_, broken)| broken.is_empty())
    }

    /// Whether it tried anything: things happened, jobs were accepted, and attempts were cut off.
    pub fn is_a_try(&self) -> bool {
        !self.happened.is_empty() && self.accepted > 0 && self.recovery.cut_off > 0
    }

    /// From the kill of a process to the next attempt of what it ran: the share `q` took no longer.
    pub fn recovery(&self, q: f64) -> Option<Duration> {
        recovery::quantile(&self.recovery.after_kill, q)
    }
}

pub(crate) async fn of(fleet: &Fleet, heard: Heard, watch: &Watch, patience: Duration) -> io::Result<Report> {
    let http = Client::builder().no_proxy().timeout(GRACE * 3).build().map_err(io::Error::other)?;
    let (over, until) = (Timestamp::now(), Instant::now() + patience);
    let (mut jobs, mut missing, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
    let accepted: BTreeMap<&str, &Accepted> = heard.accepted.iter().map(|job| (job.id.as_str(), job)).collect();
    for id in accepted.keys() {
        match ended(fleet, &http, id, until).await? {
            None => missing.push((*id).to_owned()),
            Some(job) if job["completedAt"].is_null() => stuck.push(job.to_string()),
            Some(job) => jobs.push(job),
        }
    }
    // By another process than before, and after everything else.
    let mut again = HashMap::new();
    for job in &jobs {
        let id = text(job, "id");
        again.insert(id.to_owned(), get(fleet, &http, id, 1, until).await?.unwrap_or_default());
    }
    let pages = fleet.diary.write().clone();
    let judge = Judge { pages: &pages, lines: by_job(watch.lines()?), accepted, report: Report::default() };
    let mut report = judge.report(&heard, &jobs, &again, &missing);
    report.stuck = stuck;
    report.recovery = Recovery::of(&pages, &watch.lines()?, &jobs, over);
    Ok(report)
}

struct Judge<'a> {
    pages: &'a Pages,
    lines: HashMap<String, Vec<Line>>,
    accepted: BTreeMap<&'a str, &'a Accepted>,
    report: Report,
}

impl Judge<'_> {
    fn report(mut self, heard: &Heard, jobs: &[Value], again: &HashMap<String, Value>, missing: &[String]) -> Report {
        let Self { pages, accepted, report, .. } = &mut self;
        for happened in &pages.happened {
            *report.happened.entry(happened.fault.to_string()).or_default() += 1;
        }
        (report.accepted, report.found) = (accepted.len(), accepted.len() - missing.len());
        report.seen_ended = heard.ended.len();
        // Nobody who is frozen answers in time.
        let ran = |answer: &&Answer| !pages.is_disturbed(answer.process, answer.from, answer.until);
        report.refused = heard.refused.iter().filter(ran).map(Answer::took).collect();
        report.late = heard.late.iter().filter(ran).map(ToString::to_string).collect();
        for id in missing {
            self.blame(id, id.clone(), |report| &mut report.lost);
        }
        self.twice(heard);
        for job in jobs {
            *self.report.ends.entry(text(job, "status").to_owned()).or_default() += 1;
            self.judge(job, heard.ended.get(text(job, "id")), &again[text(job, "id")]);
        }
        self.report
    }

    fn judge(&mut self, job: &Value, seen: Option<&Value>, again: &Value) {
        let id = text(job, "id").to_owned();
        let lines = self.lines.get(&id).map(Vec::as_slice).unwrap_or_default();
        let starts = lines.iter().filter(|line| !line.is_end).count();
        let (counted, went_on) = (is_counted(job, starts), went_on(self.pages, lines));
        let settled_once = is_settled_once(job) && is_settled_by_its_last(job, lines);
        if again != job || seen.is_some_and(|seen| seen != job) {
            self.blame(&id, format!("{} {job}", seen.unwrap_or(again)), |report| &mut report.changed);
        }
        if !counted {
            self.blame(&id, format!("{starts} starts: {job}"), |report| &mut report.uncounted);
        }
        if !settled_once {
            self.blame(&id, job.to_string(), |report| &mut report.settled_twice);
        }
        if let Some(line) = went_on {
            self.blame(&id, line, |report| &mut report.went_on);
        }
    }

    /// One key, one job: whatever ran is what a client was told of, and no two clients were told of the same.
    fn twice(&mut self, heard: &Heard) {
        let mut told = BTreeSet::new();
        let same = heard.accepted.iter().filter(|job| !told.insert(&job.id)).map(|job| job.id.clone());
        let unknown = self.lines.keys().filter(|id| !self.accepted.contains_key(id.as_str())).cloned();
        for id in same.chain(unknown).collect::<Vec<_>>() {
            self.blame(&id, id.clone(), |report| &mut report.twice);
        }
    }

    /// A broken promise, unless the job was touched in the last moment before a promotion.
    fn blame(&mut self, id: &str, what: String, promise: impl FnOnce(&mut Report) -> &mut Vec<String>) {
        let lines = self.lines.get(id).into_iter().flatten().map(|line| line.at);
        let accepted = self.accepted.get(id).map(|job| job.at);
        if lines.chain(accepted).any(|at| self.pages.is_tail(at)) {
            self.report.tail.push(what);
        } else {
            promise(&mut self.report).push(what);
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

/// Each start was counted before it happened, and each attempt has its reason.
fn is_counted(job: &Value, starts: usize) -> bool {
    let number = |name: &str| job[name].as_u64().unwrap_or_default();
    let attempts = attempts(job);
    let released = attempts.iter().filter(|attempt| attempt["outcome"] == "released").count() as u64;
    let reasons = 1 + number("retryCount") + number("lossCount") + released;
    starts as u64 <= number("attempt") && (number("attempt") <= reasons || attempts.len() == 20)
}

/// By the last attempt, or by none, if it ended as its worker was lost.
fn is_settled_once(job: &Value) -> bool {
    let settled = |attempt: &Value| ["completed", "failed", "canceled"].contains(&text(attempt, "outcome"));
    let before = attempts(job).split_last().map(|(_, before)| before).unwrap_or_default();
    !before.iter().any(settled)
}

/// A handler's end is written down before its attempt is settled. So a job that completed while the handler of its last
/// attempt still ran, or never did, was settled by another one.
fn is_settled_by_its_last(job: &Value, lines: &[Line]) -> bool {
    let Ok(ended) = text(job, "completedAt").parse::<Timestamp>() else { return true };
    if text(job, "status") != "Completed" {
        return true;
    }
    let last = |line: &&Line| Some(line.attempt) == job["attempt"].as_u64();
    let (start, end) =
        (lines.iter().filter(last).find(|line| !line.is_end), lines.iter().filter(last).rfind(|line| line.is_end));
    match (start, end) {
        (Some(_), Some(end)) => after(ended, READ) >= end.at,
        _ => false,
    }
}

/// An attempt that still ran when the next one had begun, though its process was neither frozen nor gone.
fn went_on(pages: &Pages, lines: &[Line]) -> Option<String> {
    lines.iter().filter(|line| !line.is_end).find_map(|start| {
        let next = lines.iter().find(|next| !next.is_end && next.attempt > start.attempt)?;
        let end = lines.iter().find(|end| end.is_end && (end.attempt, end.process) == (start.attempt, start.process));
        let (limit, ended) = (after(next.at, GRACE), end.map_or(Timestamp::MAX, |end| end.at));
        let excused = match end {
            Some(_) => pages.is_frozen(start.process, start.at, ended),
            None => pages.gone.contains_key(&start.process),
        };
        (ended > limit && !excused).then(|| format!("{start:?}, then {next:?}, and ended by {end:?}"))
    })
}

pub(crate) fn attempts(job: &Value) -> &[Value] {
    job["attempts"].as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A job once it has ended, or as it is when time is up; none if there is none.
async fn ended(fleet: &Fleet, http: &Client, id: &str, until: Instant) -> io::Result<Option<Value>> {
    loop {
        let job = get(fleet, http, id, 0, until).await?;
        if Instant::now() > until || job.as_ref().is_none_or(|job| !job["completedAt"].is_null()) {
            return Ok(job);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a process says of it, once it can say anything.
async fn get(fleet: &Fleet, http: &Client, id: &str, place: usize, until: Instant) -> io::Result<Option<Value>> {
    loop {
        let answer = http.get(format!("{}/jobs/{id}", fleet.any(place).url)).send().await;
        match answer.as_ref().map(reqwest::Response::status) {
            Ok(StatusCode::NOT_FOUND | StatusCode::GONE) => return Ok(None),
            Ok(StatusCode::OK) => return answer.map_err(io::Error::other)?.json().await.map_err(io::Error::other),
            _ if Instant::now() < until => tokio::time::sleep(Duration::from_millis(100)).await,
            what => return Err(io::Error::other(format!("{what:?} for job {id}"))),
        }
    }
}

#[cfg(test)]
mod tests;
