//! Servers in processes of their own, and what Linux says of a process. A server is this program, started again; it
//! ends when its standard input closes, so none outlives the bench, however that ends.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// In `/proc`, Linux counts time in hundredths of a second on every machine.
const TICK: Duration = Duration::from_millis(10);
/// A server that has used no more than a tick of this has nothing left to do.
const QUIET: Duration = Duration::from_millis(200);
/// How long a server may take to work off what it was given.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts this program as `serve <what>` and waits for its address.
    pub(crate) fn start(what: &str) -> io::Result<Self> {
        Self::start_with(&[what])
    }

    /// The same with more to say.
    pub(crate) fn start_with(what: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut child = command.arg("serve").args(what).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let unknown = |_| io::Error::other(format!("the server {what:?} said {line:?} and not its address"));
        Ok(Self { address: line.trim().parse().map_err(unknown)?, child })
    }

    /// Processor time that it used until now.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Waits until it has worked off what it was given, so that it does not disturb whoever is measured next.
    pub(crate) async fn quiet(&self) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let before = self.cpu()?;
            tokio::time::sleep(QUIET).await;
            if self.cpu()? <= before + TICK {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("the server is still busy after {PATIENCE:?}")))
    }

    /// A line of its `/proc/<pid>/status` that counts memory, in bytes.
    pub(crate) fn memory(&self, line: &str) -> io::Result<u64> {
        memory(&self.child.id().to_string(), line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Whether it ended well, its measurements have told.
        let _ = self.child.wait();
    }
}

/// Processor time that a process used until now.
pub(crate) fn cpu(process: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in brackets and may hold anything; `utime` and `stime` are the
    // fields 14 and 15.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_whitespace().skip(11);
    let ticks: Vec<u32> = fields.take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks.as_slice() {
        [user, system] => Ok(TICK * (user + system)),
        _ => Err(io::Error::other(format!("no times in {stat:?}"))),
    }
}

/// A line of `/proc/<process>/status` that counts memory, in bytes.
pub(crate) fn memory(process: &str, line: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("no {line}")))
}

/// An error unless this process, and so each that it starts, may open so many files.
pub(crate) fn may_open(files: usize) -> io::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match limit.and_then(|limit| limit.parse::<usize>().ok()) {
        Some(limit) if limit < files => {
            let text = format!("{files} open files are needed and {limit} allowed: raise it with ulimit -n {files}");
            Err(io::Error::other(text))
        }
        // A limit that is no number is "unlimited".
        _ => Ok(()),
    }
}
