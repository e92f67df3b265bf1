//! The Debian packages that the tests need beside Rust: says which are missing, installs them where it may.

use std::{env, path::Path, process::Command};

use crate::command::{Failed, run, works};

/// A program and the arguments that it must succeed with, the Debian packages that bring it, and what needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    program: &'static str,
    arguments: &'static [&'static str],
    packages: &'static [&'static str],
    why: &'static str,
}

/// What the tests need.
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
        program: "redis-server",
        arguments: &["--version"],
        packages: &["redis-server"],
        why: "tests start servers of their own",
    },
    Needed {
        program: "redis-cli",
        arguments: &["--version"],
        packages: &["redis-tools"],
        why: "tests look into their servers",
    },
    Needed {
        program: "openssl",
        arguments: &["version"],
        packages: &["openssl"],
        why: "tests make certificates for a server that speaks TLS",
    },
    Needed {
        program: "prometheus",
        arguments: &["--version"],
        packages: &["prometheus"],
        why: "it scrapes the demo in tests, and its promtool judges metrics and rules",
    },
];

/// Makes sure that all of `needed` is there. Runs nothing if it is.
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
    let by_hand = |reason| Failed::because(format_args!("{reason}; please install: {}", packages.join(" ")));
    if !on_path("apt-get") {
        return Err(by_hand("there is no apt-get here"));
    }
    let allowed: &[&str] = match is_root() {
        true => &["env"],
        false if works("sudo", &["-n", "true"]) => &["sudo", "-n", "env"],
        false => return Err(by_hand("this user may not install packages")),
    };
    // They go through `env`, because sudo drops those it is started with. At run level 1 Debian starts no service: a
    // server that tests start themselves must not run beside them.
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
    fn finds_programs_and_misses_others() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-anywhere"));
        let shell = Needed { program: "sh", arguments: &["-c", "true"], packages: &["dash"], why: "a test" };
        assert!(ensure(&[shell]).is_ok());
    }
}
