//! The process of a `redis-server`.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::super::{POLL_INTERVAL, folder::Folder, missing};

/// A process of `redis-server`. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(super) struct Redis(Child);

impl Redis {
    /// Starts a server with the folder's `redis.conf` and waits until it has loaded its files and answers. Returns `None`
    /// if the process ends early, for example because its port is taken.
    pub(super) fn start(folder: &Folder, port: u16, password: Option<&str>, timeout: Duration) -> Option<Self> {
        let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("the log opens");
        let mut command = Command::new("redis-server");
        command.arg("redis.conf").current_dir(folder.path()).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut redis = Self(command.spawn().unwrap_or_else(|error| missing("redis-server", "redis-server", &error)));
        let deadline = Instant::now() + timeout;
        while redis.0.try_wait().expect("the child's status is known").is_none() {
            if process_id(port, password).is_ok_and(|pid| pid == redis.pid()) {
                return Some(redis);
            }
            assert!(Instant::now() < deadline, "redis-server does not answer: {}", folder.log());
            sleep(POLL_INTERVAL);
        }
        None
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn signal(&self, name: &str) {
        let args = ["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()];
        assert!(Command::new("sh").args(args).status().expect("sh starts").success(), "cannot send {name}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both calls may fail if the process has already ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The process id of the server on `port`, once it has loaded its files. The server of another test may have taken the
/// port first.
fn process_id(port: u16, password: Option<&str>) -> io::Result<u32> {
    let timeout = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let auth = password.map_or_else(String::new, |password| format!("AUTH {password}\r\n"));
    stream.write_all(format!("{auth}PING\r\nINFO server\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let id = answer.lines().find_map(|line| line.strip_prefix("process_id:")?.parse().ok());
    id.filter(|_| answer.contains("+PONG")).ok_or_else(|| io::Error::other(answer))
}

/// Runs `redis-cli` and returns its output.
pub(super) fn cli(port: u16, password: Option<&str>, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(args).stdin(Stdio::null());
    command.envs(password.map(|password| ("REDISCLI_AUTH", password)));
    let output = command.output().unwrap_or_else(|error| missing("redis-cli", "redis-tools", &error));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "redis-cli {args:?}: {stdout}{stderr}");
    stdout.trim_end().to_owned()
}
