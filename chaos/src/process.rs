//! A process of the demo. Dropping the handle kills the process.

use std::{fs::File, io, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Maximum time for a start or a graceful stop.
const TIMEOUT: Duration = Duration::from_secs(45);

pub(crate) struct Process {
    child: Child,
    pub(crate) id: u32,
    pub(crate) url: String,
}

impl Process {
    /// Starts a demo, waits until it prints its address, and appends its log to the file `log`.
    pub(crate) async fn start(demo: &Path, folder: &Path, log: &str, vars: &[(&str, &str)]) -> io::Result<Self> {
        let stderr = File::options().create(true).append(true).open(folder.join(log))?;
        let mut command = Command::new(demo);
        command.current_dir(folder).env_clear().env("AE_BIND", "127.0.0.1:0").envs(vars.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            timeout(TIMEOUT, BufReader::new(out).read_line(&mut line)).await??;
        }
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let (Some(url), Some(id)) = (url, child.id()) else {
            return Err(io::Error::other(format!(
                "unexpected first line {line:?}: expected the demo's address; its log is {log}"
            )));
        };
        Ok(Self { child, id, url })
    }

    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Sends SIGTERM and waits. Returns a description of a bad exit.
    pub(crate) async fn stop(&mut self) -> io::Result<Option<String>> {
        self.signal("TERM").await?;
        match timeout(TIMEOUT, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                Ok((!status.success()).then(|| format!("{}: {status}", self.id)))
            }
            Err(_) => {
                self.kill().await?;
                Ok(Some(format!("{}: still running after {TIMEOUT:?}", self.id)))
            }
        }
    }

    /// Sends SIGSTOP. Returns when all threads have stopped.
    pub(crate) async fn freeze(&self) -> io::Result<()> {
        self.signal("STOP").await?;
        timeout(TIMEOUT, async {
            while !is_stopped(self.id) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn thaw(&self) -> io::Result<()> {
        self.signal("CONT").await
    }

    async fn signal(&self, name: &str) -> io::Result<()> {
        // `None` after a wait: another process may have the id.
        if let Some(id) = self.child.id() {
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()]).status().await?;
        }
        Ok(())
    }
}

/// Whether all threads are stopped, according to `/proc`. True if there is no such folder.
fn is_stopped(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        // A thread without a status file has ended.
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("State:"))
            .is_none_or(|state| state.trim().starts_with(['T', 't', 'Z', 'X']))
    })
}
