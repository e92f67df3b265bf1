//! Clients that submit jobs and repeat unanswered requests with the same idempotency key until they receive 202. They also
//! read their jobs and record finished ones.

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
    fleet::{Address, Fleet},
    history::between,
};

/// Every submission is answered within this time, even during an outage of the store.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Client timeout for one request.
const TIMEOUT: Duration = Duration::from_millis(5500);

pub(crate) struct Load {
    stopped: Arc<AtomicBool>,
    clients: JoinSet<ClientLog>,
}

/// The responses that clients received.
#[derive(Debug, Default)]
pub(crate) struct ClientLog {
    pub(crate) accepted: Vec<Accepted>,
    /// Jobs as first read after their end.
    pub(crate) ended: HashMap<String, Value>,
    /// Submissions with a 5xx status.
    pub(crate) refused: Vec<Response>,
    /// Submissions answered after `ANSWER_LIMIT`, or not at all.
    pub(crate) late: Vec<Response>,
}

#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) process: u32,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) what: String,
}

impl Response {
    pub(crate) fn took(&self) -> Duration {
        between(self.from, self.until)
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by process {}, sent at {}, after {:?}", self.what, self.process, self.from, self.took())
    }
}

impl Load {
    pub(crate) fn start(fleet: &Arc<Fleet>, clients: usize, mut rng: fastrand::Rng) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..clients {
            let http = Client::builder().timeout(TIMEOUT).no_proxy().build().unwrap_or_default();
            let client = OneClient { fleet: fleet.clone(), http, rng: rng.fork(), log: ClientLog::default() };
            running.spawn(client.run(stopped.clone(), number));
        }
        Self { stopped, clients: running }
    }

    /// Returns when all submissions that clients began are accepted.
    pub(crate) async fn stop(self) -> ClientLog {
        self.stopped.store(true, Ordering::Relaxed);
        let mut all = ClientLog::default();
        for log in self.clients.join_all().await {
            all.accepted.extend(log.accepted);
            all.ended.extend(log.ended);
            all.refused.extend(log.refused);
            all.late.extend(log.late);
        }
        all
    }
}

struct OneClient {
    fleet: Arc<Fleet>,
    http: Client,
    rng: fastrand::Rng,
    log: ClientLog,
}

impl OneClient {
    async fn run(mut self, stopped: Arc<AtomicBool>, client: usize) -> ClientLog {
        for number in 0_u64.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let (path, body) = request(&mut self.rng);
            let accepted = self.until_accepted(path, &body, &format!("{client}-{number}")).await;
            self.log.accepted.push(accepted);
            if self.rng.u8(..4) == 0 {
                self.read_one().await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.u64(20..180))).await;
        }
        self.log
    }

    /// Sends the request to random processes until one answers 202.
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

    /// Returns the job's id if the request was accepted.
    async fn submit(&mut self, address: &Address, request: RequestBuilder) -> Option<String> {
        let from = Timestamp::now();
        let sent = request.send().await;
        let until = Timestamp::now();
        let what = sent.as_ref().map_or_else(ToString::to_string, |answer| answer.status().to_string());
        let response = Response { process: address.process, from, until, what };
        if response.took() > ANSWER_LIMIT {
            self.log.late.push(response.clone());
        }
        let answer = sent.ok()?;
        if answer.status().is_server_error() {
            self.log.refused.push(response);
        }
        if answer.status() != StatusCode::ACCEPTED {
            return None;
        }
        Some(answer.json::<Value>().await.ok()?["id"].as_str()?.to_owned())
    }

    /// Reads one of this client's jobs, and records the job if it has ended.
    async fn read_one(&mut self) {
        let Some(Accepted { id, .. }) = self.rng.choice(&self.log.accepted).cloned() else { return };
        let address = self.fleet.accepting(self.rng.usize(..1000));
        if let Ok(answer) = self.http.get(format!("{}/jobs/{id}", address.url)).send().await
            && answer.status() == StatusCode::OK
            && let Ok(job) = answer.json::<Value>().await
            && !job["completedAt"].is_null()
        {
            self.log.ended.entry(id).or_insert(job);
        }
    }
}

/// A random request. The total load is below the capacity of two processes, so that delays have another cause.
fn request(rng: &mut fastrand::Rng) -> (&'static str, Value) {
    match rng.u8(..100) {
        0..70 => ("/api/sleep", json!({ "seconds": f64::from(rng.u32(..400)) / 1000.0 })),
        70..90 => ("/api/unreliable", json!({ "failureRate": 0.2, "seed": rng.u32(..1000) })),
        90..98 => ("/api/performance", json!({ "itemCount": 200_000 })),
        _ => ("/api/sleep", json!({ "seconds": 5 })),
    }
}
