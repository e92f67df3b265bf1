//! Runs a demo for one test in a temporary folder on a free port. Dropping the handle kills the process.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod events;
pub(crate) mod fleet;
pub(crate) mod hook;
pub(crate) mod otlp;
pub(crate) mod peer;
pub(crate) mod traced;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("{what}: timeout after {TIMEOUT:?}"))
}

/// Polls until the condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    in_time(what, holds(condition)).await;
}

async fn holds(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// A temporary folder, removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("demo-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Lines of the file `ledger`: `job,attempt,process,start` and the same with `end`.
    pub(crate) fn ledger(&self) -> Vec<[String; 4]> {
        let text = fs::read_to_string(self.join("ledger")).unwrap_or_default();
        let fields = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(|line| fields(line).try_into().expect("four fields")).collect()
    }

    /// A command for a demo in this folder, without this process's environment.
    pub(crate) fn command(&self, vars: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_async-endpoints-demo"));
        command.current_dir(&self.0).env_clear().env("AE_BIND", "127.0.0.1:0").envs(vars.iter().copied());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a demo that exits without a signal.
    pub(crate) async fn run(&self, vars: &[(&str, &str)]) -> Output {
        in_time("the end of the demo", self.command(vars).output()).await.expect("the demo starts")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A running demo.
pub(crate) struct Demo {
    child: Child,
    url: String,
    client: Client,
    log: PathBuf,
}

impl Demo {
    /// Starts a demo in the folder and waits for its address.
    pub(crate) async fn start(folder: &Folder, vars: &[(&str, &str)]) -> Self {
        Self::spawn(folder, folder.command(vars)).await
    }

    /// Runs this command for a demo in the folder and waits for its address.
    pub(crate) async fn spawn(folder: &Folder, mut command: Command) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let log = folder.join(&format!("log-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let stderr = fs::File::create(&log).expect("a log file");
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the demo starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        in_time("the address", stdout.read_line(&mut line)).await.expect("stdout is text");
        let url = line.strip_prefix("listening on ").map(|url| url.trim_end().to_owned());
        let url = url.unwrap_or_else(|| {
            panic!("invalid address line {line:?}: {}", fs::read_to_string(&log).unwrap_or_default())
        });
        Self { child, url, client: Client::new(), log }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// The file that the log is written to.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log file")
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        in_time(path, self.posting(path, body).send()).await.expect("an answer")
    }

    /// A POST request that is not sent yet.
    pub(crate) fn posting(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        in_time(path, self.getting(path).send()).await.expect("an answer")
    }

    /// A GET request that is not sent yet.
    pub(crate) fn getting(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    /// Submits a job and returns its path.
    pub(crate) async fn submit(&self, path: &str, body: &Value) -> String {
        let answer = self.post(path, body).await;
        let (status, location) = (answer.status(), answer.headers().get("location").cloned());
        assert_eq!(status, StatusCode::ACCEPTED, "{path} {body}: {}", answer.text().await.unwrap_or_default());
        location.and_then(|path| Some(path.to_str().ok()?.to_owned())).expect("a Location")
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) -> io::Result<ExitStatus> {
        self.signal("TERM").await
    }

    pub(crate) async fn signal(&self, name: &str) -> io::Result<ExitStatus> {
        let pid = self.pid().to_string();
        Command::new("sh").args(["-c", "kill -\"$1\" \"$0\"", &pid, name]).status().await
    }

    /// Sends SIGSTOP. Returns when all threads have stopped.
    pub(crate) async fn freeze(&self) {
        self.signal("STOP").await.expect("a running process");
        let threads = format!("/proc/{}/task", self.pid());
        let is_stopped = |thread: &Path| {
            let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, state)| state.trim_start().starts_with('T'))
        };
        until("stopped threads", || {
            let mut threads = fs::read_dir(&threads).into_iter().flatten().flatten();
            threads.all(|thread| is_stopped(&thread.path()))
        })
        .await;
    }

    /// Waits for an exit without a signal.
    pub(crate) async fn exited(&mut self) -> io::Result<ExitStatus> {
        in_time("the end of the demo", self.child.wait()).await
    }

    /// Follows the job until the condition holds.
    pub(crate) async fn job_when(&self, job: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut version = String::new();
        in_time(job, async {
            loop {
                let request = after(&version, self.getting(job));
                let answer = request.send().await.expect("an answer");
                if answer.status() == StatusCode::NOT_MODIFIED {
                    continue;
                }
                assert_eq!(answer.status(), StatusCode::OK);
                version = answer.headers()["etag"].to_str().expect("an ETag").to_owned();
                let found: Value = answer.json().await.expect("a job");
                if condition(&found) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits for the end of the job.
    pub(crate) async fn ended(&self, job: &str) -> Value {
        self.job_when(job, |job| ["Completed", "Failed", "Canceled"].iter().any(|end| job["status"] == *end)).await
    }

    /// Submits a job and waits for its end.
    pub(crate) async fn finish(&self, path: &str, body: &Value) -> Value {
        let job = self.submit(path, body).await;
        self.ended(&job).await
    }

    /// Kills the process.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("a running process");
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) async fn stop(mut self) -> io::Result<ExitStatus> {
        self.terminate().await?;
        in_time("the end of the demo", self.child.wait()).await
    }
}

/// The lines of a log in JSON, one object each. The demo has written all of them when it has exited.
pub(crate) fn lines(log: &Path) -> Vec<Value> {
    let log = fs::read_to_string(log).expect("a log file");
    let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The value of a sample in a page of metrics: the first of this name whose labels contain the text.
pub(crate) fn metric(page: &str, name: &str, label: &str) -> Option<f64> {
    let samples = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    let (_, value) = samples.into_iter().find(|(labels, _)| labels.contains(&format!("\"{label}\"")))?;
    value.split(' ').next()?.parse().ok()
}

/// Makes the request wait for another version of the job than this one.
fn after(version: &str, request: RequestBuilder) -> RequestBuilder {
    if version.is_empty() { request } else { request.header("if-none-match", version).header("prefer", "wait=10") }
}
