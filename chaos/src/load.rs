//! Clients that submit, and repeat under the same key whatever was not answered: what they count as accepted has its 202.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::fleet::Fleet;

/// For one answer: a frozen process gives none.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct Load {
    over: Arc<AtomicBool>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    pub(crate) fn start(fleet: &Arc<Fleet>, clients: usize, mut rng: fastrand::Rng) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..clients {
            running.spawn(submit(fleet.clone(), over.clone(), number, rng.fork()));
        }
        Self { over, clients: running }
    }

    /// The ids of all accepted jobs.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

async fn submit(fleet: Arc<Fleet>, over: Arc<AtomicBool>, client: usize, mut rng: fastrand::Rng) -> Vec<String> {
    let http = Client::builder().timeout(PATIENCE).no_proxy().build().unwrap_or_default();
    let mut accepted = Vec::new();
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (path, body) = request(&mut rng);
        let key = format!("{client}-{number}");
        accepted.push(until_accepted(&fleet, &http, &mut rng, path, &body, &key).await);
        tokio::time::sleep(Duration::from_millis(rng.u64(20..180))).await;
    }
    accepted
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

/// Asks one process after the other until one says 202: a repeat under the same key makes no second job.
async fn until_accepted(
    fleet: &Fleet,
    http: &Client,
    rng: &mut fastrand::Rng,
    path: &str,
    body: &Value,
    key: &str,
) -> String {
    loop {
        let url = format!("{}{path}", fleet.url(rng.usize(..1000)));
        let sent = http.post(url).json(body).header("idempotency-key", key).send().await;
        if let Ok(answer) = sent
            && answer.status() == StatusCode::ACCEPTED
            && let Ok(job) = answer.json::<Value>().await
            && let Some(id) = job["id"].as_str()
        {
            return id.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
