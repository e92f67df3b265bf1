//! Installs the Node.js packages that tests need into folders of `target/tools`, as the lock files of the demo list them.

use std::{fs, path::Path, process::Command};

use crate::command::{Failed, run};

/// A folder of `examples/demo` with a `package.json` and its lock file.
struct Packages {
    folder: &'static str,
    package: &'static str,
    lock: &'static str,
}

/// The compiler of the client in TypeScript, and what drives the browser.
const PACKAGES: [Packages; 2] = [
    Packages {
        folder: "target/tools/typescript",
        package: include_str!("../../examples/demo/typescript/package.json"),
        lock: include_str!("../../examples/demo/typescript/package-lock.json"),
    },
    Packages {
        folder: "target/tools/browser",
        package: include_str!("../../examples/demo/browser/package.json"),
        lock: include_str!("../../examples/demo/browser/package-lock.json"),
    },
];

/// Installs the packages whose installed versions differ from their lock file.
pub(crate) fn ensure() -> Result<(), Failed> {
    PACKAGES.iter().try_for_each(Packages::ensure)
}

impl Packages {
    fn ensure(&self) -> Result<(), Failed> {
        let folder = Path::new(self.folder);
        let installed = folder.join("installed.json");
        if fs::read_to_string(&installed).is_ok_and(|installed| installed == self.lock) {
            return Ok(());
        }
        let failed = |error| Failed::because(format_args!("{}: {error}", self.folder));
        fs::create_dir_all(folder).map_err(failed)?;
        fs::write(folder.join("package.json"), self.package).map_err(failed)?;
        fs::write(folder.join("package-lock.json"), self.lock).map_err(failed)?;
        let args = ["ci", "--no-audit", "--no-fund", "--loglevel", "error"];
        run("npm", Command::new("npm").args(args).current_dir(folder))?;
        // Written last, so that an interrupted installation is repeated.
        fs::write(installed, self.lock).map_err(failed)
    }
}
