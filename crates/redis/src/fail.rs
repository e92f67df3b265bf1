//! Errors of calls and of opening a store.

use async_endpoints_core::StoreError;
use redis::{ErrorKind, RedisError};

/// The error code of scripts for a job that they cannot decode.
const UNREADABLE: &str = "UNREADABLE";

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) enum Fail {
    /// An error of the server or the driver.
    Redis(RedisError),
    /// There is no connection.
    Disconnected(String),
    /// A stored job that cannot be decoded.
    Unreadable(String),
    /// An answer or another stored value that cannot be decoded.
    Corrupt(String),
}

impl From<RedisError> for Fail {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl Fail {
    /// An answer that the caller of a script does not know.
    pub(crate) fn unknown(answer: impl std::fmt::Debug) -> Self {
        Self::Corrupt(format!("unknown answer {answer:?}"))
    }

    /// Adds the script's name to an answer that cannot be decoded.
    pub(crate) fn in_script(self, name: &str) -> Self {
        match self {
            Self::Unreadable(why) => Self::Unreadable(format!("script {name}: {why}")),
            Self::Corrupt(why) => Self::Corrupt(format!("script {name}: {why}")),
            other => other,
        }
    }

    /// The contract's error, with the server's address.
    pub(crate) fn into_error(self, server: &str) -> StoreError {
        match self {
            // The reason of a failed attempt to connect names the server.
            Self::Disconnected(why) if why.starts_with(server) => StoreError::Unavailable(why),
            Self::Disconnected(why) => StoreError::Unavailable(format!("{server}: {why}")),
            Self::Unreadable(why) => StoreError::Unreadable(format!("{server}: {why}")),
            Self::Corrupt(why) => StoreError::Corrupt(format!("{server}: {why}")),
            Self::Redis(error) => match reason(&error) {
                Some(why) => StoreError::Unavailable(format!("{server}: {why} ({error})")),
                None if error.code() == Some(UNREADABLE) => StoreError::Unreadable(format!("{server}: {error}")),
                None if is_corrupt(&error) => StoreError::Corrupt(format!("{server}: {error}")),
                None => StoreError::Backend { source: error.into() },
            },
        }
    }

    /// Whether to reconnect: the connection is broken, or leads to a server that accepts no writes.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_io_error()
                    || error.is_unrecoverable_error()
                    || matches!(error.code(), Some("READONLY" | "NOAUTH" | "UNBLOCKED"))
            }
            Self::Disconnected(_) | Self::Unreadable(_) | Self::Corrupt(_) => false,
        }
    }
}

/// Whether a script failed over stored data: a key of another type, or a field that is no number.
fn is_corrupt(error: &RedisError) -> bool {
    match error.code() {
        Some("WRONGTYPE") => true,
        Some("ERR") => error.detail().is_some_and(|detail| detail.contains("user_script:") && !is_killed(detail)),
        _ => false,
    }
}

fn is_killed(detail: &str) -> bool {
    detail.contains("Script killed")
}

/// Whether the user lacks a permission, for the call or for a command in its script.
pub(crate) fn is_denied(error: &RedisError) -> bool {
    // Redis 7.0 reports the second case as `ERR`.
    let in_script = |detail: &str| detail.contains("user executing the script") || detail.contains("ACL failure");
    error.code() == Some("NOPERM") || error.detail().is_some_and(in_script)
}

/// The reason of an error that ends by itself or that an operator can remove. None for other errors.
pub(crate) fn reason(error: &RedisError) -> Option<&'static str> {
    if error.is_timeout() {
        return Some("no answer in time; the call may have taken effect");
    }
    if error.is_io_error() {
        return Some("the connection broke; the call may have taken effect");
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Some("the server does not accept the user or the password");
    }
    if is_denied(error) {
        return Some("the user lacks a permission");
    }
    Some(match error.code()? {
        "LOADING" => "the server is loading its data",
        "READONLY" => "the server is a read-only replica",
        "OOM" => "the server has no memory left",
        "MISCONF" => "the server cannot write to its disk",
        "BUSY" => "the server is busy with another script",
        "MASTERDOWN" => "the server is a replica that lost its primary",
        "MOVED" | "ASK" => "this cluster node does not have the keys; use the address of the node that has",
        "CLUSTERDOWN" | "TRYAGAIN" => "the cluster is not ready",
        "NOREPLICAS" => "the server has too few replicas to accept writes",
        "NOAUTH" | "WRONGPASS" => "the server does not accept the user or the password",
        _ if error.detail().is_some_and(|detail| detail.contains("max number of clients")) => {
            "the server has too many clients"
        }
        _ if error.detail().is_some_and(is_killed) => "an operator killed the script",
        _ => return None,
    })
}

/// The error of a store that cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The server cannot be used now: unreachable, loading its data, or a replica. Opening may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// The address, the user, the options or the server's settings have to change.
    #[error("{0}")]
    Refused(String),
    /// The data has the format of a later version of this crate.
    #[error("{server}: unsupported data format {found}: expected at most {known}; use a newer program")]
    Newer {
        /// The server's address.
        server: String,
        /// The format found.
        found: u64,
        /// The latest format that this program reads.
        known: u64,
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

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn server_errors_become_contract_errors() {
        let error = |line: &str| {
            let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(Value::extract_error);
            Fail::from(answer.expect_err("an error")).into_error("redis")
        };
        for line in [
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "ERR The user executing the script can't run this command or subcommand script: 5b3e, on @user_script:2.",
            "ERR Script killed by user with SCRIPT KILL... script: 5b3e, on @user_script:2.",
            "LOADING Redis is loading the dataset in memory",
        ] {
            assert!(error(line).is_transient(), "{line}: {}", error(line));
        }
        assert!(matches!(error("UNREADABLE job 7"), StoreError::Unreadable(_)));
        assert!(matches!(error("ERR user_script:7: attempt to index nil"), StoreError::Corrupt(_)));
        assert!(error("MOVED 3999 127.0.0.1:6381").to_string().contains("cluster node"));
    }
}
