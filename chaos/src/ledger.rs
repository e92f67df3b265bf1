//! Reads the ledger: a file outside the store to which handlers append a line when an attempt starts and ends.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::task::AbortHandle;

const PAUSE: Duration = Duration::from_millis(20);

/// The start or the end of an attempt. `at` is the time of reading the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) job: String,
    pub(crate) attempt: u64,
    pub(crate) process: u32,
    pub(crate) is_end: bool,
}

/// Reads the ledger every 20 ms while processes append to it.
#[derive(Debug)]
pub(crate) struct LedgerReader {
    reader: Arc<Mutex<Reader>>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Reader {
    path: PathBuf,
    /// Number of bytes read: whole lines only.
    read: u64,
    lines: Vec<Line>,
}

impl LedgerReader {
    pub(crate) fn start(path: PathBuf) -> Self {
        let reader = Arc::new(Mutex::new(Reader { path, read: 0, lines: Vec::new() }));
        let reads = reader.clone();
        let task = tokio::spawn(async move {
            loop {
                // `lines` reports an error that persists.
                drop(reads.lock().unwrap_or_else(PoisonError::into_inner).read());
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { reader, task: task.abort_handle() }
    }

    /// All lines so far, in the order of writing.
    pub(crate) fn lines(&self) -> io::Result<Vec<Line>> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read()?;
        Ok(reader.lines.clone())
    }
}

impl Drop for LedgerReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    fn read(&mut self) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let text = io::read_to_string(file)?;
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        self.read += whole as u64;
        let at = Timestamp::now();
        self.lines.extend(text[..whole].lines().filter_map(|line| parse(line, at)));
        Ok(())
    }
}

fn parse(line: &str, at: Timestamp) -> Option<Line> {
    let [job, attempt, process, what] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
    let (attempt, process) = (attempt.parse().ok()?, process.parse().ok()?);
    Some(Line { at, job: job.to_owned(), attempt, process, is_end: what == "end" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_line_is_not_parsed() {
        let path = std::env::temp_dir().join(format!("chaos-ledger-{}", std::process::id()));
        let mut reader = Reader { path: path.clone(), read: 0, lines: Vec::new() };
        assert!(reader.read().is_err());
        for (text, lines) in [("a,1,7,start\nb,2", 1), ("a,1,7,start\nb,2,8,end\n", 2)] {
            std::fs::write(&path, text).unwrap();
            reader.read().unwrap();
            assert_eq!(reader.lines.len(), lines);
        }
        std::fs::remove_file(path).unwrap();
        let Line { job, attempt, process, is_end, .. } = &reader.lines[1];
        assert_eq!((job.as_str(), *attempt, *process, *is_end), ("b", 2, 8, true));
    }
}
