//! The time of the readiness probe while twenty clients load pages of the dashboard as fast as they can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Effort,
    http::{Client, get},
    open_pages::paths,
    operated::{Load, Place},
    report::{Result, quantile, row, title},
};

const CLIENTS: usize = 20;
const JOBS: u32 = 100_000;
/// Pause between two probes.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) async fn run(place: &Place, effort: Effort) -> Result<()> {
    let jobs = effort.of(JOBS, 5_000);
    title(&format!(
        "/health/ready {} with {jobs} jobs, beside {CLIENTS} clients that load pages of the dashboard",
        place.name()
    ));
    let server = place.serve("probed", jobs, Load::None)?;
    let mut prober = Client::connect(server.address).await?;
    probe(&mut prober, effort, "without them (reference)").await?;
    let (is_over, loaded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        let mut client = Client::connect(server.address).await?;
        let (is_over, loaded) = (is_over.clone(), loaded.clone());
        clients.spawn(async move {
            for path in paths().iter().cycle().skip(first) {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                client.fetch(&get(&format!("/dashboard{path}"), "text/html"), "200").await?;
                loaded.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, std::io::Error>(())
        });
    }
    let began = Instant::now();
    probe(&mut prober, effort, "beside them").await?;
    let rate = f64::from(loaded.load(Ordering::Relaxed)) / began.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    row("  pages loaded", &format!("{rate:>6.0} in a second"));
    Ok(())
}

async fn probe(prober: &mut Client, effort: Effort, what: &str) -> Result<()> {
    let mut millis = Vec::new();
    for _ in 0..effort.of(1_000, 100) {
        tokio::time::sleep(PAUSE).await;
        let (took, _) = prober.fetch(&get("/health/ready", "*/*"), "200").await?;
        millis.push(took.as_secs_f64() * 1e3);
    }
    let [middle, p99, most] = [0.5, 0.99, 1.0].map(|q| quantile(&millis, q));
    row(what, &format!("p50 {middle:>6.2} ms   p99 {p99:>6.2} ms   longest {most:.2} ms"));
    Ok(())
}
