//! Open pages of the dashboard, as browsers open them: a page with its files, and its event stream. And what they cost a
//! worker that runs jobs as fast as it can, in turns with the same worker without pages.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Effort,
    backlog::TYPES,
    http::{Client, get},
    operated::{Load, Place, RAN},
    process::Server,
    report::{Result, median, quantile, row, title},
};

/// Number of open pages.
const PAGES: usize = 20;
/// Number of jobs that had ended before.
const JOBS: u32 = 10_000;
/// Time until the first statistics and the first pruned jobs.
const WARM_UP: Duration = Duration::from_secs(8);

/// The pages that are open, each as often as the others.
pub(crate) fn paths() -> [String; 10] {
    let jobs = ["jobs", "jobs?status=Queued", "jobs?status=Completed", "jobs?status=Failed"];
    let [all, queued, completed, failed] = jobs.map(|path| format!("/{path}"));
    let others = ["", "/types", "/workers", "/failures", "/operations"];
    let [overview, types, workers, failures, operations] = others.map(str::to_owned);
    let of_type = format!("/types/{}", TYPES[0]);
    [overview, all, queued, completed, failed, types, of_type, workers, failures, operations]
}

pub(crate) async fn run(place: &Place, effort: Effort) -> Result<()> {
    let (pairs, window) = (effort.of(10, 2), effort.of(Duration::from_secs(4), Duration::from_secs(2)));
    title(&format!(
        "{PAGES} open pages {}: no-op jobs submitted and run by the process, {pairs} pairs of {window:?}",
        place.name()
    ));
    let server = place.serve("loaded", JOBS, Load::Full)?;
    tokio::time::sleep(WARM_UP).await;
    let mut counter = Client::connect(server.address).await?;
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let mut rates = [0.0; 2];
        // The first of a pair takes turns, so that a drift of the machine favors neither.
        for is_open in if pair % 2 == 0 { [false, true] } else { [true, false] } {
            rates[usize::from(is_open)] = rate(&server, &mut counter, window, is_open).await?;
        }
        without.push(rates[0]);
        with.push(rates[1]);
        ratios.push(rates[1] / rates[0]);
    }
    row("jobs run without pages (reference)", &format!("{:>9.0} jobs/s", median(&without)));
    row("jobs run with them", &format!("{:>9.0} jobs/s", median(&with)));
    let [low, middle, high] = [0.25, 0.5, 0.75].map(|q| quantile(&ratios, q));
    row("ratio, median of the pairs", &format!("{middle:>9.3}   ({low:.3} … {high:.3})"));
    let time = effort.of(Duration::from_secs(20), Duration::from_secs(5));
    for is_open in [false, true] {
        let (before, began) = (stats_calls(&mut counter).await?, Instant::now());
        let pages = if is_open { open_all(server.address).await? } else { JoinSet::new() };
        tokio::time::sleep(time).await;
        let calls = stats_calls(&mut counter).await? - before;
        let text = format!("{:>9.2} in 5 s", calls * 5.0 / began.elapsed().as_secs_f64());
        row(
            if is_open {
                "store calls for statistics, with pages"
            } else {
                "store calls for statistics, without pages"
            },
            &text,
        );
        drop(pages);
    }
    Ok(())
}

/// Jobs that run in a second, with or without open pages.
async fn rate(server: &Server, counter: &mut Client, window: Duration, is_open: bool) -> Result<f64> {
    let (before, began) = (ran(counter).await?, Instant::now());
    let mut pages = if is_open { open_all(server.address).await? } else { JoinSet::new() };
    tokio::time::sleep(window.saturating_sub(began.elapsed())).await;
    let rate = f64::from(ran(counter).await? - before) / began.elapsed().as_secs_f64();
    match pages.try_join_next() {
        None => Ok(rate),
        Some(ended) => Err(format!("a stream ended: {ended:?}").into()),
    }
}

/// Opens all pages. Their streams are read until the set is dropped.
pub(crate) async fn open_all(address: SocketAddr) -> io::Result<JoinSet<io::Result<()>>> {
    let (mut streams, paths) = (JoinSet::new(), paths());
    for page in 0..PAGES {
        let mut client = open(address, &paths[page % paths.len()]).await?;
        streams.spawn(async move { client.drain().await });
    }
    Ok(streams)
}

/// Loads a page and its files, and opens its stream.
pub(crate) async fn open(address: SocketAddr, at: &str) -> io::Result<Client> {
    let mut client = Client::connect(address).await?;
    let (_, page) = client.fetch(&get(&format!("/dashboard{at}"), "text/html"), "200").await?;
    let page = String::from_utf8_lossy(page).into_owned();
    for file in page.split('"').filter(|text| text.contains("/assets/") || text.starts_with("dashboard/assets/")) {
        let path = file.trim_start_matches("../");
        client.fetch(&get(&format!("/{path}"), "*/*"), "200").await?;
    }
    let tag = page.split_once("data-tag=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    let at = at.replace('?', "%3F").replace('=', "%3D");
    let request = get(&format!("/dashboard/live?at={at}&tag={tag}"), "text/event-stream");
    client.stream(&request).await?.expect("200")?;
    Ok(client)
}

async fn ran(client: &mut Client) -> Result<u32> {
    let (_, text) = client.fetch(&get(RAN, "*/*"), "200").await?;
    Ok(String::from_utf8_lossy(text).parse()?)
}

/// The number of store calls for statistics that the process has made, by its own metrics.
async fn stats_calls(client: &mut Client) -> Result<f64> {
    let (_, text) = client.fetch(&get("/metrics", "text/plain"), "200").await?;
    let text = String::from_utf8_lossy(text);
    let counts = text.lines().filter(|line| {
        line.starts_with("async_store_operation_time_seconds_count{") && line.contains("operation=\"stats\"")
    });
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
