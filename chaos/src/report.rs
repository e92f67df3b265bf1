//! What became of every job, by what the service says and by what the handlers wrote down.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs, io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::fleet::{Fleet, Told};

/// What a run comes to.
#[derive(Debug)]
pub struct Report {
    told: Told,
    accepted: usize,
    ends: BTreeMap<String, usize>,
    /// Accepted, and not there any more.
    pub lost: Vec<String>,
    /// The same job twice, by different keys.
    pub twice: usize,
    /// Ended, and different when it was read again later.
    pub changed: Vec<String>,
    /// Not ended long after everything was calm.
    pub stuck: Vec<String>,
    /// More starts than the service counted, or more attempts than their reasons allow.
    pub uncounted: Vec<String>,
    /// Attempts that a killed process left behind.
    pub cut_off: usize,
    /// From the kill to the start of the next attempt, of each of them.
    pub recoveries: Vec<Duration>,
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        let broken = [&self.lost, &self.changed, &self.stuck, &self.uncounted, &self.told.bad_exits];
        self.twice == 0 && broken.iter().all(|broken| broken.is_empty())
    }

    /// The share `q` of recoveries took no longer.
    pub fn recovery(&self, q: f64) -> Option<Duration> {
        let mut sorted = self.recoveries.clone();
        sorted.sort();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last as f64 * q).round() as usize).copied()
    }
}

pub(crate) async fn of(fleet: &Fleet, accepted: Vec<String>, patience: Duration) -> io::Result<Report> {
    let http = Client::builder().no_proxy().build().map_err(io::Error::other)?;
    let until = Instant::now() + patience;
    let ids: BTreeSet<String> = accepted.iter().cloned().collect();
    let mut report = Report {
        told: Told::default(),
        accepted: accepted.len(),
        ends: BTreeMap::new(),
        lost: Vec::new(),
        twice: accepted.len() - ids.len(),
        changed: Vec::new(),
        stuck: Vec::new(),
        uncounted: Vec::new(),
        cut_off: 0,
        recoveries: Vec::new(),
    };
    let mut jobs = Vec::new();
    for id in &ids {
        match ended(fleet, &http, id, until).await? {
            None => report.lost.push(id.clone()),
            Some(job) if job["completedAt"].is_null() => report.stuck.push(job.to_string()),
            Some(job) => jobs.push(job),
        }
    }
    report.told = fleet.told();
    let ledger = Ledger::read(fleet)?;
    for job in jobs {
        let id = job["id"].as_str().unwrap_or_default();
        *report.ends.entry(job["status"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        // By another process than before, and after everything else.
        if get(fleet, &http, id, 1).await?.as_ref() != Some(&job) {
            report.changed.push(id.to_owned());
        }
        if !is_counted(&job, ledger.starts(id)) {
            report.uncounted.push(job.to_string());
        }
        report.recover(&job, &ledger);
    }
    Ok(report)
}

impl Report {
    /// How long it took until an attempt followed those that a kill cut off.
    fn recover(&mut self, job: &Value, ledger: &Ledger) {
        let attempts = job["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
        for attempt in attempts.iter().filter(|attempt| attempt["outcome"] == "lost") {
            let number = attempt["attempt"].as_u64().unwrap_or_default();
            let next = attempts.iter().find(|next| next["attempt"].as_u64() == Some(number + 1));
            let process = ledger.process(job["id"].as_str().unwrap_or_default(), number);
            let Some(killed) = process.and_then(|process| self.told.killed.get(&process)) else { continue };
            self.cut_off += 1;
            let started = next.and_then(|next| next["startedAt"].as_str()?.parse::<Timestamp>().ok());
            let took = started.map(|started| started.duration_since(*killed));
            self.recoveries.extend(took.and_then(|took| Duration::try_from(took).ok()));
        }
    }
}

/// What the handlers wrote down: job, attempt, process, and start or end.
struct Ledger(HashMap<String, Vec<(u64, u32)>>);

impl Ledger {
    fn read(fleet: &Fleet) -> io::Result<Self> {
        let mut starts: HashMap<String, Vec<(u64, u32)>> = HashMap::new();
        for line in fs::read_to_string(fleet.ledger())?.lines() {
            if let [job, attempt, process, "start"] = line.split(',').collect::<Vec<_>>()[..]
                && let (Ok(attempt), Ok(process)) = (attempt.parse(), process.parse())
            {
                starts.entry(job.to_owned()).or_default().push((attempt, process));
            }
        }
        Ok(Self(starts))
    }

    fn starts(&self, job: &str) -> usize {
        self.0.get(job).map_or(0, Vec::len)
    }

    fn process(&self, job: &str, attempt: u64) -> Option<u32> {
        self.0.get(job)?.iter().find(|(number, _)| *number == attempt).map(|(_, process)| *process)
    }
}

/// Each start was counted before it happened, and each attempt has its reason.
fn is_counted(job: &Value, starts: usize) -> bool {
    let number = |name: &str| job[name].as_u64().unwrap_or_default();
    let attempts = job["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let released = attempts.iter().filter(|attempt| attempt["outcome"] == "released").count() as u64;
    let reasons = 1 + number("retryCount") + number("lossCount") + released;
    starts as u64 <= number("attempt") && (number("attempt") <= reasons || attempts.len() == 20)
}

/// A job once it has ended, or as it is when time is up; none if there is none.
async fn ended(fleet: &Fleet, http: &Client, id: &str, until: Instant) -> io::Result<Option<Value>> {
    loop {
        let job = get(fleet, http, id, 0).await?;
        if Instant::now() > until || job.as_ref().is_none_or(|job| !job["completedAt"].is_null()) {
            return Ok(job);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn get(fleet: &Fleet, http: &Client, id: &str, place: usize) -> io::Result<Option<Value>> {
    let answer = http.get(format!("{}/jobs/{id}", fleet.url(place))).send().await.map_err(io::Error::other)?;
    match answer.status() {
        StatusCode::OK => answer.json().await.map(Some).map_err(io::Error::other),
        StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
        status => Err(io::Error::other(format!("{status} for job {id}"))),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { kills, stops, freezes, bad_exits, .. } = &self.told;
        let seconds = |q| self.recovery(q).map_or("-".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()));
        let ends: Vec<String> = self.ends.iter().map(|(status, n)| format!("{n} {status}")).collect();
        writeln!(f, "  killed {kills}, stopped {stops}, frozen {freezes} times")?;
        writeln!(f, "  {:<52}{:>10}", "stops that did not end well", bad_exits.len())?;
        writeln!(f, "  {:<52}{:>10}", "jobs accepted", self.accepted)?;
        writeln!(f, "  {:<52}{:>10}", "  lost", self.lost.len())?;
        writeln!(f, "  {:<52}{:>10}", "  made twice", self.twice)?;
        writeln!(f, "  {:<52}{:>10}", "  changed after their end", self.changed.len())?;
        writeln!(f, "  {:<52}{:>10}", "  stuck", self.stuck.len())?;
        writeln!(f, "  {:<52}{:>10}", "  run more often than was counted", self.uncounted.len())?;
        writeln!(f, "  ended: {}", ends.join(", "))?;
        writeln!(f, "  {:<52}{:>10}", "attempts that a kill cut off", self.cut_off)?;
        let (half, most, all) = (seconds(0.5), seconds(0.99), seconds(1.0));
        write!(f, "  from the kill to the next attempt: p50 {half}, p99 {most}, at most {all}")?;
        for (what, which) in [("lost", &self.lost), ("changed", &self.changed), ("stuck", &self.stuck)] {
            for job in which.iter().take(5) {
                write!(f, "\n  {what}: {job}")?;
            }
        }
        for job in self.uncounted.iter().chain(bad_exits).take(5) {
            write!(f, "\n  {job}")?;
        }
        Ok(())
    }
}
