//! Log output that never panics, blocks or fails the caller. Lost lines are counted.

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

#[cfg(feature = "sdk")]
use opentelemetry::KeyValue;
use tracing::{Level, Metadata, callsite::DefaultCallsite, level_filters::LevelFilter, metadata::Kind};

use crate::instrument::Instrument;

/// Counter of the lines that this process lost.
pub const LOG_DROPPED: Instrument = Instrument::counter(
    "async_log.dropped",
    "{line}",
    &["result"],
    "Log lines lost, by result: full (the queue was full because the output is blocked or slow), failed (the write failed), panicked (the application's subscriber panicked).",
);

/// Target of the library's own lines.
pub const OWN_TARGET: &str = "async_endpoints";

/// Target of the spans whose fields correlate lines with a request or a job. Log filters never remove these spans. They are
/// no spans of a trace.
pub const SCOPE_TARGET: &str = "async_endpoints::scope";

/// Maximum number of queued bytes. Further lines are lost.
const MAX_QUEUED: usize = 8 << 20;
/// Memory of a queued line besides its text.
const OVERHEAD: usize = 64;

#[derive(Copy, Clone)]
enum Loss {
    Full,
    Failed,
    Panicked,
}

impl Loss {
    const NAMES: [&'static str; 3] = ["full", "failed", "panicked"];

    fn count(self) {
        DROPPED[self as usize].fetch_add(1, Ordering::Relaxed);
    }
}

static DROPPED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

#[cfg(feature = "sdk")]
pub(crate) fn register(meter: &opentelemetry::metrics::Meter) {
    let counter = meter.u64_observable_counter(LOG_DROPPED.name).with_unit(LOG_DROPPED.unit);
    let _registered = counter
        .with_description(LOG_DROPPED.help)
        .with_callback(|counter| {
            for (lost, name) in DROPPED.iter().zip(Loss::NAMES) {
                counter.observe(lost.load(Ordering::Relaxed), &[KeyValue::new("result", name)]);
            }
        })
        .build();
}

/// Whether there is a subscriber that receives lines of any level.
pub fn is_logging() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Whether a subscriber receives lines of the library, of any level. Costs one atomic load.
pub fn logs_own_lines() -> bool {
    static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);
    static METADATA: Metadata<'static> = tracing::metadata! {
        name: "own lines",
        target: OWN_TARGET,
        level: Level::ERROR,
        fields: &[],
        callsite: &CALLSITE,
        kind: Kind::EVENT,
    };
    let mut is_wanted = false;
    log_safely(|| is_wanted = !CALLSITE.interest().is_never());
    is_wanted
}

/// Runs a log call. A panic of the application's subscriber loses the line; the loss is counted in [`LOG_DROPPED`].
pub fn log_safely(log: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(log)).is_err() {
        Loss::Panicked.count();
    }
}

/// Writes lines to an output on a thread of its own.
///
/// [`write`](Write::write) queues its bytes as one line and always succeeds. A line is lost if 8 MiB are queued already,
/// because the output is blocked or slow, or if writing it fails; the loss is counted in [`LOG_DROPPED`].
/// Clones share the queue. The thread ends after the last clone is dropped and the queue is written.
///
/// ```
/// use std::{io, time::Duration};
/// use async_endpoints_telemetry::LogWriter;
///
/// let log = LogWriter::start(io::stderr());
/// // With tracing-subscriber: `tracing_subscriber::fmt().with_writer(move || writer.clone())`.
/// let writer = log.clone();
/// // At the end of the process:
/// log.flush_within(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: Sender<Message>,
    queued: Arc<AtomicUsize>,
}

enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

impl LogWriter {
    /// Starts the thread. If the system refuses a thread, all lines are lost.
    pub fn start(output: impl Write + Send + 'static) -> Self {
        let (queue, messages) = channel();
        let writer = Self { queue, queued: Arc::default() };
        let queued = writer.queued.clone();
        let thread = thread::Builder::new().name("async-endpoints-log".to_owned());
        let _detached = thread.spawn(move || write_all(output, &messages, &queued));
        writer
    }

    /// Queues a line.
    pub(crate) fn send(&self, line: &[u8]) {
        let size = line.len() + OVERHEAD;
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            Loss::Full.count();
        } else if self.queue.send(Message::Line(line.to_vec())).is_err() {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            Loss::Failed.count();
        }
    }

    /// Waits until the lines of earlier calls are written, at most `limit`.
    pub fn flush_within(&self, limit: Duration) {
        let (done, flushed) = channel();
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(limit);
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    /// Does nothing: see [`flush_within`](Self::flush_within).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut output: impl Write, messages: &Receiver<Message>, queued: &AtomicUsize) {
    for message in messages {
        match message {
            Message::Flush(done) => drop(done),
            Message::Line(line) => {
                let write = AssertUnwindSafe(|| output.write_all(&line).and_then(|()| output.flush()));
                if !matches!(catch_unwind(write), Ok(Ok(()))) {
                    Loss::Failed.count();
                }
                queued.fetch_sub(line.len() + OVERHEAD, Ordering::Relaxed);
            }
        }
    }
}
