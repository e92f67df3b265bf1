//! The operator's command for jobs in Redis.

use std::process::ExitCode;

use async_endpoints_redis::{Options, Repaired};

const USAGE: &str = "\
usage: async-endpoints-redis repair [--prefix NAME] [--root-certificate FILE] URL

  repair                    compares all jobs with all indexes, repairs the indexes, and quarantines jobs that cannot
                            be read; works in short steps while jobs go on
  --prefix NAME             the beginning of all keys; defaults to ae
  --root-certificate FILE   a root certificate (PEM) to trust for rediss://
  URL                       redis://[user:password@]host[:port][/database], or - for the variable REDIS_URL, which keeps
                            a password out of the list of processes

The exit code is 0 on success, whatever was repaired, and 1 on an error.";

/// The arguments of a repair.
#[derive(Debug, Default, PartialEq)]
struct Arguments {
    prefix: Option<String>,
    root_certificate: Option<String>,
    url: String,
}

/// Parses the arguments; `None` if they ask for the usage. Errors never repeat an argument that may be an address, because an
/// address may hold a password.
fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut args = args.into_iter();
    match args.next().as_deref() {
        Some("repair") => {}
        Some("-h" | "--help" | "help") => return Ok(None),
        Some(_) => return Err("unknown command: expected repair".to_owned()),
        None => return Err("missing command: expected repair".to_owned()),
    }
    let (mut parsed, mut url) = (Arguments::default(), None);
    while let Some(arg) = args.next() {
        let mut value = |of: &str| args.next().ok_or_else(|| format!("missing value of {of}"));
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--prefix" => parsed.prefix = Some(value("--prefix")?),
            "--root-certificate" => parsed.root_certificate = Some(value("--root-certificate")?),
            option if option.starts_with("--") => {
                let name = option.split('=').next().unwrap_or(option);
                return Err(format!("unknown option {name}; a space separates an option from its value"));
            }
            _ if url.is_some() => return Err("more than one address".to_owned()),
            _ => url = Some(arg),
        }
    }
    parsed.url = url.ok_or("missing address of the server")?;
    Ok(Some(parsed))
}

async fn repair(arguments: Arguments) -> Result<Repaired, String> {
    // A repair accepts no jobs, so it needs no durable server.
    let mut options = Options::new().allow_volatile(true);
    if let Some(prefix) = arguments.prefix {
        options = options.prefix(prefix);
    }
    if let Some(file) = arguments.root_certificate {
        options = options.root_certificate(std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?);
    }
    let url = match arguments.url.as_str() {
        "-" => std::env::var("REDIS_URL").map_err(|_| "the variable REDIS_URL is not set".to_owned())?,
        url => url.to_owned(),
    };
    let store = options.open(url).await.map_err(|error| error.to_string())?;
    store.repair().await.map_err(|error| error.to_string())
}

fn run() -> Result<String, String> {
    let parsed = parse(std::env::args().skip(1)).map_err(|why| format!("{why}\n\n{USAGE}"))?;
    let Some(arguments) = parsed else { return Ok(USAGE.to_owned()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let repaired = runtime.map_err(|error| error.to_string())?.block_on(repair(arguments))?;
    let Repaired { checked, repaired, quarantined } = repaired;
    Ok(format!("checked      {checked}\nrepaired     {repaired}\nquarantined  {quarantined}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(output) => {
            println!("{output}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
