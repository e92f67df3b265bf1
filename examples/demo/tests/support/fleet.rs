//! Demos over one store that send their alerts to one receiver.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_endpoints_testkit::server::RedisServer;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Demo, Folder,
    hook::{Hook, verify},
    in_time,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Rules are evaluated five times a second. One failed job is enough for the rule `failure_rate`.
const SETTINGS: [(&str, &str); 5] = [
    ("AE_ALERT_INTERVAL_SECONDS", "0.2"),
    ("AE_ALERT_MIN_JOBS", "1"),
    ("AE_ALERT_WEBHOOK_SECRET", SECRET),
    ("AE_LEASE_SECONDS", "2"),
    ("AE_MAX_RETRIES", "0"),
];

/// The store that the demos share.
#[derive(Copy, Clone)]
pub(crate) enum SharedStore {
    Sqlite,
    Redis,
}

// Fields drop in order: the processes end before their store and their folder.
pub(crate) struct Fleet {
    pub(crate) demos: Vec<Demo>,
    redis: Option<RedisServer>,
    pub(crate) hook: Hook,
    vars: Vec<(String, String)>,
    folder: Folder,
}

impl Fleet {
    /// Three demos that accept and run jobs.
    pub(crate) async fn of_three(store: SharedStore, settings: &[(&str, &str)]) -> Self {
        let mut fleet = Self::empty(store, settings).await;
        fleet.start_three().await;
        fleet
    }

    /// A store and a receiver without demos. `settings` override those of all fleets.
    pub(crate) async fn empty(store: SharedStore, settings: &[(&str, &str)]) -> Self {
        let redis = match store {
            SharedStore::Sqlite => None,
            // A killed server keeps its acknowledged writes only if it syncs each of them.
            SharedStore::Redis => Some(RedisServer::with(&[("appendfsync", "always")])),
        };
        let hook = Hook::start().await;
        let own = SETTINGS.iter().chain(settings).map(|(name, value)| (name.to_string(), value.to_string()));
        let url = ("AE_ALERT_WEBHOOK_URL".to_owned(), hook.url().to_owned());
        let store = redis.as_ref().map(|redis| ("AE_STORE".to_owned(), redis.url()));
        let vars = own.chain([url]).chain(store).collect();
        Self { demos: Vec::new(), redis, hook, vars, folder: Folder::new() }
    }

    pub(crate) async fn start_three(&mut self) {
        for _ in 0..3 {
            self.start("all").await;
        }
    }

    /// Starts a demo with this role.
    pub(crate) async fn start(&mut self, role: &str) {
        let vars = self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let vars: Vec<(&str, &str)> = vars.chain([("AE_ROLE", role)]).collect();
        self.demos.push(Demo::start(&self.folder, &vars).await);
    }

    pub(crate) fn redis(&self) -> &RedisServer {
        self.redis.as_ref().expect("a fleet over Redis")
    }

    /// Fails a job, so that the rule `failure_rate` fires.
    pub(crate) async fn fail(&self) {
        let job = self.demos[0].finish("/api/unreliable", &json!({ "failureRate": 1 })).await;
        assert_eq!(job["status"], "Failed", "{job}");
    }

    /// Completes so many jobs that the rule `failure_rate` resolves: below 5 % with one failed job.
    pub(crate) async fn succeed(&self) {
        let mut jobs = Vec::new();
        for _ in 0..20 {
            jobs.push(self.demos[0].submit("/api/unreliable", &json!({ "failureRate": 0 })).await);
        }
        for job in jobs {
            assert_eq!(self.demos[0].ended(&job).await["status"], "Completed");
        }
    }

    /// Waits for a notification and returns its alert.
    pub(crate) async fn notified(&self, rule: &str, status: &str) -> Value {
        let is_wanted = |event: &Value| event["data"]["rule"] == rule && event["data"]["status"] == status;
        let what = format!("{rule} {status}");
        let received = self.hook.when(&what, |received| received.iter().any(|sent| is_wanted(&sent.json()))).await;
        let mut events = received.iter().map(|sent| sent.json());
        events.find(is_wanted).expect("it was there")["data"].take()
    }

    /// The place of the process that evaluated the alert.
    pub(crate) async fn leader(&self, alert: &Value) -> usize {
        let list: Value = self.demos[0].get("/ops/workers").await.json().await.expect("JSON");
        let workers = list["workers"].as_array().expect("workers");
        let leader = workers.iter().find(|worker| worker["id"] == alert["instance"]);
        let pid = leader.unwrap_or_else(|| panic!("{} is not in {list}", alert["instance"]))["pid"].as_u64();
        self.demos.iter().position(|demo| Some(u64::from(demo.pid())) == pid).expect("a process of this fleet")
    }

    /// Waits until the rules were evaluated five times more, by any process.
    pub(crate) async fn evaluates(&self) {
        let before = self.sum("async_alert_evaluation_time_seconds_count ").await;
        self.until_sum("async_alert_evaluation_time_seconds_count ", before + 5.0).await;
    }

    /// Waits until the sum of a sample over all processes is at least this.
    pub(crate) async fn until_sum(&self, sample: &str, least: f64) {
        in_time(sample, async {
            while self.sum(sample).await < least {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn sum(&self, sample: &str) -> f64 {
        let mut sum = 0.0;
        for demo in &self.demos {
            let page = demo.get("/metrics").await.text().await.expect("text");
            let value = page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
            sum += value.unwrap_or_default();
        }
        sum
    }

    /// Kills all processes, one right after the other.
    pub(crate) async fn kill(&mut self) {
        for demo in self.demos.drain(..) {
            demo.kill().await;
        }
    }

    /// Stops all processes gracefully, one after the other.
    pub(crate) async fn stop(&mut self) {
        for demo in self.demos.drain(..) {
            assert!(demo.stop().await.expect("an exit").success());
        }
    }

    /// Stops all processes: no notification comes after that. Checks that each of these rules fired once and resolved once,
    /// that no other rule fired, and the signatures.
    pub(crate) async fn ends_with_one_alert_of(mut self, rules: &[&str]) {
        self.stop().await;
        let deliveries = self.hook.deliveries();
        let mut events = BTreeMap::<String, Vec<Value>>::new();
        for event in deliveries.iter().map(|delivery| delivery.json()) {
            events.entry(event["data"]["rule"].as_str().expect("a rule").to_owned()).or_default().push(event);
        }
        assert_eq!(events.keys().collect::<Vec<_>>(), rules, "{deliveries:#?}");
        for (rule, events) in &events {
            let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
            assert_eq!(types, ["alert.firing", "alert.resolved"], "{rule}: {events:#?}");
            let [fired, resolved] = [&events[0]["data"], &events[1]["data"]];
            for same in ["id", "startsAt", "severity", "service"] {
                assert_eq!(fired[same], resolved[same], "{rule}");
            }
            assert!(fired["endsAt"].is_null() && resolved["endsAt"].is_string(), "{rule}: {events:#?}");
        }
        let ids: BTreeSet<&str> = deliveries.iter().map(|delivery| delivery.header("webhook-id")).collect();
        assert_eq!(ids.len(), deliveries.len(), "each notification has its own id");
        verify(SECRET, &deliveries).await;
    }
}
