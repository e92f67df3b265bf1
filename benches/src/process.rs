//! Servers as separate processes, and their processor time and memory as Linux reports them. A server is this program,
//! started again. It exits when its standard input closes, so no server outlives the bench.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// `/proc` counts time in hundredths of a second on every machine.
const TICK: Duration = Duration::from_millis(10);
/// A server is idle when it uses at most one tick within this time.
const IDLE_TIME: Duration = Duration::from_millis(200);
/// Maximum time until a server is idle.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts this program as `serve <what…>` and waits for its address.
    pub(crate) fn start(what: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut child = command.arg("serve").args(what).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let unknown =
            |_| io::Error::other(format!("invalid first line {line:?} of the server {what:?}: expected its address"));
        Ok(Self { address: line.trim().parse().map_err(unknown)?, child })
    }

    /// Processor time that the server has used.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Waits until the server is idle, so that it does not disturb the next measurement.
    pub(crate) async fn idle(&self) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < TIMEOUT {
            let before = self.cpu()?;
            tokio::time::sleep(IDLE_TIME).await;
            if self.cpu()? <= before + TICK {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("the server is still busy after {TIMEOUT:?}")))
    }

    /// A memory line of `/proc/<pid>/status`, in bytes.
    pub(crate) fn memory(&self, line: &str) -> io::Result<u64> {
        memory(&self.child.id().to_string(), line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used.
pub(crate) fn cpu(process: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses, with any content. `utime` and `stime` are fields 14 and 15.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_whitespace().skip(11);
    let ticks: Vec<u32> = fields.take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks.as_slice() {
        [user, system] => Ok(TICK * (user + system)),
        _ => Err(io::Error::other(format!("no processor times in {stat:?}"))),
    }
}

/// Processor time that a server and its child processes have used: PostgreSQL has one for each session.
pub(crate) fn cpu_with_children(server: u32) -> io::Result<Duration> {
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    // A child that has ended meanwhile counts nothing.
    let of_children = children.split_whitespace().filter_map(|child| cpu(child).ok()).sum::<Duration>();
    Ok(cpu(&server.to_string())? + of_children)
}

/// A memory line of `/proc/<process>/status`, in bytes.
pub(crate) fn memory(process: &str, line: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("no {line} in /proc/{process}/status")))
}

/// # Errors
/// If the limit of open files, which child processes inherit, is lower than `files`.
pub(crate) fn require_open_files(files: usize) -> io::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match limit.and_then(|limit| limit.parse::<usize>().ok()) {
        Some(limit) if limit < files => {
            let text = format!("at most {limit} open files allowed, expected {files}: run ulimit -n {files}");
            Err(io::Error::other(text))
        }
        // The limit may be "unlimited".
        _ => Ok(()),
    }
}
