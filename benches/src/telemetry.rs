//! The cost of telemetry: processor time for each no-op job on the memory store, with telemetry off and on in turns.
//!
//! Each measurement runs in a process of its own, because a process has one subscriber.

use std::{
    env,
    fs::{self, File},
    process::Command,
    sync::Arc,
};

use async_endpoints::{
    Telemetry,
    core::{MemoryStore, Store},
};

use crate::{
    Effort,
    folder::Folder,
    process::{self, Server},
    product::{DAY, Product, Work},
    report::{Result, median, quantile, row, title},
};

/// Lines of the library about a job that completes: accepted, started, completed.
const LINES: f64 = 3.0;

/// What a process has switched on.
#[derive(Copy, Clone, PartialEq)]
enum Step {
    Off,
    /// Metrics, and 10 % of the traces over OTLP.
    Traces,
    /// The same, and the library's lines as JSON in a file.
    Lines,
    /// The same as `Traces`, and one captured line of the handler for each job.
    Capture,
}

const STEPS: [(Step, &str); 4] =
    [(Step::Off, "off"), (Step::Traces, "traces"), (Step::Lines, "lines"), (Step::Capture, "capture")];

pub(crate) fn run(effort: Effort) -> Result<()> {
    let (jobs, rounds) = (effort.of(100_000, 2_000), effort.of(9, 1));
    title(&format!("Telemetry: processor time of {jobs} no-op jobs from submission to settlement, {rounds} rounds"));
    let (sink, folder) = (Server::start(&["sink"])?, Folder::new("telemetry")?);
    let (mut measured, mut written) = (STEPS.map(|_| Vec::new()), Vec::new());
    for _ in 0..rounds {
        for ((step, name), times) in STEPS.iter().zip(&mut measured) {
            let file = folder.path("lines");
            times.push(measure_in_process(name, jobs, &format!("http://{}", sink.address), File::create(&file)?)?);
            if *step == Step::Lines {
                let lines = fs::read(&file)?.iter().filter(|byte| **byte == b'\n').count();
                written.push(lines as f64 / (2.0 * LINES * f64::from(jobs)));
            }
        }
    }
    let [off, traces, lines, capture] = &measured;
    row("off", &format!("{:>6.2} µs per job", median(off)));
    added("metrics, and traces at 10 %, over OTLP: added per job", traces, off, 1.0);
    added("JSON lines in a file: added per line", lines, traces, LINES);
    row("  written; the others did not fit in the queue", &format!("{:>6.1} %", 100.0 * median(&written)));
    added("capture: added per line", capture, traces, 1.0);
    Ok(())
}

/// Prints the median and the quartiles of what was added to the reference, for each of `parts`.
fn added(what: &str, times: &[f64], reference: &[f64], parts: f64) {
    let added: Vec<f64> = times.iter().zip(reference).map(|(time, reference)| (time - reference) / parts).collect();
    let (low, high) = (quantile(&added, 0.25), quantile(&added, 0.75));
    row(what, &format!("{:>6.2} µs   ({low:.2} … {high:.2})", median(&added)));
}

/// Microseconds of processor time for each job, measured in another process.
fn measure_in_process(step: &str, jobs: u32, sink: &str, lines: File) -> Result<f64> {
    let level = if step == "lines" { "info" } else { "off" };
    let output = observed(&["jobs", step, &jobs.to_string()], sink, level)?.stderr(lines).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| format!("invalid output {text:?} of step {step}: expected a number").into())
}

/// This program as another process that exports metrics and 10 % of its traces to `sink`, and logs lines from `level` on.
pub(crate) fn observed(serve: &[&str], sink: &str, level: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("serve").args(serve).env_clear().envs([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
        ("AE_LOG_FORMAT", "json"),
        ("RUST_LOG", level),
    ]);
    Ok(command)
}

/// Measures in this process, and prints the result for the bench.
pub(crate) async fn measure(step: &str, jobs: u32) -> Result<()> {
    let (step, _) = STEPS.into_iter().find(|(_, name)| *name == step).ok_or("unknown step")?;
    let telemetry = match step {
        Step::Off => None,
        Step::Traces | Step::Lines | Step::Capture => Some(Telemetry::from_env()?),
    };
    // Not counted: the process allocates its memory.
    round(step, jobs, telemetry.as_ref()).await?;
    println!("{}", round(step, jobs, telemetry.as_ref()).await?);
    Ok(())
}

/// Microseconds of processor time for each job.
async fn round(step: Step, jobs: u32, telemetry: Option<&Telemetry>) -> Result<f64> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let work = Work { logs: step == Step::Capture, ..Work::default() };
    let mut product = Product::with_telemetry(&store, DAY, telemetry, work)?;
    product.work();
    let before = process::cpu("self")?;
    product.submit(jobs).await?;
    product.until_settled(jobs).await?;
    let used = process::cpu("self")? - before;
    product.stop().await?;
    Ok(used.as_secs_f64() * 1e6 / f64::from(jobs))
}
