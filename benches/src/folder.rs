//! A temporary folder for stores, next to the program: `/tmp` may be in memory.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::report::Result;

/// Removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let program = env::current_exe()?;
        let target = program.parent().and_then(Path::parent).ok_or("the program has no folder")?;
        let path = target.join(format!("bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
