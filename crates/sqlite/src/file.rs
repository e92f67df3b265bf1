//! Whether the files are still those that were opened.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::fail::Fail;

/// The file and what SQLite keeps beside it while it is open, as they were when they were opened.
#[derive(Clone, Debug)]
pub(crate) struct File {
    file: Part,
    log: Part,
    /// Where in the log what is: shared memory of all processes.
    index: Part,
}

#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    identity: (u64, u64),
}

impl File {
    /// Call this with the file open and after a first read, which makes the other two: a number of a file that is open
    /// is given to no other, and they stay until the last process has closed it.
    pub(crate) fn opened(path: &Path) -> std::io::Result<Self> {
        // SQLite names them after the file that a link leads to.
        let real = std::fs::canonicalize(path)?;
        Ok(Self {
            file: Part::opened(path.to_owned())?,
            log: Part::opened(beside(&real, "-wal"))?,
            index: Part::opened(beside(&real, "-shm"))?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Refuses to go on in a file or a log that was deleted or replaced: what is written there, nobody finds again.
    pub(crate) fn check(&self) -> Result<(), Fail> {
        match self.file.is_same() {
            Ok(true) => {}
            Ok(false) => {
                let why = "the file was replaced by another; to use that one, stop all processes, delete what is left of the \
                    -wal and -shm beside it, and start again";
                return refuse(why.to_owned());
            }
            Err(error) => return refuse(format!("the file is gone ({error})")),
        }
        for part in [&self.log, &self.index] {
            let why = match part.is_same() {
                Ok(true) => continue,
                Ok(false) => "was replaced".to_owned(),
                Err(error) => format!("is gone ({error})"),
            };
            let path = part.path.display();
            return refuse(format!(
                "{path} {why}, which belongs to it: put it back, or stop all its processes in order"
            ));
        }
        Ok(())
    }

    /// How long the log is.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log.path).map_or(0, |found| found.len())
    }
}

impl Part {
    fn opened(path: PathBuf) -> std::io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    fn is_same(&self) -> std::io::Result<bool> {
        Ok(identity(&self.path)? == self.identity)
    }
}

fn refuse(why: String) -> Result<(), Fail> {
    Err(Fail::Unavailable(why))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

#[cfg(unix)]
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Elsewhere an open file cannot be deleted, or nothing tells files apart: it has to be there.
#[cfg(not(unix))]
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|_| (0, 0))
}
