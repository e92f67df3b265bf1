//! The product on `PostgresStore`, in turns with other job queues on the same server. They are a package of their own, which
//! this bench builds first.

use std::process::Command;

use tokio::runtime::Runtime;

use crate::{
    Effort,
    jobs::CALLERS,
    pickup,
    postgres::Server,
    product,
    report::{self, Result, quantile, ratio, title},
    rounds::StorePlace,
};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/Cargo.toml");

#[derive(Default)]
struct Figures {
    submit: Vec<f64>,
    drain: Vec<f64>,
    /// In microseconds.
    pickup_p50: Vec<f64>,
    pickup_p99: Vec<f64>,
}

pub(crate) fn run(runtime: &Runtime, effort: Effort) -> Result<()> {
    let (jobs, rounds) = (effort.of(20_000, 2_000), effort.of(3, 1));
    title(&format!(
        "PostgreSQL beside other queues: {rounds} rounds of {jobs} no-op jobs, {CALLERS} callers, in turns"
    ));
    let mut server = Server::start()?;
    let (mut ours, mut peers) = (Figures::default(), Figures::default());
    for _ in 0..rounds {
        runtime.block_on(measure(&mut server, jobs, effort, &mut ours))?;
        server.clean();
        measure_peers(&server, jobs, &mut peers)?;
    }
    report::rate("apalis-postgres, submissions", "jobs/s", &peers.submit);
    report::rate("ours, submissions", "jobs/s", &ours.submit);
    ratio("  ratio", &ours.submit, &peers.submit);
    report::rate("apalis-postgres, a backlog drained", "jobs/s", &peers.drain);
    report::rate("ours, a backlog drained", "jobs/s", &ours.drain);
    ratio("  ratio", &ours.drain, &peers.drain);
    report::rate("graphile_worker, pickup p50", "µs", &peers.pickup_p50);
    report::rate("graphile_worker, pickup p99", "µs", &peers.pickup_p99);
    report::rate("ours, pickup p50", "µs", &ours.pickup_p50);
    report::rate("ours, pickup p99", "µs", &ours.pickup_p99);
    ratio("  ratio of p50", &ours.pickup_p50, &peers.pickup_p50);
    Ok(())
}

async fn measure(server: &mut Server, jobs: u32, effort: Effort, ours: &mut Figures) -> Result<()> {
    let store = server.fresh().await?;
    ours.submit.push(product::submits(&store, jobs).await?);
    ours.drain.push(product::drain(&store, jobs).await?.per_second);
    let micros = pickup::submit_to_start(&server.fresh().await?, effort.of(600, 60)).await?;
    ours.pickup_p50.push(quantile(&micros, 0.5));
    ours.pickup_p99.push(quantile(&micros, 0.99));
    Ok(())
}

fn measure_peers(server: &Server, jobs: u32, peers: &mut Figures) -> Result<()> {
    let database = server.postgres.database();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--target-dir", "target/peers", "--manifest-path", MANIFEST]);
    command.args(["--", &database, &jobs.to_string()]);
    let out = command.output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let figure = |name: &str| -> Result<f64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.ok_or_else(|| format!("no {name} in {text:?}: {}", String::from_utf8_lossy(&out.stderr)).into())
    };
    peers.submit.push(figure("apalis-submit ")?);
    peers.drain.push(figure("apalis-drain ")?);
    peers.pickup_p50.push(figure("graphile-pickup-p50 ")?);
    peers.pickup_p99.push(figure("graphile-pickup-p99 ")?);
    Ok(())
}
