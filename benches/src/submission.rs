//! What it costs to accept a job over HTTP; reference: an axum handler that reads the same request and answers a
//! constant 202. Then the same while thousands follow jobs.

use tokio::runtime::Runtime;

use crate::{
    followers::{self, FOLLOWERS, STREAMS},
    load::{CONNECTIONS, Load, ROUND, ROUNDS},
    process::{Server, may_open},
    report::{row, title},
    served::ORDER,
};

pub(crate) fn run(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    // The bench has one end of all connections: those of the followers, and the load of two servers. The rest is for
    // what a process opens besides.
    may_open(FOLLOWERS + 2 * CONNECTIONS + 100)?;
    runtime.block_on(beside_axum_alone())?;
    runtime.block_on(beside_followers())?;
    Ok(())
}

async fn beside_axum_alone() -> std::io::Result<()> {
    let bytes = ORDER.len();
    title(&format!(
        "Submission over HTTP: {bytes} bytes of JSON, {CONNECTIONS} connections, {ROUNDS} × {ROUND:?} in turns"
    ));
    let mut reference = Load::on(Server::start("bare")?).await?;
    let mut ours = Load::on(Server::start("endpoints")?).await?;
    reference.warm_up().await?;
    ours.warm_up().await?;
    for _ in 0..ROUNDS {
        reference.round().await?;
        ours.round().await?;
    }
    row("axum alone, a constant 202 (reference)", &reference.shown());
    row("a job, accepted and run", &ours.shown());
    row("ratio of the rates", &format!("{:>6.2}", ours.rate() / reference.rate()));
    row("difference of the p99", &format!("{:>6.2} ms", ours.p99_millis() - reference.p99_millis()));
    let (theirs, ours) = (reference.cpu_per_request()?, ours.cpu_per_request()?);
    row("processor time per request, axum alone (reference)", &format!("{theirs:>6.1} µs"));
    row("processor time per job, until it is forgotten", &format!("{ours:>6.1} µs, {:.2} ×", ours / theirs));
    Ok(())
}

async fn beside_followers() -> std::io::Result<()> {
    let polls = FOLLOWERS - STREAMS;
    title(&format!("Followers: {STREAMS} event streams and {polls} long polls, each of a queued job of its own"));
    let mut alone = Load::on(Server::start("endpoints")?).await?;
    let mut followed = Load::on(Server::start("endpoints")?).await?;
    let before = followed.server.memory("VmRSS")?;
    let mut followers = followers::follow(&followed.server).await?;
    let with = followed.server.memory("VmRSS")?;
    alone.warm_up().await?;
    followed.warm_up().await?;
    for _ in 0..ROUNDS {
        alone.round().await?;
        followed.round().await?;
    }
    followers.all_there()?;
    row("resident memory before them", &format!("{:>6.1} MiB", mib(before)));
    let each = (with.saturating_sub(before)) as f64 / FOLLOWERS as f64 / 1024.0;
    row("resident memory with them", &format!("{:>6.1} MiB, {each:.1} KiB for each and its job", mib(with)));
    row("  its highest while jobs are submitted", &format!("{:>6.1} MiB", mib(followed.server.memory("VmHWM")?)));
    row("  the same without followers", &format!("{:>6.1} MiB", mib(alone.server.memory("VmHWM")?)));
    row("submission without followers (reference)", &alone.shown());
    row("submission with them", &followed.shown());
    row("ratio of the rates", &format!("{:>6.2}", followed.rate() / alone.rate()));
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
