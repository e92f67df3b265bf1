//! Errors of calls and of opening a store.

use std::{error::Error as _, io};

use async_endpoints_core::StoreError;
use tokio_postgres::{Error, error::SqlState};

/// The codes that this store's own functions raise: for a job and for other data that they cannot decode.
const UNREADABLE: &str = "AE001";
const CORRUPT: &str = "AE002";

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Fail {
    /// An error of the server or the driver.
    Postgres(Error),
    /// There is no connection.
    Disconnected(String),
    /// The server did not answer in time.
    Late,
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl Fail {
    /// The contract's error, with the server's address.
    pub(crate) fn into_error(self, server: &str) -> StoreError {
        let error = match self {
            // The reason of a failed attempt to connect names the host.
            Self::Disconnected(why) if why.starts_with("postgres at ") => return StoreError::Unavailable(why),
            Self::Disconnected(why) => return StoreError::Unavailable(format!("{server}: {why}")),
            Self::Late => {
                return StoreError::Unavailable(format!("{server}: no answer in time; the call may have taken effect"));
            }
            Self::Postgres(error) => error,
        };
        let text = describe(&error);
        if let Some(why) = reason(&error) {
            return StoreError::Unavailable(format!("{server}: {why} ({text})"));
        }
        match code(&error) {
            Some(UNREADABLE) => StoreError::Unreadable(format!("{server}: {text}")),
            Some(CORRUPT | "XX001" | "XX002") => StoreError::Corrupt(format!("{server}: {text}")),
            // Undefined function, table or schema.
            Some("42883" | "42P01" | "3F000") => StoreError::Backend {
                source: format!(
                    "{server}: {text}; a newer program changed the schema, or it was dropped: restart with a newer program"
                )
                .into(),
            },
            _ => StoreError::Backend { source: format!("{server}: {text}").into() },
        }
    }

    /// The error of a statement while the store is opened. Permanent if the user lacks a right.
    pub(crate) fn into_open_error(self, server: &str) -> OpenError {
        match self {
            Self::Postgres(error) if reason(&error).is_none() || code(&error) == Some("42501") => {
                OpenError::Refused(format!("{server}: {}", describe(&error)))
            }
            other => match other.into_error(server) {
                StoreError::Unavailable(why) => OpenError::Unavailable(why),
                error => OpenError::Refused(error.to_string()),
            },
        }
    }

    /// Whether the transaction failed because of a concurrent one, so that a repeat may succeed at once.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Postgres(error) if matches!(code(error), Some("40001" | "40P01")))
    }

    /// Whether another transaction did not release a lock in time.
    pub(crate) fn is_lock(&self) -> bool {
        matches!(self, Self::Postgres(error) if code(error) == Some("55P03"))
    }

    /// Whether to reconnect: the connection is broken, leads to a server that accepts no writes, or has outdated plans.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Late => true,
            Self::Disconnected(_) => false,
            Self::Postgres(error) => {
                is_broken(error)
                    || matches!(code(error), Some("25006" | "57P01" | "57P02" | "57P03" | "57P05"))
                    || code(error).is_some_and(|code| code.starts_with("08"))
                    || has_outdated_plan(error)
            }
        }
    }
}

fn code(error: &Error) -> Option<&str> {
    error.code().map(SqlState::code)
}

/// The error and its causes. The driver's own text of an error of the server is `db error`.
pub(crate) fn describe(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} [{}]", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Whether the connection broke.
fn is_broken(error: &Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<io::Error>())
}

/// Whether a migration changed a table of which the session has a plan. A new session has none.
fn has_outdated_plan(error: &Error) -> bool {
    code(error) == Some("0A000")
        && error.as_db_error().is_some_and(|error| error.message().starts_with("cached plan must not change"))
}

/// The reason of an error that ends by itself or that an operator can remove. None for other errors.
pub(crate) fn reason(error: &Error) -> Option<&'static str> {
    if is_broken(error) {
        return Some("the connection broke; the call may have taken effect");
    }
    if has_outdated_plan(error) {
        return Some("the schema was changed just now");
    }
    let code = code(error)?;
    Some(match code {
        "25006" => "the server accepts no writes; it is a standby or in read-only mode",
        "28000" | "28P01" => "the server does not accept the user or the password",
        "40001" | "40P01" => "concurrent transactions conflicted",
        "42501" => "the user lacks a permission",
        "53100" => "the server's disk is full",
        "53300" => "the server has too many connections",
        "55P03" => "a lock was not released in time",
        "57014" => "the statement was canceled, by its time limit or by an operator",
        "57P01" | "57P02" | "57P03" => "the server is starting or shutting down",
        "57P05" => "the server closed an idle connection",
        _ if code.starts_with("08") => "the connection broke; the call may have taken effect",
        _ if code.starts_with("53") => "the server lacks resources",
        _ if code.starts_with("58") => "the server cannot access its files",
        _ => return None,
    })
}

/// The error of a server to which no connection can be made. Permanent if the user, the password, the database or the
/// certificate has to change.
pub(crate) fn refused(server: &str, error: &Error) -> OpenError {
    let text = describe(error);
    // The driver reports an invalid certificate as a failed handshake.
    let certificate = text.contains("certificate") || text.contains("server does not support TLS");
    let text = match reason(error) {
        _ if certificate => return OpenError::Refused(format!("{server}: {text}")),
        Some(_) if is_broken(error) => format!("{server}: the server cannot be reached ({text})"),
        Some(why) => format!("{server}: {why} ({text})"),
        None => format!("{server}: {text}"),
    };
    match code(error) {
        // Invalid user or password, no such database, no permission.
        Some("28000" | "28P01" | "3D000" | "42501") => OpenError::Refused(text),
        None if !is_broken(error) => OpenError::Refused(text),
        _ => OpenError::Unavailable(text),
    }
}

/// The error of a store that cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The server cannot be used now: unreachable, starting, or a standby. Opening may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// The address, the user, the options or the server's settings have to change.
    #[error("{0}")]
    Refused(String),
    /// The schema was made by a later version of this crate.
    #[error("{server}: unsupported schema version {found}: expected at most {known}; use a newer program")]
    Newer {
        /// The server's address.
        server: String,
        /// The version found.
        found: u32,
        /// The latest version that this program reads.
        known: u32,
    },
}

impl OpenError {
    /// Whether opening with the same options may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unavailable(why) => Self::Unavailable(why),
            other => Self::Backend { source: other.into() },
        }
    }
}
