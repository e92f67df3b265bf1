//! The cancellation of many waiting jobs in one operation, and its stop.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Effort,
    http::{Client, delete, get, post},
    jobs::{CALLERS, at_once, share},
    operated::{Load, Place},
    orders::{ORDER, WAITING},
    report::{Result, row, title},
};

/// Interval for polling the operation.
const POLL: Duration = Duration::from_millis(20);

pub(crate) async fn run(place: &Place, effort: Effort) -> Result<()> {
    let jobs = effort.of(100_000, 5_000);
    title(&format!("A bulk operation {}: {jobs} queued jobs are canceled", place.name()));
    let server = place.serve("bulk", 0, Load::None)?;
    let mut client = Client::connect(server.address).await?;

    submit(server.address, jobs).await?;
    let (began, preview) = (Instant::now(), preview(&mut client).await?);
    row("preview", &format!("{:>9.0} ms   {} jobs", millis(began), preview["count"]));
    let began = Instant::now();
    start(&mut client, &preview).await?;
    let ended = until(&mut client, &preview, "Completed").await?;
    let took = began.elapsed().as_secs_f64();
    row("start to end", &format!("{took:>9.1} s    {:.0} jobs/s", f64::from(jobs) / took));
    let [changed, skipped, failed] = ["changed", "skipped", "failed"].map(|name| ended[name].as_u64().unwrap_or(0));
    row("  outcome", &format!("{changed} changed, {skipped} skipped, {failed} failed"));
    if changed + skipped + failed != u64::from(jobs) || preview["count"] != jobs {
        return Err(format!("the preview {preview} and the outcome {ended} differ: expected {jobs} jobs").into());
    }

    submit(server.address, jobs).await?;
    let second = self::preview(&mut client).await?;
    start(&mut client, &second).await?;
    // A quarter of the time that all of them took.
    tokio::time::sleep(Duration::from_secs_f64(took / 4.0)).await;
    let began = Instant::now();
    client.json(&delete(&operation(&second)), "202").await?;
    let stopped = until(&mut client, &second, "Stopped").await?;
    row("stop to stopped", &format!("{:>9.0} ms   after {} jobs", millis(began), stopped["changed"]));
    Ok(())
}

/// Submits waiting jobs with concurrent callers.
async fn submit(address: SocketAddr, jobs: u32) -> Result<()> {
    at_once(CALLERS, |caller| async move {
        let mut client = Client::connect(address).await?;
        for _ in 0..share(jobs, CALLERS, caller) {
            client.ask(&post(WAITING, ORDER)).await?.expect("202")?;
        }
        Ok(())
    })
    .await
}

async fn preview(client: &mut Client) -> Result<Value> {
    let wanted = json!({ "action": "cancel", "filter": { "status": "Queued", "name": "Wait" } });
    Ok(client.json(&post("/ops/bulk/preview", &wanted.to_string()), "200").await?)
}

async fn start(client: &mut Client, preview: &Value) -> Result<()> {
    client.json(&post("/ops/bulk", &json!({ "preview": preview["id"] }).to_string()), "202").await?;
    Ok(())
}

/// Waits until the operation of a preview has this status.
async fn until(client: &mut Client, preview: &Value, status: &str) -> Result<Value> {
    loop {
        let now = client.json(&get(&operation(preview), "application/json"), "200").await?;
        if now["status"] == status {
            return Ok(now);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The path of the operation of a preview.
fn operation(preview: &Value) -> String {
    format!("/ops/bulk/{}", preview["id"].as_str().unwrap_or_default())
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
