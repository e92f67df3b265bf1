//! The time from a submission until an open list of jobs gets the new job: in the process that accepted it, and in another
//! process with the same store.

use std::time::{Duration, Instant};

use crate::{
    Effort,
    http::{Client, post},
    open_pages::open,
    operated::{Load, Place},
    report::{Result, quantile, row, title},
    served::{ORDER, WAITING},
};

/// Number of jobs in the store before.
const JOBS: u32 = 10_000;
/// Pauses between two changes, in milliseconds. They spread the changes over the pauses of a stream.
const PAUSES: [u64; 7] = [30, 410, 170, 290, 90, 350, 230];

pub(crate) async fn run(place: &Place, effort: Effort) -> Result<()> {
    let changes = effort.of(200, 20);
    title(&format!("From a submission {} to an open list of jobs: {changes} changes", place.name()));
    let here = place.serve("seen", JOBS, Load::None)?;
    let there = place.is_shared().then(|| place.serve("seen", JOBS, Load::None)).transpose()?;
    let mut submitter = Client::connect(here.address).await?;
    let mut lists = Vec::new();
    for server in [Some(&here), there.as_ref()].into_iter().flatten() {
        lists.push((open(server.address, "/jobs").await?, Vec::new()));
    }
    for change in 0..changes {
        tokio::time::sleep(Duration::from_millis(PAUSES[change % PAUSES.len()])).await;
        let began = Instant::now();
        let accepted = submitter.json(&post(WAITING, ORDER), "202").await?;
        let row = format!("job-{}", accepted["id"].as_str().ok_or("a 202 without an id")?);
        for (list, millis) in &mut lists {
            list.until_event_with(&row).await?;
            millis.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (what, (_, millis)) in ["the process that accepted it", "another process"].iter().zip(&lists) {
        let [middle, p95, most] = [0.5, 0.95, 1.0].map(|q| quantile(millis, q));
        row(what, &format!("p50 {middle:>5.0} ms   p95 {p95:>5.0} ms   longest {most:.0} ms"));
    }
    Ok(())
}
