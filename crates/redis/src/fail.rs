//! What can go wrong, and which of the contract's errors it is.

use async_endpoints_core::StoreError;
use redis::{ErrorKind, RedisError};

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) enum Fail {
    /// The server or the driver said so.
    Redis(RedisError),
    /// There is no connection.
    Down(String),
    /// An answer or a stored value that cannot be read.
    Bad(String),
}

impl From<RedisError> for Fail {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl Fail {
    /// The contract's error, with the server's address.
    pub(crate) fn into_error(self, server: &str) -> StoreError {
        match self {
            Self::Down(why) => StoreError::Unavailable(format!("{server}: {why}")),
            Self::Bad(why) => StoreError::Corrupt(format!("{server}: {why}")),
            Self::Redis(error) => match reason(&error) {
                Some(why) => StoreError::Unavailable(format!("{server}: {why} ({error})")),
                None if is_about_data(&error) => StoreError::Corrupt(format!("{server}: {error}")),
                None => StoreError::Backend { source: error.into() },
            },
        }
    }

    /// Whether another connection may do better: this one is broken, or leads to the wrong server.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_io_error()
                    || error.is_unrecoverable_error()
                    || matches!(error.code(), Some("READONLY" | "NOAUTH" | "UNBLOCKED"))
            }
            Self::Down(_) | Self::Bad(_) => false,
        }
    }
}

/// A script came upon something that it does not expect: a key of another type, a field that is no number.
fn is_about_data(error: &RedisError) -> bool {
    match error.code() {
        Some("WRONGTYPE" | "CORRUPT") => true,
        Some("ERR") => error.detail().is_some_and(|detail| detail.contains("user_script:") && !is_killed(detail)),
        _ => false,
    }
}

fn is_killed(detail: &str) -> bool {
    detail.contains("Script killed")
}

/// What waiting, or an operator, may mend.
pub(crate) fn reason(error: &RedisError) -> Option<&'static str> {
    if error.is_timeout() {
        return Some("it did not answer in time; the call may have happened");
    }
    if error.is_io_error() {
        return Some("the connection broke; the call may have happened");
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Some("it does not accept the user or the password");
    }
    Some(match error.code()? {
        "LOADING" => "it is loading its data",
        "READONLY" => "it is a replica, and read-only",
        "OOM" => "it has no memory left",
        "MISCONF" => "it cannot write to its disk",
        "BUSY" => "it is busy with somebody's script",
        "MASTERDOWN" => "it is a replica that lost its primary",
        "MOVED" | "ASK" => "it is a node of a cluster that has not these keys: name the node that has",
        "CLUSTERDOWN" | "TRYAGAIN" => "its cluster is not ready",
        "NOREPLICAS" => "it has too few replicas to accept writes",
        "NOAUTH" | "WRONGPASS" => "it does not accept the user or the password",
        "NOPERM" => "its user may not do this",
        _ if error.detail().is_some_and(|detail| detail.contains("max number of clients")) => "it has too many clients",
        _ if error.detail().is_some_and(is_killed) => "somebody killed its script",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn what_passes_is_no_damage() {
        let error = |line: &str| {
            let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(Value::extract_error);
            Fail::from(answer.expect_err("an error")).into_error("redis")
        };
        for line in [
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "ERR Script killed by user with SCRIPT KILL... script: 5b3e, on @user_script:2.",
            "LOADING Redis is loading the dataset in memory",
        ] {
            assert!(error(line).is_transient(), "{line}: {}", error(line));
        }
        assert!(matches!(error("ERR user_script:7: attempt to index nil"), StoreError::Corrupt(_)));
        assert!(error("MOVED 3999 127.0.0.1:6381").to_string().contains("a node of a cluster"));
    }
}
