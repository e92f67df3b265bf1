//! Starts all processes of the example, and ends them together. What runs a real service does this instead.

use std::{env, io, net::TcpListener, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::Failed;

/// How long a drain may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Everything, until Ctrl-C or SIGTERM.
pub(crate) async fn everything(address: &str) -> Result<(), Failed> {
    // Before anything is started: a signal from now on ends it all.
    let mut told = signals()?;
    let (redis, url) = redis().await?;
    let mut all = vec![this(&["worker"], &url)?, this(&["worker"], &url)?, this(&["api", address], &url)?];
    let ended = tokio::select! {
        () = told.next() => Ok(()),
        status = all[2].wait() => Err(format!("the process that accepts ended: {}", status?)),
    };
    // They drain side by side; what is not done in time is given back, and the store keeps it.
    for child in &all {
        if let Some(id) = child.id() {
            Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        }
    }
    for child in &mut all {
        drop(timeout(PATIENCE, child.wait()).await);
    }
    drop(redis);
    Ok(ended?)
}

/// This program again, in another role; it does not outlive this one's end. The server's address may hold a password, which a
/// list of processes would show among its arguments.
fn this(words: &[&str], url: &str) -> io::Result<Child> {
    Command::new(env::current_exe()?).args(words).env("REDIS_URL", url).kill_on_drop(true).spawn()
}

/// The server that `REDIS_URL` names, or one of our own whose jobs end with it.
async fn redis() -> Result<(Option<Child>, String), Failed> {
    if let Ok(url) = env::var("REDIS_URL") {
        return Ok((None, url));
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let folder = env::temp_dir().join(format!("async-endpoints-fleet-{port}"));
    std::fs::create_dir_all(&folder)?;
    let settings = ["--bind", "127.0.0.1", "--port", &port, "--appendonly", "yes", "--maxmemory-policy", "noeviction"];
    let mut server = Command::new("redis-server");
    // Ctrl-C is for this program: the server is needed until all have drained.
    #[cfg(unix)]
    server.process_group(0);
    let started = server.args(settings).arg("--dir").arg(folder).stdout(Stdio::null()).kill_on_drop(true).spawn();
    let mut server =
        started.map_err(|error| format!("redis-server cannot be started ({error}); install it, or set REDIS_URL"))?;
    let address = format!("127.0.0.1:{port}");
    while tokio::net::TcpStream::connect(&address).await.is_err() {
        if let Some(status) = server.try_wait()? {
            return Err(format!("redis-server ended at once: {status}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok((Some(server), format!("redis://{address}")))
}

/// Requests to stop.
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
