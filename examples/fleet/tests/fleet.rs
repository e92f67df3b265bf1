//! Tests the example as separate processes over Redis.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    process::Stdio,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use async_endpoints_testkit::server::RedisServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

async fn signal(name: &str, id: &str) {
    assert!(Command::new("kill").args([name, id]).status().await.unwrap().success());
}

struct Fleet {
    process: Child,
    url: String,
    workers: Vec<String>,
    client: reqwest::Client,
}

impl Fleet {
    async fn start(set: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_async-endpoints-fleet"));
        set(command.arg("127.0.0.1:0").stdout(Stdio::piped()).kill_on_drop(true));
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut url, mut workers) = (None, Vec::new());
        while url.is_none() || workers.len() < 2 {
            let line = timeout(TIMEOUT, lines.next_line()).await.unwrap().unwrap().unwrap();
            match line.strip_prefix("listening on ") {
                Some(address) => url = Some(address.to_owned()),
                None => workers.push(line.split(' ').nth(1).unwrap().to_owned()),
            }
        }
        Self { process, url: url.unwrap(), workers, client: reqwest::Client::new() }
    }

    async fn on(redis: &RedisServer) -> Self {
        Self::start(|command| _ = command.env("REDIS_URL", redis.url())).await
    }

    /// Submits a job and returns its address.
    async fn submit(&self, pages: u32) -> String {
        let submit = self.client.post(format!("{}/api/print", self.url)).json(&json!({ "pages": pages }));
        let accepted = submit.send().await.unwrap();
        format!("{}{}", self.url, accepted.headers()["location"].to_str().unwrap())
    }

    async fn get(&self, address: &str) -> Value {
        self.client.get(address).send().await.unwrap().json().await.unwrap()
    }

    /// Polls the job until `condition` holds.
    async fn until(&self, job: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let seen = timeout(TIMEOUT, async {
            loop {
                let seen = self.get(job).await;
                if condition(&seen) {
                    return seen;
                }
                sleep(POLL).await;
            }
        });
        seen.await.unwrap()
    }

    /// Process id of the worker that runs the job.
    async fn worker_of(&self, job: &str) -> String {
        let printing =
            |seen: &Value| Some(seen["progress"]["message"].as_str()?.strip_prefix("by worker ")?.to_owned());
        let worker = printing(&self.until(job, |seen| printing(seen).is_some()).await).unwrap();
        assert!(self.workers.contains(&worker), "{worker} of {:?}", self.workers);
        worker
    }

    async fn stop(mut self) {
        signal("-TERM", &self.process.id().unwrap().to_string()).await;
        assert!(timeout(TIMEOUT, self.process.wait()).await.unwrap().unwrap().success());
    }
}

fn is(status: &str) -> impl Fn(&Value) -> bool {
    move |seen| seen["status"] == status
}

#[tokio::test]
async fn job_of_killed_worker_runs_on_other_worker() {
    let redis = RedisServer::start();
    let fleet = Fleet::on(&redis).await;
    let job = fleet.submit(10).await;
    let printing = fleet.worker_of(&job).await;
    signal("-KILL", &printing).await;
    let ended = fleet.until(&format!("{job}?wait=30"), is("Completed")).await;
    assert_eq!((&ended["attempt"], &ended["lossCount"]), (&json!(2), &json!(1)), "{ended}");
    let other = fleet.workers.iter().find(|worker| **worker != printing).unwrap();
    assert_eq!(ended["progress"]["message"], format!("by worker {other}"), "{ended}");
    fleet.stop().await;
}

#[tokio::test]
async fn cancel_reaches_worker_within_two_seconds() {
    let redis = RedisServer::start();
    let fleet = Fleet::on(&redis).await;
    for _ in 0..3 {
        let job = fleet.submit(10_000).await;
        fleet.worker_of(&job).await;
        let asked = Instant::now();
        let answer = fleet.client.post(format!("{job}/cancel")).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        let ended = fleet.until(&job, |seen| seen["status"] != "InProgress").await;
        assert_eq!(ended["status"], "Canceled", "{ended}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}: {ended}", asked.elapsed());
    }
    fleet.stop().await;
}

/// Subscriptions are cut all the time, so that most hints are lost. Polling finds the jobs.
#[tokio::test]
async fn job_without_hint_starts_within_polling_interval() {
    let redis = Arc::new(RedisServer::start());
    let fleet = Fleet::on(&redis).await;
    let (stop, stopped) = mpsc::channel::<()>();
    let cutting = thread::spawn({
        let redis = redis.clone();
        move || {
            let mut cuts = 0;
            while stopped.recv_timeout(POLL) == Err(mpsc::RecvTimeoutError::Timeout) {
                cuts += redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).parse::<u32>().unwrap();
            }
            cuts
        }
    });
    for _ in 0..5 {
        let (job, accepted) = (fleet.submit(1).await, Instant::now());
        fleet.until(&job, |seen| seen["status"] != "Queued").await;
        // A worker polls once a second, with a jitter of a quarter.
        assert!(accepted.elapsed() < Duration::from_secs(2), "{:?}", accepted.elapsed());
        let ended = fleet.until(&job, is("Completed")).await;
        assert_eq!(ended["attempt"], 1, "{ended}");
    }
    drop(stop);
    let cuts = cutting.join().unwrap();
    assert!(cuts >= 3, "only {cuts} subscriptions were cut");
    fleet.stop().await;
}

#[tokio::test]
async fn own_redis_server_stops_with_the_fleet() {
    let folder = std::env::temp_dir().join(format!("fleet-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let fleet = Fleet::start(|command| _ = command.env_remove("REDIS_URL").env("TMPDIR", &folder)).await;
    let job = fleet.submit(1).await;
    fleet.until(&job, is("Completed")).await;
    let made: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let [made] = &made[..] else { panic!("{made:?}") };
    let port = made.to_str().unwrap().rsplit('-').next().unwrap();
    let reached = async || tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok();
    assert!(reached().await, "the server listens on the port in the name of its folder");
    fleet.stop().await;
    let gone = timeout(TIMEOUT, async {
        while reached().await {
            sleep(POLL).await;
        }
    });
    gone.await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
