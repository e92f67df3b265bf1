//! Installs the Node.js packages that tests need into folders of `target/tools`, as their lock files list them.

use std::{fs, path::Path, process::Command};

use crate::command::{Failed, run};

/// A `package.json`, its lock file, and the folder that they are installed into.
struct Packages {
    folder: &'static str,
    package: &'static str,
    lock: &'static str,
}

/// The compiler of the client in TypeScript, what drives the browser, and a PostgreSQL server that is newer than Debian's.
const PACKAGES: [Packages; 3] = [
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
    Packages {
        folder: "target/tools/postgresql",
        package: include_str!("../postgresql/package.json"),
        lock: include_str!("../postgresql/package-lock.json"),
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
