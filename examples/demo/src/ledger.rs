//! What really ran: a file that every attempt of every handler writes to, outside any store.

use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    process,
    sync::Arc,
};

/// The file, if one was asked for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Option<Arc<File>>);

impl Ledger {
    /// Opens the file for appending; without a path nothing is written.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().append(true).create(true).open(path)).transpose()?;
        Ok(Self(file.map(Arc::new)))
    }

    /// Writes that an attempt starts. That it ends is written when the answer is dropped: also if the handler is
    /// canceled, aborted or panics, but not if the process is killed.
    #[must_use = "dropping it ends the attempt"]
    pub(crate) fn enter(&self, job: impl Display, attempt: u32) -> Running {
        let running = Running { ledger: self.clone(), attempt: format!("{job},{attempt},{}", process::id()) };
        running.write("start");
        running
    }
}

/// An attempt that runs.
#[derive(Debug)]
pub(crate) struct Running {
    ledger: Ledger,
    attempt: String,
}

impl Running {
    /// One line by one call, so that lines of several processes do not mix.
    fn write(&self, what: &str) {
        let Some(mut file) = self.ledger.0.as_deref() else { return };
        let line = format!("{},{what}\n", self.attempt);
        match file.write(line.as_bytes()) {
            Ok(written) if written == line.len() => {}
            Ok(_) => tracing::error!("a line of the ledger was cut off"),
            Err(error) => tracing::error!(%error, "the ledger cannot be written"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.write("end");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, panic, thread};

    use super::*;

    #[test]
    fn every_attempt_has_a_start_and_an_end() {
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
            panic!("as a handler may");
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
    fn without_a_path_nothing_is_written() {
        drop(Ledger::open(None).unwrap().enter("job", 1));
    }
}
