//! What can go wrong, and which of the contract's errors it is.

use std::path::Path;

use async_endpoints_core::StoreError;
use rusqlite::ErrorCode;

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Fail {
    /// SQLite said so.
    Sql(rusqlite::Error),
    /// A row holds what nobody wrote.
    Bad(String),
    /// Not now.
    Unavailable(String),
    /// A step panicked: a bug of ours.
    Panicked,
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fail {
    /// The contract's error, with the name of the file.
    pub(crate) fn into_error(self, file: &Path) -> StoreError {
        match self {
            Self::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", file.display())),
            Self::Bad(why) => StoreError::Corrupt(format!("{}: {why}", file.display())),
            Self::Panicked => StoreError::Backend { source: "a step panicked".into() },
            Self::Sql(error) => from_sql(error, file),
        }
    }
}

fn from_sql(error: rusqlite::Error, file: &Path) -> StoreError {
    use rusqlite::Error as E;
    let Some(code) = error.sqlite_error_code() else {
        return match error {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..) => StoreError::Corrupt(format!("{}: {error}", file.display())),
            _ => StoreError::Backend { source: error.into() },
        };
    };
    match reason(code) {
        Some(why) => StoreError::Unavailable(format!("{}: {why} ({error})", file.display())),
        None if matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt(format!("{}: {error}", file.display()))
        }
        None => StoreError::Backend { source: error.into() },
    }
}

/// What waiting, or somebody who frees some space, may mend.
fn reason(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another process keeps the file locked",
        ErrorCode::SystemIoFailure => "reading or writing the file failed",
        ErrorCode::DiskFull => "the disk is full",
        ErrorCode::ReadOnly => "the file is read-only",
        ErrorCode::CannotOpen => "the file cannot be opened",
        ErrorCode::PermissionDenied => "the file may not be opened",
        ErrorCode::OutOfMemory => "memory ran out",
        ErrorCode::OperationInterrupted => "the call was interrupted",
        _ => return None,
    })
}
