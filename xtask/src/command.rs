//! Runs other programs: says what it runs, and turns every way to fail into one error.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode, Stdio},
};

/// A task that did not succeed. What there was to say is already on stderr.
#[derive(Debug)]
pub(crate) struct Failed(u8);

impl Failed {
    /// Says why, and fails with exit code 1.
    pub(crate) fn because(reason: impl std::fmt::Display) -> Self {
        eprintln!("error: {reason}");
        Self(1)
    }

    /// What this process ends with: the code of the program that failed, where there was one.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(self.0)
    }
}

/// The cargo that started this task.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs cargo.
pub(crate) fn cargo(args: &[&str]) -> Result<(), Failed> {
    run("cargo", Command::new(cargo_program()).args(args))
}

/// Runs `command` and prints it first, with the variables that it sets.
pub(crate) fn run(shown_as: &str, command: &mut Command) -> Result<(), Failed> {
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let vars = command.get_envs().filter_map(|(k, v)| Some(format!("{}={:?} ", text(k), text(v?))));
    let line: String =
        vars.chain([shown_as.to_owned()]).chain(command.get_args().map(|a| format!(" {}", text(a)))).collect();
    eprintln!("$ {line}");
    let status = command.status().map_err(|e| Failed::because(format_args!("cannot run {shown_as}: {e}")))?;
    if status.success() {
        return Ok(());
    }
    // A signal has no code.
    Err(Failed(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Whether `program` is there and answers `args` with success.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    let status =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
