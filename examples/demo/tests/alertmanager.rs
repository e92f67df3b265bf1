//! A real Alertmanager gets the alerts of three demos, groups and delivers them, and clears them after their end.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use async_endpoints_testkit::server::free_port;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::{
    Demo, Folder,
    hook::{Delivery, Hook},
    in_time,
    peer::Peer,
    until,
};
use tokio::time::{Duration, sleep};

const PACKAGE: &str = "the Debian package prometheus-alertmanager";
const RULES: [&str; 2] = ["failure_rate", "slow_jobs"];

struct Alertmanager {
    _peer: Peer,
    url: String,
    client: Client,
}

impl Alertmanager {
    /// Starts an Alertmanager that delivers the alerts of a service together to the receiver.
    async fn start(folder: &Folder, receiver: &Hook) -> Self {
        let config = json!({
            "route": { "receiver": "hook", "group_by": ["service"], "group_wait": "1s", "group_interval": "1s" },
            "receivers": [{ "name": "hook", "webhook_configs": [{ "url": receiver.url() }] }],
        });
        fs::write(folder.join("alertmanager.yml"), config.to_string()).expect("a file");
        let listen = format!("127.0.0.1:{}", free_port());
        let args = [
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            // No cluster: it would listen on all addresses.
            "--cluster.listen-address=",
            &format!("--web.listen-address={listen}"),
        ];
        let peer = Peer::start(folder, Path::new("prometheus-alertmanager"), PACKAGE, &args);
        peer.wait_for_output("Listening on").await;
        Self { _peer: peer, url: format!("http://{listen}"), client: Client::new() }
    }

    async fn get(&self, path: &str) -> String {
        let answer = in_time(path, self.client.get(format!("{}{path}", self.url)).send()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.expect("text")
    }

    /// The alerts that have not ended.
    async fn alerts(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("/api/v2/alerts").await).expect("JSON")
    }

    /// Number of alerts that came with this status, repeats included.
    async fn received(&self, status: &str) -> u64 {
        let sample = format!(r#"alertmanager_alerts_received_total{{status="{status}",version="v2"}} "#);
        let page = self.get("/metrics").await;
        page.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok()).expect("a count")
    }

    /// Waits until more than `before` alerts came with this status.
    async fn receives_more(&self, status: &str, before: u64) {
        in_time(status, async {
            while self.received(status).await <= before {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// The statuses of each rule in the order of the deliveries, without repeats.
fn changes(deliveries: &[Delivery]) -> BTreeMap<String, Vec<Value>> {
    let mut changes = BTreeMap::<String, Vec<Value>>::new();
    for delivery in deliveries {
        for alert in delivery.json()["alerts"].as_array().expect("alerts") {
            let rule = alert["labels"]["alertname"].as_str().expect("a rule");
            changes.entry(rule.to_owned()).or_default().push(alert["status"].clone());
        }
    }
    changes.values_mut().for_each(|statuses| statuses.dedup());
    changes
}

/// Whether one delivery has both rules.
fn is_grouped(deliveries: &[Delivery]) -> bool {
    deliveries.iter().any(|delivery| delivery.json()["alerts"].as_array().is_some_and(|alerts| alerts.len() == 2))
}

/// Waits until a process evaluates the rules.
async fn leads(demo: &Demo) {
    until("a leader", || demo.log().contains("this process evaluates the alert rules")).await;
}

#[tokio::test]
async fn alerts_are_grouped_delivered_and_cleared() {
    let (folder, hook) = (Folder::new(), Hook::start().await);
    let alertmanager = Alertmanager::start(&folder, &hook).await;
    let vars = [
        ("AE_ALERT_ALERTMANAGER_URL", alertmanager.url.as_str()),
        ("AE_ALERT_INTERVAL_SECONDS", "0.2"),
        ("AE_ALERT_MIN_JOBS", "1"),
        ("AE_ALERT_SLOW_SECONDS", "0.5"),
        ("AE_LEASE_SECONDS", "2"),
        ("AE_MAX_RETRIES", "0"),
    ];
    let with_role = |role| vars.into_iter().chain([("AE_ROLE", role)]).collect::<Vec<_>>();
    let leader = Demo::start(&folder, &with_role("api")).await;
    leads(&leader).await;
    let next = Demo::start(&folder, &with_role("api")).await;
    let worker = Demo::start(&folder, &with_role("worker")).await;

    let slow = next.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    next.finish("/api/unreliable", &json!({ "failureRate": 1 })).await;
    let deliveries = hook.when("a group", is_grouped).await;
    let group = deliveries[0].json();
    assert_eq!(group["groupLabels"], json!({ "service": "async-endpoints-demo" }), "{group}");
    let mut alerts = alertmanager.alerts().await;
    alerts.sort_by_key(|alert| alert["labels"]["alertname"].to_string());
    let labels: Vec<&Value> = alerts.iter().map(|alert| &alert["labels"]).collect();
    let of = |rule, alert_type| {
        json!({ "alertname": rule, "rule": rule, "severity": "high", "alert_type": alert_type,
            "service": "async-endpoints-demo" })
    };
    assert_eq!(labels, [&of("failure_rate", "error"), &of("slow_jobs", "performance")]);

    // The next leader sends the alerts again at once, and Alertmanager takes them for the same ones.
    leader.kill().await;
    let before = alertmanager.received("firing").await;
    alertmanager.receives_more("firing", before).await;
    assert_eq!(alertmanager.alerts().await.len(), 2);

    for _ in 0..20 {
        next.finish("/api/unreliable", &json!({ "failureRate": 0 })).await;
    }
    assert_eq!(next.post(&format!("{slow}/cancel"), &Value::Null).await.status(), StatusCode::ACCEPTED);
    let expected = BTreeMap::from(RULES.map(|rule| (rule.to_owned(), vec![json!("firing"), json!("resolved")])));
    hook.when("both resolves", |deliveries| changes(deliveries) == expected).await;
    assert_eq!(alertmanager.alerts().await, Vec::<Value>::new());

    // So does the leader after the end: an Alertmanager that missed it must not wait for a timeout.
    let before = alertmanager.received("resolved").await;
    for demo in [next, worker] {
        assert!(demo.stop().await.expect("an exit").success());
    }
    let last = Demo::start(&folder, &with_role("all")).await;
    alertmanager.receives_more("resolved", before).await;
    assert!(last.stop().await.expect("an exit").success());
    assert_eq!(changes(&hook.deliveries()), expected);
}
