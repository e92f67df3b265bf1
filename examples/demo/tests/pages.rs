//! Runs the commands of documentation pages in their order, as a reader would, and compares their output.
//!
//! A block of commands runs if the line before it is `<!-- run -->`. Ids, and numbers of two digits or more, may differ in its output.

mod support;

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, process::Stdio, time::Duration};

use async_endpoints_testkit::server::free_port;
use support::Folder;
use tokio::{process::Command, time::timeout};

const TIMEOUT: Duration = Duration::from_secs(180);
/// The line between the outputs of two commands.
const END: &str = "end of the command's output";

/// A command and the output that the page shows.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    shown: String,
}

/// The commands of a page: lines that begin with `$`, continued by lines that begin with `>`.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in page.split("<!-- run -->\n```console\n").skip(1) {
        for line in block.lines().take_while(|line| *line != "```") {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), shown: String::new() });
            } else if let Some(step) = steps.last_mut() {
                match line.strip_prefix("> ") {
                    Some(more) => step.command.extend(["\n", more]),
                    None => step.shown.extend([line, "\n"]),
                }
            }
        }
    }
    steps
}

/// Replaces the ports of the pages by free ones.
fn with_ports(command: &str, ports: &BTreeMap<&str, String>) -> String {
    ports.iter().fold(command.to_owned(), |command, (port, free)| command.replace(port, free))
}

/// The words of an output. Each id, and each number of two digits or more, is a `0`.
fn words(output: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_id = |word: &str| word.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let is_number = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_digit());
    let words = output.split(|c| !is_part(c));
    words.map(|word| if is_id(word) || is_number(word) { "0" } else { word }).collect()
}

/// The processes of a script. Dropping it kills them.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0);
        drop(std::process::Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status());
    }
}

async fn run(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let steps = steps(&fs::read_to_string(root.join(page)).expect("a page"));
    assert!(steps.len() > 10, "{page}: {} commands", steps.len());
    let ports = ["6379", "8080", "8081", "8082", "9001", "9002", "9003"];
    let ports = ports.into_iter().map(|port| (port, free_port().to_string())).collect();
    let script: Vec<String> =
        steps.iter().map(|step| format!("{}\necho {END:?}\n", with_ports(&step.command, &ports))).collect();
    let folder = Folder::new();
    symlink(root.join("ops"), folder.join("ops")).expect("a link");
    let programs = Path::new(env!("CARGO_BIN_EXE_async-endpoints-demo")).parent().expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -eo pipefail\n{}", script.concat())]).current_dir(folder.join("."));
    command.env_clear().env("PATH", path).process_group(0).stdin(Stdio::null());
    let output = fs::File::create(folder.join("output")).expect("a file");
    command.stdout(output.try_clone().expect("a handle")).stderr(output);
    let mut bash = command.spawn().expect("bash");
    let group = Group(bash.id().expect("a running process"));
    let ended = timeout(TIMEOUT, bash.wait()).await;
    drop(group);
    let output = fs::read_to_string(folder.join("output")).expect("text");
    let end = format!("{END}\n");
    let mut outputs = output.split(&end);
    for Step { command, shown } in &steps {
        let output = outputs.next().unwrap_or_default();
        // The shell reports a process that `kill -9` ended.
        let output: Vec<&str> = output.lines().filter(|line| !line.contains(" Killed ")).collect();
        let output = output.iter().map(|line| format!("{line}\n")).collect::<String>();
        assert_eq!(words(&output), words(shown), "{page}: {command}\n{output}");
    }
    assert!(matches!(ended, Ok(Ok(status)) if status.success()), "{page}: {ended:?}\n{output}");
}

#[tokio::test]
async fn deployment_page_works_as_shown() {
    run("docs/deployment.md").await;
}

#[tokio::test]
async fn recovery_page_works_as_shown() {
    run("docs/deployment/recovery.md").await;
}

#[test]
fn marked_blocks_are_read() {
    let page = "a\n```console\n$ no\n```\n<!-- run -->\n```console\n$ cat <<x\n> 1\n> x\n1\n$ true\n```\n$ no\n";
    let step = |command: &str, shown: &str| Step { command: command.to_owned(), shown: shown.to_owned() };
    assert_eq!(steps(page), [step("cat <<x\n1\nx", "1\n"), step("true", "")]);
}

#[test]
fn numbers_and_ids_may_differ() {
    for (shown, output) in [
        ("{\"pid\":22633,\"busy\":1}", "{\"pid\":17,\"busy\":1}"),
        (
            "location: /jobs/01a22606-884b-742a-b43b-111bf4aea753",
            "location: /jobs/01a22a9d-62bd-7d17-8b56-d6e0f1c2a3b4",
        ),
    ] {
        assert_eq!(words(output), words(shown));
    }
    for (shown, output) in [("exit 0", "exit 1"), ("\"Completed\"", "\"Failed\""), ("[0,0,0]", "[0,0]"), ("a-1", "a-2")]
    {
        assert_ne!(words(output), words(shown));
    }
}
