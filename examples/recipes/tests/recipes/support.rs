//! Runs a recipe as a program on a free port. Dropping the handle kills the program.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("{what}: timeout after {TIMEOUT:?}"))
}

/// A running program and its output.
pub(crate) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn start(binary: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary);
        command
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// The next line of output; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        in_time("a line", self.lines.next_line()).await.expect("stdout is text")
    }

    /// Waits for the exit. Returns the remaining lines and the exit status.
    pub(crate) async fn end(mut self) -> (Vec<String>, ExitStatus) {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        (lines, in_time("exit", self.child.wait()).await.expect("an exit status"))
    }

    /// Sends a signal: `INT` is Ctrl-C.
    pub(crate) async fn signal(&self, name: &str) -> io::Result<ExitStatus> {
        let pid = self.child.id().expect("a running program").to_string();
        Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid]).status().await
    }
}

/// A running service.
pub(crate) struct Service {
    pub(crate) program: Program,
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Service {
    pub(crate) async fn start(binary: &str) -> Self {
        Self::start_with(binary, &[], &[]).await
    }

    /// Starts with arguments behind the address, and with environment variables.
    pub(crate) async fn start_with(binary: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut program = Program::start(binary, &[&["127.0.0.1:0"], args].concat(), variables);
        let line = program.line().await.expect("an address");
        let url =
            line.strip_prefix("listening on ").unwrap_or_else(|| panic!("invalid address line {line:?}")).to_owned();
        Self { program, url, client: Client::new() }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        in_time(path, self.client.post(format!("{}{path}", self.url)).json(body).send()).await.expect("an answer")
    }

    /// Submits a job, waits for its end and returns it.
    pub(crate) async fn finish(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status(), 202, "{path} {body}");
        let location = answer.headers()["location"].to_str().expect("text").to_owned();
        let request = self.client.get(format!("{}{location}?wait=30", self.url));
        let job: Value = in_time(path, request.send()).await.expect("an answer").json().await.expect("a job");
        assert!(!job["completedAt"].is_null(), "{job}");
        job
    }
}
