//! The log lines of one attempt until they are stored. Must not know where they come from.
//!
//! The beginning and the end of an attempt's log explain most, and stored lines cannot be taken back. So the first 900
//! lines (192 KiB) are stored while the attempt runs. Of the later ones the last 99 (63 KiB) are kept, and stored when the
//! attempt ends. A line with the field `truncated` stands for those between.

use std::collections::VecDeque;

use async_endpoints_core::{
    job::LogLine,
    limits::{LOG_BYTES_PER_ATTEMPT, LOG_LINES_PER_ATTEMPT},
};
pub(crate) use async_endpoints_telemetry::OWN_TARGET;

const LAST_LINES: usize = 99;
const LAST_BYTES: usize = 63 << 10;
const FIRST_LINES: usize = LOG_LINES_PER_ATTEMPT - LAST_LINES - 1;
const FIRST_BYTES: usize = LOG_BYTES_PER_ATTEMPT - LAST_BYTES - (1 << 10);

#[derive(Default)]
pub(crate) struct LogBuffer {
    /// First lines that are not stored yet.
    unstored: VecDeque<LogLine>,
    /// Number and bytes of the first lines, stored ones included.
    first: (usize, usize),
    /// A line did not fit into the first ones. No later line belongs to them.
    first_is_full: bool,
    /// The last lines with their bytes.
    last: VecDeque<(LogLine, usize)>,
    last_bytes: usize,
    dropped: u64,
}

impl LogBuffer {
    pub(crate) fn push(&mut self, line: LogLine) {
        let bytes = line.bytes();
        let first = (self.first.0 + 1, self.first.1 + bytes);
        self.first_is_full = self.first_is_full || first.0 > FIRST_LINES || first.1 > FIRST_BYTES;
        if self.first_is_full {
            self.push_last(line, bytes);
        } else {
            self.first = first;
            self.unstored.push_back(line);
        }
    }

    fn push_last(&mut self, line: LogLine, bytes: usize) {
        self.last.push_back((line, bytes));
        self.last_bytes += bytes;
        while self.last.len() > LAST_LINES || self.last_bytes > LAST_BYTES {
            self.last_bytes -= self.last.pop_front().map_or(0, |(_, bytes)| bytes);
            self.dropped += 1;
        }
    }

    /// Takes the lines to store while the attempt runs.
    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.unstored).into()
    }

    /// Returns lines that were taken and not stored.
    pub(crate) fn put_back(&mut self, lines: Vec<LogLine>) {
        let newer = std::mem::replace(&mut self.unstored, lines.into());
        self.unstored.extend(newer);
    }

    /// The lines to store when the attempt ends.
    pub(crate) fn finish(self) -> Vec<LogLine> {
        let mut lines = Vec::from(self.unstored);
        if self.dropped > 0 {
            lines.push(truncated(self.dropped));
        }
        lines.extend(self.last.into_iter().map(|(line, _)| line));
        lines
    }
}

fn truncated(dropped: u64) -> LogLine {
    let message = format!("{dropped} log lines of this attempt are dropped here: it logged too much");
    LogLine { fields: [("truncated".to_owned(), dropped.into())].into(), ..own_line("WARN", message) }
}

/// A line that the library adds to an attempt's log.
pub(crate) fn own_line(level: &'static str, message: String) -> LogLine {
    LogLine {
        line: 0,
        attempt: 0,
        timestamp: std::time::SystemTime::now().into(),
        level: level.into(),
        target: Some(OWN_TARGET.to_owned()),
        message,
        fields: Default::default(),
    }
}

/// Whether a line with this target is the library's own.
pub(crate) fn is_own(target: &str) -> bool {
    target.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use async_endpoints_testkit::jobs::line;

    use super::*;

    fn messages(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn lines_put_back_precede_newer_ones() {
        let mut log = LogBuffer::default();
        log.push(line("1"));
        log.push(line("2"));
        let taken = log.take();
        log.push(line("3"));
        log.put_back(taken);
        assert_eq!(messages(&log.finish()), ["1", "2", "3"]);
    }

    #[test]
    fn beginning_and_end_of_many_lines_are_kept() {
        let mut log = LogBuffer::default();
        (1..=5_000).for_each(|number| log.push(line(number.to_string())));
        let mut lines = log.take();
        lines.extend(log.finish());
        let numbers: Vec<u64> = lines.iter().filter_map(|line| line.message.parse().ok()).collect();
        assert_eq!(numbers, (1..=900).chain(4_902..=5_000).collect::<Vec<_>>());
        assert_eq!((lines.len(), &lines[900].fields["truncated"]), (LOG_LINES_PER_ATTEMPT, &4_001.into()));
    }

    #[test]
    fn bytes_of_an_attempt_are_limited() {
        let mut log = LogBuffer::default();
        let block = "x".repeat(10 << 10);
        (1..=100).for_each(|_| log.push(line(&block)));
        log.push(line("y".repeat(LOG_BYTES_PER_ATTEMPT)));
        log.push(line("the end"));
        let lines = log.finish();
        let bytes: usize = lines.iter().map(LogLine::bytes).sum();
        assert!(bytes <= LOG_BYTES_PER_ATTEMPT, "{bytes} bytes");
        let dropped = lines.iter().find_map(|line| line.fields.get("truncated")).and_then(|value| value.as_u64());
        assert_eq!(dropped, Some(102 - (lines.len() as u64 - 1)));
        assert_eq!(lines.last().map(|line| line.message.as_str()), Some("the end"));
    }
}
