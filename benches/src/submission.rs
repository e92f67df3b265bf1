//! The cost of accepting a job over HTTP. Reference: an axum handler that reads the same request and answers a constant
//! 202. The second part repeats the measurement with thousands of followers.

use tokio::runtime::Runtime;

use crate::{
    followers::{self, FOLLOWERS, STREAMS},
    load::{CONNECTIONS, Load, ROUND, ROUNDS},
    orders::ORDER,
    process::{Server, require_open_files},
    report::{Result, mib, row, title},
};

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    // One file for each connection of followers and clients, and some for other purposes.
    require_open_files(FOLLOWERS + 2 * CONNECTIONS + 100)?;
    runtime.block_on(compare_with_axum())?;
    runtime.block_on(compare_with_followers())?;
    Ok(())
}

async fn compare_with_axum() -> std::io::Result<()> {
    let bytes = ORDER.len();
    title(&format!(
        "Submission over HTTP: {bytes} bytes of JSON, {CONNECTIONS} connections, {ROUNDS} × {ROUND:?} in turns"
    ));
    let mut reference = Load::on(Server::start(&["bare"])?).await?;
    let mut accepting = Load::on(Server::start(&["accepting"])?).await?;
    let mut running = Load::on(Server::start(&["endpoints"])?).await?;
    reference.warm_up().await?;
    running.warm_up().await?;
    for _ in 0..ROUNDS {
        reference.round().await?;
        // Without a worker, jobs of earlier rounds would remain.
        accepting.replace_server(Server::start(&["accepting"])?).await?;
        accepting.round().await?;
        running.round().await?;
    }
    row("axum alone, a constant 202 (reference)", &reference.shown());
    row("a job accepted, to be run elsewhere", &accepting.shown());
    row("a job accepted, and run on the same cores", &running.shown());
    for (what, load) in [("accepted", &accepting), ("accepted and run", &running)] {
        row(&format!("{what}: ratio of the rates"), &format!("{:>6.2}", load.rate() / reference.rate()));
        let later = load.p99_millis() - reference.p99_millis();
        row("  difference of the p99", &format!("{later:>6.2} ms"));
        let (theirs, ours) = (reference.cpu_micros(), load.cpu_micros());
        row(
            "  processor time of the server",
            &format!("{ours:>6.1} µs for each, {:.2} × {theirs:.1} µs", ours / theirs),
        );
    }
    Ok(())
}

async fn compare_with_followers() -> std::io::Result<()> {
    let polls = FOLLOWERS - STREAMS;
    title(&format!("Followers: {STREAMS} event streams and {polls} long polls, each of another queued job"));
    let mut alone = Load::on(Server::start(&["endpoints"])?).await?;
    let mut followed = Load::on(Server::start(&["endpoints"])?).await?;
    let before = followed.server.memory("VmRSS")?;
    let mut followers = followers::follow(&followed.server).await?;
    let with = followed.server.memory("VmRSS")?;
    alone.warm_up().await?;
    followed.warm_up().await?;
    for _ in 0..ROUNDS {
        alone.round().await?;
        followed.round().await?;
    }
    followers.check()?;
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
