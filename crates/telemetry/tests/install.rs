//! The global subscriber and panic hook of `install`. One test, because a process has one of each.

#![allow(clippy::disallowed_macros, reason = "tests of a telemetry crate may log")]

use std::{
    io::{self, Write},
    panic::catch_unwind,
    sync::mpsc::{self, Sender},
    time::Duration,
};

use async_endpoints_telemetry::{LogOutput, LogWriter, Logs, Telemetry, take_panic_location};
use serde_json::{Value, json};

/// Sends each line to the test.
struct Lines(Sender<Value>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ended = self.0.send(serde_json::from_slice(line).expect("JSON"));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn panic_is_one_line_with_its_location() {
    let (lines, written) = mpsc::channel();
    let outputs = Logs::new().output(LogOutput::writer(LogWriter::start(Lines(lines))));
    let telemetry = Telemetry::builder().service_name("reports").environment("test").logs(outputs).install();
    let guard = telemetry.expect("telemetry").flush_on_drop(Duration::from_secs(30));
    let span = tracing::info_span!("own", page = 7);
    let line = line!() + 1;
    assert!(span.in_scope(|| catch_unwind(|| panic!("one\ntwo"))).is_err());
    drop(guard);
    let lines: Vec<_> = written.try_iter().filter(|line| line["target"] == "async_endpoints::panic").collect();
    let location = take_panic_location().expect("a location");
    assert!(lines.len() == 1 && location.starts_with(&format!("{}:{line}:", file!())), "{lines:?} {location}");
    let shown = ["level", "message", "location", "page", "service", "environment"].map(|key| &lines[0][key]);
    assert_eq!(json!(shown), json!(["ERROR", "panic: one\ntwo", location, 7, "reports", "test"]));
}
