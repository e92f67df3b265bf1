//! The process of a PostgreSQL server and those of its sessions.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::super::{POLL_INTERVAL, TIMEOUT, folder::Folder};

/// A running `postgres`. Dropping it kills all its processes and waits for their end.
#[derive(Debug)]
pub(super) struct Postgres(Child);

impl Postgres {
    /// Starts the server of the folder and waits until it accepts connections. Returns `None` if the process ends early, for
    /// example because its port is taken.
    pub(super) fn start(mut command: Command, folder: &Folder, data: &Path, timeout: Duration) -> Option<Self> {
        let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("the log opens");
        command.arg("-D").arg(data).current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut postgres = Self(command.spawn().expect("postgres starts"));
        let deadline = Instant::now() + timeout;
        while postgres.0.try_wait().expect("the child's status is known").is_none() {
            if postgres.is_ready(data) {
                return Some(postgres);
            }
            assert!(Instant::now() < deadline, "postgres does not answer: {}", folder.log());
            sleep(POLL_INTERVAL);
        }
        None
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends the signal to the server alone.
    pub(super) fn signal(&self, name: &str) {
        signal(name, &[self.pid()]);
    }

    /// Sends the signal to the server and to the processes of its sessions.
    pub(super) fn signal_all(&self, name: &str) {
        // The first one forks the others, so it must not go on meanwhile.
        signal("STOP", &[self.pid()]);
        signal(name, &self.family());
    }

    /// Waits for the end of the server, after a signal that ends it.
    pub(super) fn wait(mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.0.try_wait().expect("the child's status is known").is_none() {
            assert!(Instant::now() < deadline, "postgres does not end");
            sleep(POLL_INTERVAL);
        }
    }

    /// Whether the server's own file says that it accepts connections. Its first line is the process id, and its last line
    /// the state.
    fn is_ready(&self, data: &Path) -> bool {
        let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&&*self.pid().to_string()) && lines.get(7) == Some(&"ready")
    }

    /// The ids of the server and of the processes that it has forked.
    fn family(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        signal("STOP", &[self.pid()]);
        let family = self.family();
        signal("KILL", &family);
        drop(self.0.wait());
        let deadline = Instant::now() + TIMEOUT;
        while family.iter().any(|pid| runs(*pid)) && Instant::now() < deadline {
            sleep(POLL_INTERVAL);
        }
    }
}

/// Sends a signal. Some of the processes may have ended.
fn signal(name: &str, pids: &[u32]) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$@\"", name]).args(pids.iter().map(u32::to_string));
    kill.stderr(Stdio::null()).status().expect("sh starts");
}

/// Whether the process still runs. An ended one stays listed until its parent has asked for its status.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
