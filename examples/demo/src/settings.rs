//! The demo's settings from the environment. The library reads its own options, and those of telemetry.
//!
//! An invalid value is an error of one line with the variable, its value and the expected one. An empty value is the same
//! as none.

use std::{env, ffi::OsString, fmt, path::PathBuf};

/// An invalid setting, as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadSetting(String);

impl BadSetting {
    /// `problem` says what is wrong and what is expected.
    pub(crate) fn new(name: &str, value: impl fmt::Display, problem: impl fmt::Display) -> Self {
        let value = value.to_string();
        Self(format!("invalid {name} {value:?}: {problem}"))
    }
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a process does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Accepts jobs and runs them.
    All,
    /// Accepts jobs, runs none.
    Api,
    /// Runs jobs, accepts none.
    Worker,
}

impl Role {
    /// Whether the process accepts jobs over HTTP.
    pub(crate) const fn accepts(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// Whether the process runs jobs.
    pub(crate) const fn runs(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}

/// The store of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    /// In memory, lost with the process.
    Memory,
    /// In a file.
    Sqlite(PathBuf),
    /// On a Redis server.
    Redis(ServerUrl),
    /// In a PostgreSQL database.
    Postgres(ServerUrl),
}

impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis(url) | Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// The address of a server. Shows only the scheme, because the rest may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl(String);

impl ServerUrl {
    /// The whole address, to connect with.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.0.split(':').next().unwrap_or_default())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The demo's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `AE_BIND`: `HOST:PORT` to listen on; port 0 picks a free one. Defaults to `127.0.0.1:8080`.
    pub(crate) bind: String,
    /// `AE_STORE`: the job store: `sqlite:PATH`, `memory:`, `postgres://…`, `redis://…` or `rediss://…`. Defaults to
    /// `sqlite:async-endpoints.db`.
    pub(crate) store: StoreChoice,
    /// `AE_ALLOW_VOLATILE`: `true` accepts a Redis or PostgreSQL server that can lose jobs. Defaults to `false`.
    pub(crate) allow_volatile: bool,
    /// `AE_ROLE`: `all`; `api` accepts jobs and runs none; `worker` runs jobs and accepts none. Defaults to `all`.
    pub(crate) role: Role,
    /// `AE_LEDGER`: a file to which each attempt appends its start and its end. See [`Ledger`](crate::ledger::Ledger).
    pub(crate) ledger: Option<PathBuf>,
    /// `AE_DATA`: the demo's SQLite file, created and filled if it does not exist. Defaults to `weather.db`.
    pub(crate) data: PathBuf,
    /// `AE_ADMIN_TOKEN`: the bearer token of operators; without one, callers from this machine are operators.
    pub(crate) admin_token: Option<String>,
    /// `AE_VIEW_TOKEN`: the bearer token of operators who only read; needs `AE_ADMIN_TOKEN`.
    pub(crate) view_token: Option<String>,
    /// Whether `AE_JOB_TIMEOUT_SECONDS` is set, which overrides the timeout of `Sleep`.
    pub(crate) job_timeout_is_set: bool,
}

impl Settings {
    /// Reads the environment of this process.
    pub(crate) fn from_env() -> Result<Self, BadSetting> {
        Self::read(|name| env::var_os(name))
    }

    fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, BadSetting> {
        let path = |name| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name, default: &str| match path(name).map(|value| value.into_os_string().into_string()) {
            None => Ok(default.to_owned()),
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) if name.ends_with("_TOKEN") => Err(bad_token(name)),
            Some(Err(value)) => Err(BadSetting::new(name, value.to_string_lossy(), "expected valid UTF-8")),
        };
        let token = |name| text(name, "").and_then(|value| token(name, value));
        let (admin_token, view_token) = (token("AE_ADMIN_TOKEN")?, token("AE_VIEW_TOKEN")?);
        if admin_token.is_none() && view_token.is_some() {
            return Err(BadSetting::new("AE_VIEW_TOKEN", "…", "expected AE_ADMIN_TOKEN to be set as well"));
        }
        Ok(Self {
            bind: bind(text("AE_BIND", "127.0.0.1:8080")?)?,
            store: store(&text("AE_STORE", "sqlite:async-endpoints.db")?)?,
            allow_volatile: boolean("AE_ALLOW_VOLATILE", &text("AE_ALLOW_VOLATILE", "false")?)?,
            role: role(&text("AE_ROLE", "all")?)?,
            ledger: path("AE_LEDGER"),
            data: path("AE_DATA").unwrap_or_else(|| "weather.db".into()),
            admin_token,
            view_token,
            job_timeout_is_set: path("AE_JOB_TIMEOUT_SECONDS").is_some(),
        })
    }
}

fn bind(value: String) -> Result<String, BadSetting> {
    let fits = value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if fits { Ok(value) } else { Err(BadSetting::new("AE_BIND", value, "expected HOST:PORT, such as 127.0.0.1:8080")) }
}

/// A token that a client can send: servers trim header values.
fn token(name: &str, token: String) -> Result<Option<String>, BadSetting> {
    if token.trim().is_empty() {
        return Ok(None);
    }
    let is_sendable = token.trim() == token && token.bytes().all(|b| (b' '..=b'~').contains(&b));
    if is_sendable { Ok(Some(token)) } else { Err(bad_token(name)) }
}

/// Does not show the token.
fn bad_token(name: &str) -> BadSetting {
    BadSetting::new(name, "…", "expected printable ASCII without a space at its beginning or end")
}

fn store(value: &str) -> Result<StoreChoice, BadSetting> {
    let (scheme, rest) = value.split_once(':').unwrap_or_default();
    let problem = match (scheme, rest) {
        ("memory", "") => return Ok(StoreChoice::Memory),
        ("sqlite", path) if !path.is_empty() => return Ok(StoreChoice::Sqlite(path.into())),
        ("redis" | "rediss", server) if server.len() > 2 && server.starts_with("//") => {
            return Ok(StoreChoice::Redis(ServerUrl(value.to_owned())));
        }
        ("postgres" | "postgresql", server) if server.len() > 2 && server.starts_with("//") => {
            return Ok(StoreChoice::Postgres(ServerUrl(value.to_owned())));
        }
        _ => "expected sqlite:PATH, memory:, postgres://HOST:PORT/DATABASE or redis://HOST:PORT/DATABASE",
    };
    // An invalid address of a server may contain a password too.
    let is_file = matches!(scheme, "" | "memory" | "sqlite" | "file");
    let shown = if is_file { value.to_owned() } else { ServerUrl(value.to_owned()).to_string() };
    Err(BadSetting::new("AE_STORE", shown, problem))
}

fn boolean(name: &str, value: &str) -> Result<bool, BadSetting> {
    value.parse().map_err(|_| BadSetting::new(name, value, "expected true or false"))
}

fn role(value: &str) -> Result<Role, BadSetting> {
    match value {
        "all" => Ok(Role::All),
        "api" => Ok(Role::Api),
        "worker" => Ok(Role::Worker),
        _ => Err(BadSetting::new("AE_ROLE", value, "expected all, api or worker")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, String> {
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into());
        Settings::read(get).map_err(|bad| bad.to_string())
    }

    #[test]
    fn empty_value_is_the_default() {
        let defaults = read(&[]).unwrap();
        assert_eq!(defaults.bind, "127.0.0.1:8080");
        assert_eq!((&defaults.store, defaults.role), (&StoreChoice::Sqlite("async-endpoints.db".into()), Role::All));
        assert_eq!((defaults.ledger.clone(), defaults.data.to_str()), (None, Some("weather.db")));
        assert!(!defaults.allow_volatile);
        let empty = ["AE_BIND", "AE_STORE", "AE_ALLOW_VOLATILE", "AE_ROLE", "AE_LEDGER", "AE_DATA"];
        assert_eq!(read(&empty.map(|name| (name, ""))), Ok(defaults));
    }

    #[test]
    fn value_overrides_the_default() {
        let vars = [("AE_BIND", "[::1]:0"), ("AE_ROLE", "worker"), ("AE_LEDGER", "l"), ("AE_JOB_TIMEOUT_SECONDS", "2")];
        let settings = read(&vars).unwrap();
        assert_eq!((settings.bind.as_str(), settings.ledger), ("[::1]:0", Some("l".into())));
        assert!(settings.role.runs() && !settings.role.accepts() && settings.job_timeout_is_set);
    }

    #[test]
    fn invalid_value_is_one_line() {
        for (name, value, says) in [
            ("AE_BIND", "8080", "HOST:PORT"),
            ("AE_BIND", ":8080", "HOST:PORT"),
            ("AE_BIND", "localhost:99999", "HOST:PORT"),
            ("AE_ROLE", "boss", "all, api or worker"),
            ("AE_STORE", "sqlite:", "expected sqlite:PATH"),
            ("AE_STORE", "memory", "expected sqlite:PATH"),
            ("AE_STORE", "memory:x", "expected sqlite:PATH"),
            ("AE_ALLOW_VOLATILE", "yes", "true or false"),
        ] {
            let line = read(&[(name, value)]).unwrap_err();
            assert!(line.starts_with(&format!("invalid {name} \"{value}\": ")), "{line}");
            assert!(line.contains(says) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn token_that_no_client_can_send_is_rejected() {
        for token in ["tökén", "a\tb", "a\n", " a", "a "] {
            let line = read(&[("AE_ADMIN_TOKEN", token)]).unwrap_err();
            assert!(line.starts_with("invalid AE_ADMIN_TOKEN \"…\": expected printable ASCII"), "{line}");
            let line = read(&[("AE_ADMIN_TOKEN", "x"), ("AE_VIEW_TOKEN", token)]).unwrap_err();
            assert!(line.starts_with("invalid AE_VIEW_TOKEN \"…\": expected printable ASCII"), "{line}");
        }
        let line = read(&[("AE_VIEW_TOKEN", "a")]).unwrap_err();
        assert_eq!(line, "invalid AE_VIEW_TOKEN \"…\": expected AE_ADMIN_TOKEN to be set as well");
        assert_eq!(read(&[("AE_ADMIN_TOKEN", " ")]).unwrap().admin_token, None);
        assert_eq!(read(&[("AE_ADMIN_TOKEN", "a b~!")]).unwrap().admin_token.as_deref(), Some("a b~!"));
    }

    #[test]
    fn password_is_not_shown() {
        for (secret, shown) in [
            ("postgres:u:p@ss@db", "postgres:…"),
            ("postgresql://", "postgresql:…"),
            ("redis:u:p@ss@db", "redis:…"),
            ("rediss://", "rediss:…"),
            ("Redis://u:p@ss@db", "Redis:…"),
        ] {
            let line = read(&[("AE_STORE", secret)]).unwrap_err();
            assert!(line.starts_with(&format!("invalid AE_STORE \"{shown}\": ")), "{line}");
            assert!(line.contains("sqlite:PATH") && !line.contains("p@ss"), "{line}");
        }
        for (secret, choice) in [
            ("redis://user:p@ss@db.example:6379/0", StoreChoice::Redis as fn(_) -> _),
            ("rediss://db/0?password=p@ss", StoreChoice::Redis),
            ("postgres://user:p@ss@db/jobs", StoreChoice::Postgres),
            ("postgresql://db/jobs?password=p@ss", StoreChoice::Postgres),
        ] {
            let settings = read(&[("AE_STORE", secret), ("AE_ALLOW_VOLATILE", "true")]).unwrap();
            assert_eq!(settings.store, choice(ServerUrl(secret.to_owned())));
            let shown = format!("{settings:?} {}", settings.store);
            assert!(settings.allow_volatile && shown.contains(":…") && !shown.contains("p@ss"), "{shown}");
        }
    }
}
