//! Finds and reads the files of the repository.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

/// Files under the current folder with one of these extensions, sorted. Skips `target` and folders whose name starts
/// with a dot.
pub(crate) fn with_extension(extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let readable = if folder.as_os_str().is_empty() { ".".into() } else { folder.clone() };
        for entry in fs::read_dir(readable)? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a text file. An error names the file.
pub(crate) fn read(file: &Path) -> io::Result<String> {
    fs::read_to_string(file).map_err(|error| failed(file, &error))
}

/// An error that names the file.
pub(crate) fn failed(file: &Path, error: &dyn Error) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}
