//! Clients that submit, and repeat under the same key whatever was not answered: what they count as accepted has its 202.
//! They also read what they submitted, and remember how they saw it end.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    diary::between,
    fleet::{Address, Fleet},
};

/// What a store that is away may cost a client: its answer has to come in that time, whatever it says.
pub(crate) const PROMISED: Duration = Duration::from_secs(5);
/// For one answer: a frozen process gives none.
const PATIENCE: Duration = Duration::from_millis(5500);

pub(crate) struct Load {
    over: Arc<AtomicBool>,
    clients: JoinSet<Heard>,
}

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) accepted: Vec<Accepted>,
    /// Jobs as they were when they were first seen to have ended.
    pub(crate) ended: HashMap<String, Value>,
    /// Submissions that were told that it cannot be done now.
    pub(crate) refused: Vec<Answer>,
    /// Submissions that were not answered in time.
    pub(crate) late: Vec<Answer>,
}

#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) process: u32,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) what: String,
}

impl Answer {
    pub(crate) fn took(&self) -> Duration {
        between(self.from, self.until)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} by process {}, asked at {}, {:?} later",
            self.what,
            self.process,
            self.from,
            between(self.from, self.until)
        )
    }
}

impl Load {
    pub(crate) fn start(fleet: &Arc<Fleet>, clients: usize, mut rng: fastrand::Rng) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..clients {
            let http = Client::builder().timeout(PATIENCE).no_proxy().build().unwrap_or_default();
            let client = OneClient { fleet: fleet.clone(), http, rng: rng.fork(), heard: Heard::default() };
            running.spawn(client.run(over.clone(), number));
        }
        Self { over, clients: running }
    }

    /// Returns when everything that was begun is accepted.
    pub(crate) async fn stop(self) -> Heard {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Heard::default();
        for heard in self.clients.join_all().await {
            all.accepted.extend(heard.accepted);
            all.ended.extend(heard.ended);
            all.refused.extend(heard.refused);
            all.late.extend(heard.late);
        }
        all
    }
}

struct OneClient {
    fleet: Arc<Fleet>,
    http: Client,
    rng: fastrand::Rng,
    heard: Heard,
}

impl OneClient {
    async fn run(mut self, over: Arc<AtomicBool>, client: usize) -> Heard {
        for number in 0_u64.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let (path, body) = request(&mut self.rng);
            let accepted = self.until_accepted(path, &body, &format!("{client}-{number}")).await;
            self.heard.accepted.push(accepted);
            if self.rng.u8(..4) == 0 {
                self.look().await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.u64(20..180))).await;
        }
        self.heard
    }

    /// Asks one process after the other until one says 202: a repeat under the same key makes no second job.
    async fn until_accepted(&mut self, path: &str, body: &Value, key: &str) -> Accepted {
        loop {
            let address = self.fleet.accepting(self.rng.usize(..1000));
            let request = self.http.post(format!("{}{path}", address.url)).json(body).header("idempotency-key", key);
            if let Some(id) = self.submit(&address, request).await {
                return Accepted { id, at: Timestamp::now() };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The job's id, if it was accepted.
    async fn submit(&mut self, address: &Address, request: RequestBuilder) -> Option<String> {
        let from = Timestamp::now();
        let sent = request.send().await;
        let until = Timestamp::now();
        let what = sent.as_ref().map_or_else(ToString::to_string, |answer| answer.status().to_string());
        let answered = Answer { process: address.process, from, until, what };
        if answered.took() > PROMISED {
            self.heard.late.push(answered.clone());
        }
        let answer = sent.ok()?;
        if answer.status().is_server_error() {
            self.heard.refused.push(answered);
        }
        if answer.status() != StatusCode::ACCEPTED {
            return None;
        }
        Some(answer.json::<Value>().await.ok()?["id"].as_str()?.to_owned())
    }

    /// Looks at a job of its own; one that has ended is not to change any more.
    async fn look(&mut self) {
        let Some(Accepted { id, .. }) = self.rng.choice(&self.heard.accepted).cloned() else { return };
        let address = self.fleet.accepting(self.rng.usize(..1000));
        if let Ok(answer) = self.http.get(format!("{}/jobs/{id}", address.url)).send().await
            && answer.status() == StatusCode::OK
            && let Ok(job) = answer.json::<Value>().await
            && !job["completedAt"].is_null()
        {
            self.heard.ended.entry(id).or_insert(job);
        }
    }
}

/// Less than two processes can do, so that what takes long takes long for another reason.
fn request(rng: &mut fastrand::Rng) -> (&'static str, Value) {
    match rng.u8(..100) {
        0..70 => ("/api/sleep", json!({ "seconds": f64::from(rng.u32(..400)) / 1000.0 })),
        70..90 => ("/api/unreliable", json!({ "failureRate": 0.2, "seed": rng.u32(..1000) })),
        90..98 => ("/api/performance", json!({ "itemCount": 200_000 })),
        _ => ("/api/sleep", json!({ "seconds": 5 })),
    }
}
