//! A real Prometheus scrapes three demos over one Redis, and answers the queries of the dashboard and of the docs.

mod support;

use std::{fs, path::Path, process::Stdio, time::Duration};

use async_endpoints_testkit::server::{RedisServer, free_port};
use reqwest::Client;
use serde_json::{Value, json};
use support::{
    Demo, Folder, in_time,
    peer::{Peer, python},
};
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

const PACKAGE: &str = "the Debian package prometheus";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

struct Prometheus {
    _peer: Peer,
    url: String,
    client: Client,
}

impl Prometheus {
    /// Starts Prometheus, which scrapes these demos every 200 ms.
    async fn scraping(folder: &Folder, demos: &[Demo]) -> Self {
        let targets: Vec<String> = demos.iter().map(|demo| demo.url("").replace("http://", "")).collect();
        let config = json!({
            "global": { "scrape_interval": "200ms", "scrape_timeout": "200ms" },
            "scrape_configs": [{ "job_name": "demo", "static_configs": [{ "targets": targets }] }],
        });
        fs::write(folder.join("prometheus.yml"), config.to_string()).expect("a file");
        let listen = format!("127.0.0.1:{}", free_port());
        let args = [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--enable-feature=exemplar-storage",
            &format!("--web.listen-address={listen}"),
        ];
        let peer = Peer::start(folder, Path::new("prometheus"), PACKAGE, &args);
        peer.wait_for_output("Server is ready to receive web requests").await;
        Self { _peer: peer, url: format!("http://{listen}/api/v1"), client: Client::new() }
    }

    async fn api(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let form: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let answer = self.client.get(format!("{}/{path}?{}", self.url, form.join("&"))).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        answer["data"].clone()
    }

    /// The first value of a query's result.
    async fn value(&self, query: &str) -> Option<f64> {
        let data = self.api("query", &[("query", query)]).await;
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Waits until the value of a query fits.
    async fn is(&self, query: &str, fits: impl Fn(f64) -> bool) {
        let polls = async {
            while !self.value(query).await.is_some_and(&fits) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        in_time(query, polls).await;
    }
}

/// Percent-encodes everything but letters and digits.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

async fn scrape(demo: &Demo, accept: &str) -> String {
    let answer = in_time("a scrape", demo.getting("/metrics").header("accept", accept).send()).await;
    answer.expect("an answer").text().await.expect("text")
}

/// Runs a validator on a text. Returns its output if it fails.
async fn validate(program: &Path, args: &[&str], text: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}; it comes with {PACKAGE}", program.display()));
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).await.expect("a reader");
    let done = in_time("the validator", child.wait_with_output()).await.expect("an exit");
    let output = [done.stdout, done.stderr].map(|output| String::from_utf8_lossy(&output).into_owned()).concat();
    if done.status.success() { Ok(()) } else { Err(output) }
}

#[tokio::test]
async fn fleet_queries_return_exact_counts() {
    let (folder, redis) = (Folder::new(), RedisServer::start());
    let url = redis.url();
    let vars =
        [("AE_STORE", &*url), ("AE_MAX_RETRIES", "1"), ("AE_RETRY_BASE_SECONDS", "0.05"), ("AE_LEASE_SECONDS", "2")];
    let mut demos = Vec::new();
    for _ in 0..3 {
        demos.push(Demo::start(&folder, &vars).await);
    }
    let prometheus = Prometheus::scraping(&folder, &demos).await;
    // Series start at zero, so that `increase` sees the first job.
    prometheus.is("sum(async_job_queued_total)", |jobs| jobs == 0.0).await;
    let mut jobs = Vec::new();
    for round in 0..60 {
        for demo in &demos {
            jobs.push(demo.submit("/api/sleep", &json!({ "seconds": 0 })).await);
        }
        if round % 3 == 0 {
            jobs.push(demos[0].submit("/api/unreliable", &json!({ "failureRate": 1, "seed": round })).await);
        }
    }
    for job in &jobs {
        demos[0].ended(job).await;
    }
    // The sum over processes counts each job once.
    for (query, jobs) in [
        ("sum(async_job_queued_total)", 200.0),
        (r#"sum(async_job_submissions_total{result="accepted"})"#, 200.0),
        (r#"sum(async_job_processed_total{job_type="Sleep"})"#, 180.0),
        (r#"sum(async_job_failed_total{job_type="Unreliable",error_type="UNRELIABLE"})"#, 20.0),
        (r#"sum(async_job_attempts_total{job_type="Unreliable"})"#, 40.0),
        ("sum(async_job_retries_total)", 20.0),
        (r#"sum(async_job_queue_time_seconds_count{job_type="Sleep"})"#, 180.0),
        (r#"sum(async_job_total_time_seconds_count{job_type="Unreliable",outcome="failed"})"#, 20.0),
        // Fleet gauges are the same in every process.
        (r#"max by (job_type) (async_job_jobs{job_type="Sleep",state="completed"})"#, 180.0),
        (r#"min by (job_type) (async_job_jobs{job_type="Sleep",state="completed"})"#, 180.0),
        (r#"max(async_worker_live{job_type="Sleep"})"#, 3.0),
        ("count(build_info)", 3.0),
        ("count(count by (service_instance_id) (target_info))", 3.0),
    ] {
        prometheus.is(query, |value| value == jobs).await;
    }
    let quantile = "histogram_quantile(0.95, sum by (le) (rate(async_job_total_time_seconds_bucket[1m])))";
    prometheus.is(quantile, |seconds| seconds > 0.0 && seconds < 60.0).await;
    prometheus.is("sum(rate(async_job_processed_total[1m]))", |rate| rate > 0.0).await;
    for query in operator_queries() {
        let data = prometheus.api("query", &[("query", &query)]).await;
        // A comparison may have no result: no error within the last minute, no paused type.
        let is_comparison = query.ends_with("> 0") || query.ends_with("== 1");
        assert!(is_comparison || data["result"][0].is_object(), "{query} has no result: {data}");
    }
    check_exemplar(&prometheus, &demos[1]).await;
    let slow = check_killed_process(&prometheus, &mut demos).await;
    // The store's statistics are the same from every process, including a new one.
    demos.push(Demo::start(&folder, &vars).await);
    for demo in &demos {
        let polls = async {
            loop {
                let stats: Value = demo.get("/metrics/jobs").await.json().await.expect("JSON");
                // The statistics may be 5 s old.
                if stats["jobTypes"]["Sleep"]["completedJobs"] == 180 + slow {
                    break stats;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let stats = in_time("all completed jobs", polls).await;
        assert_eq!(stats["failedJobs"], 20, "{stats}");
    }
    for demo in demos {
        demo.stop().await.expect("a clean exit");
    }
}

/// Queries of the dashboard and of the docs.
fn operator_queries() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file");
    let dashboard: Value = serde_json::from_str(&read("../../ops/grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let of_dashboard: Vec<String> =
        targets.map(|target| target["expr"].as_str().expect("a query").replace("$job_type", ".*")).collect();
    let page = read("../../docs/metrics.md");
    let blocks = page.split("```promql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let of_page: Vec<String> = blocks.map(str::to_owned).collect();
    assert!(of_dashboard.len() > 20 && of_page.len() > 9, "{} and {}", of_dashboard.len(), of_page.len());
    of_dashboard.into_iter().chain(of_page).map(|query| query.replace("$__rate_interval", "1m")).collect()
}

/// Kills a process that runs jobs. The others recover them, and counts stay exact. Returns the number of jobs.
async fn check_killed_process(prometheus: &Prometheus, demos: &mut Vec<Demo>) -> usize {
    let victim = demos.pop().expect("three");
    let mut slow = Vec::new();
    let busy = async {
        while scrape(&victim, "text/plain").await.contains("async_worker_slots{state=\"busy\"} 0") {
            slow.push(demos[0].submit("/api/sleep", &json!({ "seconds": 3 })).await);
        }
    };
    in_time("a job on the victim", busy).await;
    victim.kill().await;
    let mut recovered = 0;
    for job in &slow {
        let job = demos[0].ended(job).await;
        assert_eq!(job["status"], "Completed", "{job}");
        recovered += usize::from(job["attempt"] == 2);
    }
    assert!(recovered > 0, "the victim ran no job");
    let (recovered, all) = (recovered as f64, (180 + slow.len()) as f64);
    for (query, jobs) in [
        ("sum(async_job_recovered_total)", recovered),
        (r#"sum(async_job_attempts_total{outcome="lost"})"#, recovered),
        // The counts of the killed process are those of its last scrape.
        (r#"sum(max_over_time(async_job_processed_total{job_type="Sleep"}[10m]))"#, all),
        (r#"sum(max_over_time(async_job_queued_total{job_type="Sleep"}[10m]))"#, all),
        (r#"max(async_job_jobs{job_type="Sleep",state="completed"})"#, all),
        ("sum(up)", 2.0),
    ] {
        prometheus.is(query, |value| value == jobs).await;
    }
    slow.len()
}

/// Follows an exemplar from a bucket to its job.
async fn check_exemplar(prometheus: &Prometheus, demo: &Demo) {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let sent =
        demo.posting("/api/performance", &json!({ "taskType": "any", "itemCount": 1 })).header("traceparent", parent);
    let traced: Value = sent.send().await.expect("an answer").json().await.expect("JSON");
    let traced = traced["id"].as_str().expect("an id");
    demo.ended(&format!("/jobs/{traced}")).await;
    let query = r#"sum(async_job_total_time_seconds_count{job_type="PerformanceProcess"})"#;
    prometheus.is(query, |jobs| jobs == 1.0).await;
    let times = prometheus.api("query", &[("query", "time()")]).await;
    let now = times["result"][1].as_str().expect("a time").parse::<f64>().expect("a number");
    let (start, end) = ((now - 600.0).to_string(), (now + 600.0).to_string());
    let buckets = r#"async_job_total_time_seconds_bucket{job_type="PerformanceProcess"}"#;
    let query = [("query", buckets), ("start", &*start), ("end", &*end)];
    let exemplars = prometheus.api("query_exemplars", &query).await;
    let labels = &exemplars[0]["exemplars"][0]["labels"];
    assert_eq!(labels["job_id"], traced, "{exemplars}");
    // The trace is that of the attempt. The job names that of the submission.
    assert!(labels["trace_id"].as_str().is_some_and(|id| id.len() == 32 && id != trace), "{exemplars}");
    let job: Value = demo.get(&format!("/jobs/{traced}")).await.json().await.expect("JSON");
    assert_eq!((&job["id"], &job["traceId"]), (&json!(traced), &json!(trace)), "{job}");
}

#[tokio::test]
async fn strict_parsers_accept_both_formats() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_MAX_RETRIES", "0")]).await;
    demo.finish("/api/unreliable", &json!({ "failureRate": 1, "seed": 1 })).await;
    demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 10 })).await;
    let promtool = validate(Path::new("promtool"), &["check", "metrics"], &scrape(&demo, "text/plain").await).await;
    assert_eq!(promtool, Ok(()));
    let parse = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; \
                 families = list(parse(sys.stdin.read())); \
                 exemplars = [s.exemplar.labels for f in families for s in f.samples if s.exemplar]; \
                 assert len(families) > 25, len(families); \
                 assert any('job_id' in e for e in exemplars), exemplars";
    let open = scrape(&demo, OPENMETRICS).await;
    assert_eq!(validate(&python("python3"), &["-c", parse], &open).await, Ok(()));
    let broken = open.replace("async_job_queued_total{", "async_job_queued{");
    assert!(validate(&python("python3"), &["-c", parse], &broken).await.is_err(), "the parser is strict");
    demo.stop().await.expect("a clean exit");
}
