//! One process of `redis-server`, and its folder.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(2);

/// A process that is killed when its handle is dropped.
#[derive(Debug)]
pub(super) struct Redis(Child);

impl Redis {
    /// Starts `redis-server` with the folder's `redis.conf`, and waits until it has loaded its files and answers. None if it
    /// ended instead, as it does when its port is taken.
    pub(super) fn start(folder: &Folder, port: u16, password: Option<&str>, patience: Duration) -> Option<Self> {
        let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("a log file");
        let mut command = Command::new("redis-server");
        command.arg("redis.conf").current_dir(folder.path()).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut redis = Self(command.spawn().unwrap_or_else(|error| missing("redis-server", "redis-server", &error)));
        let until = Instant::now() + patience;
        while redis.0.try_wait().expect("a child of this process").is_none() {
            if process_id(port, password).is_ok_and(|answered| answered == redis.pid()) {
                return Some(redis);
            }
            assert!(Instant::now() < until, "redis-server does not answer: {}", folder.log());
            sleep(PAUSE);
        }
        None
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn signal(&self, name: &str) {
        let words = ["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()];
        assert!(Command::new("sh").args(words).status().expect("a shell").success(), "{name}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // These fail if the process has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The id of the process that answers on the port, once it has loaded its files. Another test's server may have taken it.
fn process_id(port: u16, password: Option<&str>) -> io::Result<u32> {
    let soon = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), soon)?;
    stream.set_read_timeout(Some(soon))?;
    let auth = password.map_or_else(String::new, |word| format!("AUTH {word}\r\n"));
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
    command.envs(password.map(|word| ("REDISCLI_AUTH", word)));
    let done = command.output().unwrap_or_else(|error| missing("redis-cli", "redis-tools", &error));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "redis-cli {args:?}: {out}{err}");
    out.trim_end().to_owned()
}

fn missing<T>(program: &str, package: &str, error: &io::Error) -> T {
    panic!("{program}: {error}; its Debian package is {package}")
}

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!("async-endpoints-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Left by an earlier process with the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("a file in the folder");
    }

    /// The server's log.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
