//! Data folders of servers. `initdb` takes about a second, so one result per build folder is kept and copied.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use super::{
    super::folder::Folder,
    programs::{give, program, run},
};

/// Connections from this machine need no password. Text is compared by the rules of a language, as most databases do,
/// so that a query which depends on the order of bytes is noticed.
const ARGS: &str = "--username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --locale-provider=icu \
                    --icu-locale=en --no-sync";

/// Makes a new data folder inside `folder`, for the version of `programs`.
pub(super) fn create(programs: &Path, folder: &Folder, data: &Path) {
    let Some(template) = template(programs) else { return initialize(programs, folder, data) };
    static MAKING: Mutex<()> = Mutex::new(());
    let making_one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !template.is_dir() {
        let making = Folder::new();
        initialize(programs, &making, &making.path().join("data"));
        // The copy gets its name when it is whole. Another process may have been quicker.
        let copy = template.with_extension(std::process::id().to_string());
        run(Command::new("cp").arg("-a").arg(making.path().join("data")).arg(&copy));
        if fs::rename(&copy, &template).is_err() {
            drop(fs::remove_dir_all(&copy));
        }
    }
    drop(making_one);
    run(Command::new("cp").arg("-a").arg(&template).arg(data));
}

fn initialize(programs: &Path, folder: &Folder, data: &Path) {
    give(folder.path());
    run(program(programs, "initdb").args(ARGS.split_whitespace()).arg("-D").arg(data).current_dir(folder.path()));
}

/// The path of the copy for all processes of this build folder. `None` if this executable is in no build folder.
fn template(programs: &Path) -> Option<PathBuf> {
    let executable = env::current_exe().ok()?;
    // Cargo marks its build folder with this file.
    let target = executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file())?;
    let version = run(program(programs, "postgres").arg("--version"));
    // For example "postgres (PostgreSQL) 15.7".
    let major = version.split([' ', '.']).nth(2)?;
    Some(target.join(format!("postgresql-{major}-data")))
}
