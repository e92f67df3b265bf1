//! Runs other programs. Prints each command line first.

use std::{
    env,
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, ExitCode, ExitStatus, Stdio},
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
    show(shown_as, command);
    let status = command.status().map_err(|error| cannot_run(shown_as, &error))?;
    result(status)
}

/// Like [`run`]. Prints each line of the command's output and passes it to `read`.
pub(crate) fn run_reading(shown_as: &str, command: &mut Command, mut read: impl FnMut(&str)) -> Result<(), Failed> {
    show(shown_as, command);
    let mut run = || {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = Vec::new();
        while out.read_until(b'\n', &mut line)? > 0 {
            io::stdout().write_all(&line)?;
            read(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        child.wait()
    };
    result(run().map_err(|error| cannot_run(shown_as, &error))?)
}

fn show(shown_as: &str, command: &Command) {
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let vars = command.get_envs().filter_map(|(k, v)| Some(format!("{}={:?} ", text(k), text(v?))));
    let line: String =
        vars.chain([shown_as.to_owned()]).chain(command.get_args().map(|a| format!(" {}", text(a)))).collect();
    eprintln!("$ {line}");
}

fn cannot_run(shown_as: &str, error: &io::Error) -> Failed {
    Failed::because(format_args!("cannot run {shown_as}: {error}"))
}

fn result(status: ExitStatus) -> Result<(), Failed> {
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
