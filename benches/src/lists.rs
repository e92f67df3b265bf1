//! Times of pages, lists and lookups with a thousand, a hundred thousand and a million jobs.

use std::time::{Duration, SystemTime};

use async_endpoints::core::{JobStatus, Timestamp};

use crate::{
    Effort,
    backlog::{CODES, TYPES, owner},
    claim::SIZES,
    http::{Client, get},
    operated::{Load, Place},
    process::Server,
    report::{Result, quantile, row, title},
};

/// Each page is requested this often in a round: once after the shared statistics have become too old, then with them.
const REPEATS: usize = 3;
/// Longer than statistics are shared.
const PAUSE: Duration = Duration::from_millis(5_100);
/// The page that is reached by cursors, and the number of jobs on each.
const DEEP: u32 = 1_000;
const DEEP_LIMIT: u32 = 50;

/// Maximum characters of a path that is printed.
const LABEL: usize = 56;

/// Milliseconds until the head of the answer.
type Times = Vec<f64>;

/// A service with this number of jobs.
struct Sized {
    server: Server,
    client: Client,
    /// The newest job, and the cursor of page `DEEP`.
    job: String,
    deep: Option<String>,
}

pub(crate) async fn run(place: &Place, effort: Effort) -> Result<()> {
    let sizes = effort.of(SIZES, [1_000, 5_000, 20_000]);
    let rounds = effort.of(12, 2);
    let mut services = Vec::new();
    for size in sizes {
        services.push(Sized::start(place, size).await?);
    }
    // A server closes connections that were idle while the other stores were filled.
    for service in &mut services {
        service.client = Client::connect(service.server.address).await?;
    }
    title(&format!(
        "Pages {} with {sizes:?} jobs: time until the answer begins, {rounds} × {REPEATS} requests",
        place.name()
    ));
    row("", &format!("{:<14}{:<14}{:<14}largest to smallest, of p50", "p50, p95 in ms", "p50, p95", "p50, p95"));
    let paths = paths();
    let mut times = vec![vec![Times::new(); services.len()]; paths.len()];
    for _ in 0..rounds {
        for (path, times) in paths.iter().zip(&mut times) {
            for (service, times) in services.iter_mut().zip(times) {
                let Some(path) = service.resolve(path) else { continue };
                for _ in 0..REPEATS {
                    let (took, _) = service.client.fetch(&get(&path, "*/*"), "200").await?;
                    times.push(took.as_secs_f64() * 1e3);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    for (path, times) in paths.iter().zip(&times) {
        show(path, times);
    }
    Ok(())
}

fn show(path: &str, times: &[Times]) {
    let mut text = String::new();
    for times in times {
        let shown = format!("{:.2} {:.2}", quantile(times, 0.5), quantile(times, 0.95));
        text += &format!("{:<14}", if times.is_empty() { "-" } else { &shown });
    }
    if let [least, .., most] = times
        && !least.is_empty()
    {
        text += &format!("{:.2} ×", quantile(most, 0.5) / quantile(least, 0.5));
    }
    // The hash of an owner is long.
    row(&path.chars().take(LABEL).collect::<String>(), &text);
}

impl Sized {
    async fn start(place: &Place, size: u32) -> Result<Self> {
        let server = place.serve(&format!("jobs-{size}"), size, Load::None)?;
        let mut client = Client::connect(server.address).await?;
        let newest = client.json(&get("/jobs?limit=1", "application/json"), "200").await?;
        let job = newest["jobs"][0]["id"].as_str().ok_or("a list without jobs")?.to_owned();
        let mut deep = Some(String::new());
        for _ in 1..DEEP {
            let Some(cursor) = &deep else { break };
            let cursor = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
            let page =
                client.json(&get(&format!("/jobs?limit={DEEP_LIMIT}{cursor}"), "application/json"), "200").await?;
            deep = page["nextCursor"].as_str().map(str::to_owned);
        }
        Ok(Self { server, client, job, deep })
    }

    /// Replaces the parts in braces. `None` if the service has too few jobs.
    fn resolve(&self, path: &str) -> Option<String> {
        let path = path.replace("{job}", &self.job);
        if !path.contains("{deep}") {
            return Some(path);
        }
        self.deep.as_ref().map(|deep| path.replace("{deep}", deep))
    }
}

fn paths() -> Vec<String> {
    let name = TYPES[0];
    let now: Timestamp = SystemTime::now().into();
    let [hour_ago, long_ago] = [1, 4].map(|hours| now.before(Duration::from_secs(hours * 60 * 60)).to_string());
    let queries = [
        format!("name={name}"),
        format!("owner={}", owner(3)),
        format!("code={}", CODES[0]),
        format!("status=Failed&code={}", CODES[0]),
        "q=disk+3".to_owned(),
        "q=needle".to_owned(),
        "status=Completed&q=needle".to_owned(),
        format!("since={hour_ago}"),
        format!("until={long_ago}"),
        format!("since={long_ago}&until={hour_ago}"),
        format!("limit={DEEP_LIMIT}&cursor={{deep}}"),
    ];
    let states = JobStatus::ALL.map(|status| format!("status={}", status.as_str()));
    let lists: Vec<String> = states.into_iter().chain(queries).collect();
    let others = ["/jobs/{job}", "/jobs/{job}/explain", "/ops/types", "/ops/series", "/ops/failures", "/ops/workers"];
    let pages = ["", "/jobs/{job}", "/types", "/workers", "/failures", "/health", "/operations"];
    let mut paths = vec!["/jobs".to_owned()];
    paths.extend(lists.iter().map(|query| format!("/jobs?{query}")));
    paths.extend(others.map(str::to_owned));
    paths.extend(pages.map(|page| format!("/dashboard{page}")));
    paths.push(format!("/dashboard/types/{name}"));
    paths.push("/dashboard/jobs".to_owned());
    // The address of a list on the dashboard has the same names, except for the size of a page.
    let shown = lists.iter().filter(|query| !query.contains("limit=") && !query.contains("since="));
    paths.extend(shown.map(|query| format!("/dashboard/jobs?{query}")));
    paths
}
