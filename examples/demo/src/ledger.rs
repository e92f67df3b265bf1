//! A record of attempts outside the store: a file to which every attempt of every handler appends its start and end.

use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    process,
    sync::Arc,
};

/// The optional file. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Option<Arc<File>>);

impl Ledger {
    /// Opens the file for appending. Without a path, the ledger does nothing.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().append(true).create(true).open(path)).transpose()?;
        Ok(Self(file.map(Arc::new)))
    }

    /// Writes the start of an attempt. Dropping the returned value writes the end, also if the handler is canceled, aborted
    /// or panics.
    #[must_use = "dropping it ends the attempt"]
    pub(crate) fn enter(&self, job: impl Display, attempt: u32) -> LedgerEntry {
        let running = LedgerEntry { ledger: self.clone(), attempt: format!("{job},{attempt},{}", process::id()) };
        running.write("start");
        running
    }
}

/// A running attempt.
#[derive(Debug)]
pub(crate) struct LedgerEntry {
    ledger: Ledger,
    attempt: String,
}

impl LedgerEntry {
    /// Writes a line with one call, so that lines of several processes do not mix.
    fn write(&self, what: &str) {
        let Some(mut file) = self.ledger.0.as_deref() else { return };
        let line = format!("{},{what}\n", self.attempt);
        match file.write(line.as_bytes()) {
            Ok(written) if written == line.len() => {}
            Ok(_) => tracing::error!("a line of the ledger is incomplete"),
            Err(error) => tracing::error!(%error, "cannot write to the ledger"),
        }
    }
}

impl Drop for LedgerEntry {
    fn drop(&mut self) {
        self.write("end");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, panic, thread};

    use super::*;

    #[test]
    fn each_attempt_has_a_start_and_an_end() {
        let path = std::env::temp_dir().join(format!("ledger-{}.csv", process::id()));
        drop(fs::remove_file(&path));
        let ledger = Ledger::open(Some(&path)).unwrap();
        thread::scope(|scope| {
            for job in 0..8 {
                let ledger = &ledger;
                scope.spawn(move || {
                    for attempt in 1..=50 {
                        drop(ledger.enter(job, attempt));
                    }
                });
            }
        });
        let ended = panic::catch_unwind(|| {
            let _running = ledger.enter("panics", 1);
            panic!("a handler's panic");
        });
        assert!(ended.is_err());
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let pid = process::id();
        for line in ["start", "end"] {
            assert_eq!(text.lines().filter(|l| l.ends_with(&format!(",{pid},{line}"))).count(), 401);
            assert!(text.contains(&format!("\npanics,1,{pid},{line}\n")));
        }
        assert_eq!(text.lines().count(), 802);
    }

    #[test]
    fn ledger_without_path_writes_nothing() {
        drop(Ledger::open(None).unwrap().enter("job", 1));
    }
}
