//! Lines that a log output loses.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use async_endpoints_telemetry::{Format, LogWriter, Telemetry, log_safely};

const LIMIT: Duration = Duration::from_secs(30);

/// Lines lost by this process with this result. Each test has a result of its own.
fn dropped(result: &str) -> u64 {
    let page = Telemetry::builder().build().expect("telemetry").exposition(Format::Text).expect("a page");
    let series = format!("async_log_dropped_total{{result=\"{result}\"}} ");
    page.lines()
        .find_map(|line| line.strip_prefix(&series))
        .expect("a series from the start")
        .parse()
        .expect("a number")
}

/// Sends each line to the test.
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match line {
            b"panic\n" => panic!("the output panics"),
            b"fail\n" => Err(io::ErrorKind::BrokenPipe.into()),
            _ => {
                self.0.send(String::from_utf8_lossy(line).into_owned()).expect("a test that reads");
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failed_write_loses_its_line_alone() {
    let (lines, written) = mpsc::channel();
    let mut log = LogWriter::start(Lines(lines));
    for line in ["one\n", "fail\n", "panic\n", "two\n"] {
        log.write_all(line.as_bytes()).expect("a write never fails");
    }
    log.flush_within(LIMIT);
    assert_eq!(written.try_iter().collect::<Vec<_>>(), ["one\n", "two\n"]);
    assert_eq!(dropped("failed"), 2);
}

/// Blocks until the test ends.
struct Blocked(Receiver<()>);

impl Write for Blocked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn blocked_output_loses_lines_beyond_the_queue() {
    let (_end, blocked) = mpsc::channel();
    let mut log = LogWriter::start(Blocked(blocked));
    let line = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        log.write_all(&line).expect("a write never fails");
    }
    // Each line also counts 64 bytes of overhead.
    assert_eq!(dropped("full"), 13);
    let began = Instant::now();
    log.flush_within(Duration::from_millis(50));
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn panic_of_a_subscriber_is_counted() {
    log_safely(|| panic!("the subscriber panics"));
    assert_eq!(dropped("panicked"), 1);
}
