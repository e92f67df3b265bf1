//! The Debian packages that the tests need besides Rust. Installs missing ones if this user has the right to.

use std::{env, path::Path, process::Command};

use crate::command::{Failed, run, works};

/// A program that must succeed with these arguments, and the Debian packages that contain it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    program: &'static str,
    arguments: &'static [&'static str],
    packages: &'static [&'static str],
    why: &'static str,
}

/// The programs that the tests need.
pub(crate) const FOR_TESTS: &[Needed] = &[
    Needed {
        program: "cc",
        arguments: &["--version"],
        packages: &["gcc", "libc6-dev"],
        why: "SQLite is compiled from source",
    },
    Needed {
        program: "python3",
        arguments: &["-c", "import ensurepip, venv"],
        packages: &["python3", "python3-venv"],
        why: "tests use programs written in Python",
    },
    Needed {
        program: "curl",
        arguments: &["--version"],
        packages: &["curl"],
        why: "a test runs the commands that the demo prints",
    },
    Needed {
        program: "jq",
        arguments: &["--version"],
        packages: &["jq"],
        why: "a test runs the commands of documentation pages",
    },
    Needed {
        program: "sqlite3",
        arguments: &["--version"],
        packages: &["sqlite3"],
        why: "a test copies the demo's file as the documentation shows",
    },
    Needed {
        program: "systemd-analyze",
        arguments: &["--version"],
        packages: &["systemd"],
        why: "a test checks the systemd units",
    },
    Needed {
        program: "node",
        arguments: &["--version"],
        packages: &["nodejs"],
        why: "a test builds and runs a client in TypeScript",
    },
    Needed {
        program: "npm",
        arguments: &["--version"],
        packages: &["npm"],
        why: "it installs the TypeScript compiler and the driver of the browser for tests",
    },
    Needed {
        program: "chromium",
        arguments: &["--version"],
        packages: &["chromium"],
        why: "tests open the dashboard in it",
    },
    Needed {
        program: "redis-server",
        arguments: &["--version"],
        packages: &["redis-server"],
        why: "tests start servers of their own",
    },
    Needed {
        program: "redis-cli",
        arguments: &["--version"],
        packages: &["redis-tools"],
        why: "tests inspect their servers",
    },
    Needed {
        // It comes with the server; the server's own folder depends on its version.
        program: "pg_lsclusters",
        arguments: &["--help"],
        packages: &["postgresql"],
        why: "tests start servers of their own",
    },
    Needed {
        program: "/usr/sbin/pgbouncer",
        arguments: &["--version"],
        packages: &["pgbouncer"],
        why: "tests connect through it",
    },
    Needed {
        program: "pg_config",
        arguments: &["--libdir"],
        packages: &["libpq-dev"],
        why: "an example uses diesel, which needs PostgreSQL's library",
    },
    Needed {
        program: "openssl",
        arguments: &["version"],
        packages: &["openssl"],
        why: "tests make certificates for a server that speaks TLS",
    },
    Needed {
        program: "/usr/sbin/nginx",
        arguments: &["-v"],
        packages: &["nginx-light"],
        why: "a test puts it in front of the demo",
    },
    Needed {
        program: "prometheus",
        arguments: &["--version"],
        packages: &["prometheus"],
        why: "it scrapes the demo in tests, and promtool checks metrics and rules",
    },
    Needed {
        program: "prometheus-alertmanager",
        arguments: &["--version"],
        packages: &["prometheus-alertmanager"],
        why: "it gets the demo's alerts in tests",
    },
];

/// Installs the packages of missing programs.
pub(crate) fn ensure(needed: &[Needed]) -> Result<(), Failed> {
    let missing: Vec<Needed> = needed.iter().copied().filter(|n| !works(n.program, n.arguments)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for Needed { program, packages, why, .. } in &missing {
        eprintln!("`{program}` is missing ({why}); Debian package: {}", packages.join(" "));
    }
    let packages: Vec<&str> = missing.iter().flat_map(|n| n.packages).copied().collect();
    install(&packages)
}

fn install(packages: &[&str]) -> Result<(), Failed> {
    let not_installed =
        |reason| Failed::because(format_args!("{reason}; install these packages: {}", packages.join(" ")));
    if !on_path("apt-get") {
        return Err(not_installed("apt-get is not installed"));
    }
    let allowed: &[&str] = match is_root() {
        true => &["env"],
        false if works("sudo", &["-n", "true"]) => &["sudo", "-n", "env"],
        false => return Err(not_installed("this user has no right to install packages")),
    };
    // `env` sets the variables, because sudo drops its own. At run level 1 Debian starts no service for an installed
    // server: tests start their own.
    let variables = ["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"];
    let apt = |args: &[&str]| {
        let (program, before) = (allowed[0], &allowed[1..]);
        run(program, Command::new(program).args(before).args(variables).arg("apt-get").args(args))
    };
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// Whether a folder of `PATH` has the program.
fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| is_file(&folder.join(program)))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_program_is_found() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-anywhere"));
        let shell = Needed { program: "sh", arguments: &["-c", "true"], packages: &["dash"], why: "a test" };
        assert!(ensure(&[shell]).is_ok());
    }
}
