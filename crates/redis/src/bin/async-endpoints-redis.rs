//! What an operator does to jobs in Redis by hand.

use std::process::ExitCode;

use async_endpoints_redis::{Options, Repaired};

const USAGE: &str = "\
usage: async-endpoints-redis repair [--prefix NAME] [--root-certificate FILE] URL

  repair                      compares all jobs with all indexes, in small steps that hold nobody up, mends what
                            disagrees, and puts aside what cannot be read
  --prefix NAME             what the keys begin with; ae unless told
  --root-certificate FILE   an authority to trust for rediss://, as PEM
  URL                       redis://[user:password@]host[:port][/database]; - reads it from the variable REDIS_URL,
                            where no list of processes shows a password

It ends with 0 if all went well, whatever was repaired, and with 1 if not.";

/// What was asked for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    prefix: Option<String>,
    root_certificate: Option<String>,
    url: String,
}

/// What is asked for; none for the usage. Never repeats what may be an address, and so hold a password.
fn read(args: impl IntoIterator<Item = String>) -> Result<Option<Asked>, String> {
    let mut args = args.into_iter();
    match args.next().as_deref() {
        Some("repair") => {}
        Some("-h" | "--help" | "help") => return Ok(None),
        Some(_) => return Err("the first argument is no command; repair is".to_owned()),
        None => return Err("what to do is missing; repair is all there is".to_owned()),
    }
    let (mut asked, mut url) = (Asked::default(), None);
    while let Some(arg) = args.next() {
        let mut value = |of: &str| args.next().ok_or_else(|| format!("{of} needs a value"));
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--prefix" => asked.prefix = Some(value("--prefix")?),
            "--root-certificate" => asked.root_certificate = Some(value("--root-certificate")?),
            option if option.starts_with("--") => {
                let name = option.split('=').next().unwrap_or(option);
                return Err(format!("{name} is no option; a value comes behind its option, with a space between"));
            }
            _ if url.is_some() => return Err("there is more than one address".to_owned()),
            _ => url = Some(arg),
        }
    }
    asked.url = url.ok_or("the address of the server is missing")?;
    Ok(Some(asked))
}

async fn repair(asked: Asked) -> Result<Repaired, String> {
    // Nobody's jobs are in danger who mends: a server that can lose some is repaired, too.
    let mut options = Options::new().allow_volatile(true);
    if let Some(prefix) = asked.prefix {
        options = options.prefix(prefix);
    }
    if let Some(file) = asked.root_certificate {
        options = options.root_certificate(std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?);
    }
    let url = match asked.url.as_str() {
        "-" => std::env::var("REDIS_URL").map_err(|_| "the variable REDIS_URL is not set".to_owned())?,
        url => url.to_owned(),
    };
    let store = options.open(url).await.map_err(|error| error.to_string())?;
    store.repair().await.map_err(|error| error.to_string())
}

fn run() -> Result<String, String> {
    let Some(asked) = read(std::env::args().skip(1)).map_err(|why| format!("{why}\n\n{USAGE}"))? else {
        return Ok(USAGE.to_owned());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let repaired = runtime.map_err(|error| error.to_string())?.block_on(repair(asked))?;
    let Repaired { checked, repaired, quarantined } = repaired;
    Ok(format!("checked      {checked}\nrepaired     {repaired}\nquarantined  {quarantined}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
