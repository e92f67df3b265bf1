//! Starts all processes of the example and stops them together. In production a service manager does this.

use std::{env, io, net::TcpListener, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::Error;

/// Maximum time for draining.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(40);

/// Runs all processes until Ctrl-C or SIGTERM.
pub(crate) async fn everything(address: &str) -> Result<(), Error> {
    // Installed before the processes start, so that no signal is missed.
    let mut signals = signals()?;
    let (redis, url) = redis().await?;
    let mut all = vec![this(&["worker"], &url)?, this(&["worker"], &url)?, this(&["api", address], &url)?];
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        status = all[2].wait() => Err(format!("the API process ended: {}", status?)),
    };
    // All processes drain at the same time. Workers release jobs that they cannot finish; the store keeps them.
    for child in &all {
        if let Some(id) = child.id() {
            Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        }
    }
    for child in &mut all {
        drop(timeout(DRAIN_TIMEOUT, child.wait()).await);
    }
    drop(redis);
    Ok(ended?)
}

/// Starts this program in another role. The child is killed when this process exits. The address of the server goes into a
/// variable, because it may hold a password and process lists show arguments.
fn this(args: &[&str], url: &str) -> io::Result<Child> {
    Command::new(env::current_exe()?).args(args).env("REDIS_URL", url).kill_on_drop(true).spawn()
}

/// Returns the address of the server: that of `REDIS_URL`, or of a temporary one that this starts.
async fn redis() -> Result<(Option<Child>, String), Error> {
    if let Ok(url) = env::var("REDIS_URL") {
        return Ok((None, url));
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let folder = env::temp_dir().join(format!("async-endpoints-fleet-{port}"));
    std::fs::create_dir_all(&folder)?;
    let settings = ["--bind", "127.0.0.1", "--port", &port, "--appendonly", "yes", "--maxmemory-policy", "noeviction"];
    let mut server = Command::new("redis-server");
    // In a separate process group, Ctrl-C does not reach the server, which is needed until all processes have drained.
    #[cfg(unix)]
    server.process_group(0);
    let started = server.args(settings).arg("--dir").arg(folder).stdout(Stdio::null()).kill_on_drop(true).spawn();
    let mut server =
        started.map_err(|error| format!("cannot start redis-server ({error}): install it, or set REDIS_URL"))?;
    let address = format!("127.0.0.1:{port}");
    while tokio::net::TcpStream::connect(&address).await.is_err() {
        if let Some(status) = server.try_wait()? {
            return Err(format!("redis-server exited at start: {status}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok((Some(server), format!("redis://{address}")))
}

/// Receives SIGINT and SIGTERM.
#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
fn signals() -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

#[cfg(unix)]
impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
