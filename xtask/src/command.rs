//! Runs other programs. Prints each command line first.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode, Stdio},
};

/// A task that failed. The reason is already on stderr.
#[derive(Debug)]
pub(crate) struct Failed(u8);

impl Failed {
    /// Prints the reason. The exit code is 1.
    pub(crate) fn because(reason: impl std::fmt::Display) -> Self {
        eprintln!("error: {reason}");
        Self(1)
    }

    /// The exit code for this process: that of the program that failed, or 1.
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

/// Prints `command` with the environment variables that it sets, and runs it.
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
    // A program that a signal ended has no code.
    Err(Failed(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Whether `program` is installed and succeeds with `args`.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    let status =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
