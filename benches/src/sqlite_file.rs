//! Opens and removes SQLite files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_endpoints::{
    core::Store,
    sqlite::{Options, Synchronous},
};

use crate::report::Result;

pub(crate) async fn open(path: &Path, synchronous: Synchronous) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(Options::new().synchronous(synchronous).open(path).await?))
}

/// Removes a file with its log and index, as far as they exist.
pub(crate) fn remove(path: &Path) {
    for file in [path.to_owned(), with_ending(path, "-wal"), with_ending(path, "-shm")] {
        drop(fs::remove_file(file));
    }
}

/// The path with `ending` appended to the file's name.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
