//! A log file for each UTC day.
//!
//! tracing-appender's files are not used: they delete the files of services whose name begins the same, and report their
//! errors by a blocking write to stderr.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use jiff::civil::Date;

use super::time::today;

const SUFFIX: &str = ".log";

/// Appends lines to `<folder>/<prefix>.YYYY-MM-DD.log` and keeps the newest files.
pub(super) struct DailyFile {
    folder: PathBuf,
    /// With the dot behind it.
    prefix: String,
    kept: usize,
    day: Date,
    file: File,
}

impl DailyFile {
    /// Opens today's file. Creates the folder if it does not exist.
    pub(super) fn open(folder: PathBuf, name: &str, kept: usize) -> io::Result<Self> {
        Self::open_on(today(), folder, name, kept)
    }

    fn open_on(day: Date, folder: PathBuf, name: &str, kept: usize) -> io::Result<Self> {
        let is_safe = |char: &char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
        let prefix = name.chars().map(|char| if is_safe(&char) { char } else { '_' }).chain(['.']).collect();
        let file = open(&folder, &prefix, day)?;
        let files = Self { folder, prefix, kept: kept.max(1), day, file };
        files.prune();
        Ok(files)
    }

    /// Writes into the file of that day. If it cannot be opened, into the file before it, and tries again at the next line.
    fn write_on(&mut self, day: Date, line: &[u8]) -> io::Result<usize> {
        if day > self.day
            && let Ok(file) = open(&self.folder, &self.prefix, day)
        {
            self.file = file;
            self.day = day;
            self.prune();
        }
        self.file.write(line)
    }

    /// Removes the oldest files of this prefix. Files that cannot be removed stay until the next day.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut days: Vec<(Date, String)> = names.filter_map(|name| Some((self.day_of(&name)?, name))).collect();
        days.sort_unstable_by(|a, b| b.cmp(a));
        for (_, name) in days.iter().skip(self.kept) {
            let _stays = fs::remove_file(self.folder.join(name));
        }
    }

    fn day_of(&self, name: &str) -> Option<Date> {
        name.strip_prefix(&self.prefix)?.strip_suffix(SUFFIX)?.parse().ok()
    }
}

impl Write for DailyFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_on(today(), line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(folder: &PathBuf, prefix: &String, day: Date) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    OpenOptions::new().create(true).append(true).open(folder.join(format!("{prefix}{day}{SUFFIX}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::time::day, *};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("async-endpoints-{}-{name}", std::process::id()));
            drop(fs::remove_dir_all(&folder));
            Self(folder)
        }

        fn path(&self) -> &Path {
            &self.0
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a folder");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8")).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn new_day_starts_a_file_and_removes_the_oldest() {
        let folder = Folder::new("daily");
        let mut files = DailyFile::open_on(day(0), folder.path().join("new"), "a/b", 2).expect("a file");
        for (days, line) in [(0, "one\n"), (1, "two\n"), (1, "three\n"), (2, "four\n")] {
            files.write_on(day(days), line.as_bytes()).expect("written");
        }
        let folder = Folder(folder.path().join("new"));
        assert_eq!(folder.names(), ["a_b.1970-01-02.log", "a_b.1970-01-03.log"]);
        let text = fs::read_to_string(folder.path().join("a_b.1970-01-02.log")).expect("text");
        assert_eq!(text, "two\nthree\n");
    }

    #[test]
    fn restart_appends_and_keeps_other_files() {
        let folder = Folder::new("restart");
        fs::create_dir_all(folder.path()).expect("a folder");
        for other in ["demo-api.1969-01-01.log", "demo.1969-01-01.log.gz", "demo.notes.log", "demo.1969-01-01.log"] {
            fs::write(folder.path().join(other), "").expect("a file");
        }
        for line in ["one\n", "two\n"] {
            let mut files = DailyFile::open_on(day(0), folder.path().to_owned(), "demo", 1).expect("a file");
            files.write_on(day(0), line.as_bytes()).expect("written");
        }
        let kept = ["demo-api.1969-01-01.log", "demo.1969-01-01.log.gz", "demo.1970-01-01.log", "demo.notes.log"];
        assert_eq!(folder.names(), kept);
        assert_eq!(fs::read_to_string(folder.path().join(kept[2])).expect("text"), "one\ntwo\n");
    }

    #[test]
    fn lines_stay_in_the_old_file_without_a_new_one() {
        let folder = Folder::new("stays");
        let mut files = DailyFile::open_on(day(0), folder.path().to_owned(), "demo", 2).expect("a file");
        fs::create_dir(folder.path().join("demo.1970-01-02.log")).expect("a folder in the way");
        files.write_on(day(1), b"one\n").expect("written");
        assert_eq!(fs::read_to_string(folder.path().join("demo.1970-01-01.log")).expect("text"), "one\n");
    }

    #[test]
    fn file_as_folder_is_an_error() {
        let folder = Folder::new("file");
        fs::write(folder.path(), "").expect("a file");
        assert!(DailyFile::open(folder.path().to_owned(), "demo", 2).is_err());
        fs::remove_file(folder.path()).expect("removed");
    }
}
