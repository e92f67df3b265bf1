//! Real SMTP servers for tests, by Python's aiosmtpd.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{folder::Folder, tls};

/// How an SMTP server encrypts connections. Its certificate is signed by the authority of [`SmtpServer::ca`].
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all.
    #[default]
    None,
    /// It refuses mails before STARTTLS.
    StartTls,
    /// From the first byte.
    Tls,
}

/// Settings of an SMTP server. Defaults to one that accepts each mail without encryption and login.
#[derive(Clone, Debug, Default)]
pub struct SmtpSettings<'a> {
    /// The encryption.
    pub tls: SmtpTls,
    /// User and password that are required.
    pub login: Option<(&'a str, &'a str)>,
    /// Recipients that are refused permanently.
    pub refuse: &'a [&'a str],
    /// Recipients that are refused once, temporarily.
    pub greylist: &'a [&'a str],
    /// Whether the command QUIT gets no answer.
    pub silent_quit: bool,
}

/// A running SMTP server. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct SmtpServer {
    process: Child,
    port: u16,
    folder: Folder,
}

impl SmtpServer {
    /// Starts a server.
    pub fn start(settings: &SmtpSettings<'_>) -> Self {
        let folder = Folder::new();
        let tls = match settings.tls {
            SmtpTls::None => "none",
            SmtpTls::StartTls => "starttls",
            SmtpTls::Tls => "tls",
        };
        if settings.tls != SmtpTls::None {
            tls::certify(folder.path());
        }
        folder.write("mails", "");
        let log = File::create(folder.path().join("log")).expect("the folder is writable");
        let mut command = Command::new(python());
        command.args(["-c", include_str!("smtp.py")]).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().expect("Python starts");
        let settings = json!({
            "tls": tls,
            "login": settings.login,
            "refuse": settings.refuse,
            "greylist": settings.greylist,
            "silent_quit": settings.silent_quit,
        });
        writeln!(process.stdin.take().expect("it is piped"), "{settings}").expect("the server reads its settings");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the server prints text");
        let mut server = Self { process, port: 0, folder };
        server.port = line.trim().parse().unwrap_or_else(|_| panic!("no SMTP server: {line}{}", server.folder.log()));
        server
    }

    /// The port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the authority's certificate, for a server with encryption.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join(tls::CA)
    }

    /// The accepted mails. Each has `from`, `to`, `hello`, `encrypted`, `login`, `headers`, `type`, `text`, `html` and `raw`.
    pub fn mails(&self) -> Vec<Value> {
        let mails = fs::read_to_string(self.folder.path().join("mails")).expect("the folder is readable");
        mails.lines().map(|line| serde_json::from_str(line).expect("the server writes JSON")).collect()
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        // Both calls may fail if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Python with the environment `smtp`, which `cargo xtask test` installs.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/smtp/bin/python");
    assert!(python.exists(), "aiosmtpd is not installed: run `cargo xtask test`");
    python
}
