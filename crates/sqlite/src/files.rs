//! The database file and its companions: whether they are still the opened ones, and whether the database is damaged.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::failure::Failure;

/// The files of an open database. Clones share the record of damage.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseFiles {
    database: OpenedFile,
    /// The write-ahead log.
    log: OpenedFile,
    /// The index of the log: memory shared by all processes.
    log_index: OpenedFile,
    /// The first damage that was found.
    damage: Arc<OnceLock<String>>,
}

/// A file's path and its identity when it was opened.
#[derive(Clone, Debug)]
struct OpenedFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl DatabaseFiles {
    /// Records the identity of the files. Call this with the database open and after a first read, which creates the
    /// companions. All three exist until the last process has closed the database, so their identities stay unique.
    pub(crate) fn opened(path: &Path) -> std::io::Result<Self> {
        // SQLite derives the companions' names from the target of a symbolic link.
        let real = std::fs::canonicalize(path)?;
        Ok(Self {
            database: OpenedFile::new(path.to_owned())?,
            log: OpenedFile::new(companion(&real, "-wal"))?,
            log_index: OpenedFile::new(companion(&real, "-shm"))?,
            damage: Arc::default(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.database.path
    }

    /// The path of the write-ahead log.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log.path
    }

    /// Stops the store if the failure is damage: [`check`](Self::check) fails from then on.
    pub(crate) fn stop_if_corrupt(&self, failure: &Failure) {
        if let Failure::Corrupt(reason) = failure {
            // The first damage stays.
            drop(self.damage.set(reason.clone()));
        }
    }

    /// Fails if the database is damaged, or if a file was deleted or replaced: later processes would not find what is
    /// written to such a file.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(reason) = self.damage.get() {
            return Err(Failure::Corrupt(reason.clone()));
        }
        match self.database.is_same() {
            Ok(true) => {}
            Ok(false) => {
                let reason = "the file was replaced by another: to use the new file, stop all processes, delete the -wal \
                    and -shm files beside it, and start again";
                return Err(Failure::Unavailable(reason.to_owned()));
            }
            Err(error) => return Err(Failure::Unavailable(format!("the file is gone ({error})"))),
        }
        for file in [&self.log, &self.log_index] {
            let change = match file.is_same() {
                Ok(true) => continue,
                Ok(false) => "was replaced".to_owned(),
                Err(error) => format!("is gone ({error})"),
            };
            let path = file.path.display();
            return Err(Failure::Unavailable(format!(
                "its companion {path} {change}: put it back, or stop all processes in order and start them again"
            )));
        }
        Ok(())
    }

    /// Length of the write-ahead log in bytes.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log.path).map_or(0, |found| found.len())
    }
}

impl OpenedFile {
    fn new(path: PathBuf) -> std::io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    fn is_same(&self) -> std::io::Result<bool> {
        Ok(identity(&self.path)? == self.identity)
    }
}

fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Device and inode.
#[cfg(unix)]
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// On other systems an open file cannot be deleted, or has no identity to compare: it has to exist.
#[cfg(not(unix))]
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|_| (0, 0))
}
