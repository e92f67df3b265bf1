//! The time from a change until an open list of jobs gets it: in the process that made the change, and in another process with
//! the same store.

use std::time::{Duration, Instant};

use crate::{
    Effort,
    http::{Client, post},
    open_pages::open,
    operated::{Load, Place},
    orders::{ORDER, WAITING},
    process::Server,
    report::{Result, quantile, row, title},
};

/// Number of jobs in the store before.
const JOBS: u32 = 10_000;
/// Pauses between two changes, in milliseconds. They spread the changes over the pauses of a stream.
const PAUSES: [u64; 7] = [30, 410, 170, 290, 90, 350, 230];

/// An open list of jobs.
struct List {
    what: &'static str,
    stream: Client,
    /// Milliseconds until new jobs, and until cancellations.
    new: Vec<f64>,
    canceled: Vec<f64>,
}

pub(crate) async fn run(place: &Place, effort: Effort) -> Result<()> {
    let changes = effort.of(100, 10);
    title(&format!("From a change {} to an open list of jobs: {changes} changes of each kind", place.name()));
    let here = place.serve("seen", JOBS, Load::None)?;
    let there = place.is_shared().then(|| place.serve("seen", JOBS, Load::None)).transpose()?;
    let mut lists = vec![List::open("the process that made it", &here).await?];
    if let Some(there) = &there {
        lists.push(List::open("another process", there).await?);
    }
    let mut caller = Client::connect(here.address).await?;
    let mut pauses = PAUSES.into_iter().cycle().map(Duration::from_millis);
    for _ in 0..changes {
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        let began = Instant::now();
        let accepted = caller.json(&post(WAITING, ORDER), "202").await?;
        let id = accepted["id"].as_str().ok_or("a 202 without an id")?.to_owned();
        for list in &mut lists {
            list.stream.until_event(|event| row_of(event, &id).is_some()).await?;
            list.new.push(began.elapsed().as_secs_f64() * 1e3);
        }
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        let began = Instant::now();
        caller.json(&post(&format!("/jobs/{id}/cancel"), ""), "200").await?;
        for list in &mut lists {
            list.stream.until_event(|event| row_of(event, &id).is_some_and(|row| row.contains("Canceled"))).await?;
            list.canceled.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    for List { what, new, canceled, .. } in &lists {
        for (kind, millis) in [("new job", new), ("cancellation", canceled)] {
            let [middle, p95, most] = [0.5, 0.95, 1.0].map(|q| quantile(millis, q));
            row(
                &format!("{kind}, {what}"),
                &format!("p50 {middle:>5.0} ms   p95 {p95:>5.0} ms   longest {most:.0} ms"),
            );
        }
    }
    Ok(())
}

impl List {
    async fn open(what: &'static str, server: &Server) -> Result<Self> {
        let stream = open(server.address, "/jobs").await?;
        Ok(Self { what, stream, new: Vec::new(), canceled: Vec::new() })
    }
}

/// The row of a job in the list that an event has.
fn row_of<'a>(event: &'a str, id: &str) -> Option<&'a str> {
    event.split_once(&format!("job-{id}"))?.1.split("</tr>").next()
}
