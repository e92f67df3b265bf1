//! Whether the file is still the one that was opened.

use std::path::{Path, PathBuf};

use crate::fail::Fail;

/// The file as it was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct File {
    path: PathBuf,
    identity: (u64, u64),
}

impl File {
    /// Call this with the file open: a number of a file that is open is given to no other.
    pub(crate) fn opened(path: PathBuf) -> std::io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses to go on in a file that was deleted or replaced: what is written there, nobody finds again.
    pub(crate) fn check(&self) -> Result<(), Fail> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(Fail::Unavailable("the file was replaced by another; restart to use that one".to_owned())),
            Err(error) => Err(Fail::Unavailable(format!("the file is gone ({error})"))),
        }
    }
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
