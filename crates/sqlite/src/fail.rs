//! What can go wrong, and which of the contract's errors it is.

use std::path::Path;

use async_endpoints_core::{JobStatus, StoreError};
use rusqlite::ErrorCode;

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Fail {
    /// SQLite said so.
    Sql(rusqlite::Error),
    /// A row holds what nobody wrote.
    Bad(String),
    /// Something is damaged that this job needs, which was in that state, if that could be read.
    Job { seq: i64, found: Option<JobStatus>, why: String },
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
            Self::Bad(why) | Self::Job { why, .. } => StoreError::Corrupt(format!("{}: {why}", file.display())),
            Self::Panicked => StoreError::Backend { source: "a step panicked".into() },
            Self::Sql(error) if is_damage(&error) => Self::Bad(error.to_string()).into_error(file),
            Self::Sql(error) => match reason(&error) {
                Some(why) => Self::Unavailable(format!("{why} ({error})")).into_error(file),
                None => StoreError::Backend { source: error.into() },
            },
        }
    }

    /// The same for each of those who shared what failed. What SQLite does not explain is not their calls' fault.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::Sql(error) if is_damage(error) => Self::Bad(error.to_string()),
            Self::Sql(error) => Self::Unavailable(match reason(error) {
                Some(why) => format!("{why} ({error})"),
                None => error.to_string(),
            }),
            Self::Bad(why) | Self::Job { why, .. } => Self::Bad(why.clone()),
            Self::Unavailable(why) => Self::Unavailable(why.clone()),
            Self::Panicked => Self::Panicked,
        }
    }

    /// A job says that it is of a type that is not there.
    pub(crate) fn no_type(kind: i64) -> Self {
        Self::Bad(format!("there is no type {kind}"))
    }

    /// Damage that was met while something was done to a job is that job's.
    pub(crate) fn of_job(self, seq: i64, found: Option<JobStatus>) -> Self {
        match self {
            Self::Sql(error) if is_damage(&error) => Self::Job { seq, found, why: error.to_string() },
            Self::Bad(why) => Self::Job { seq, found, why },
            other => other,
        }
    }

    /// Whether what is on the disk is not what was written there.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Sql(error) => is_damage(error),
            Self::Bad(_) | Self::Job { .. } => true,
            Self::Unavailable(_) | Self::Panicked => false,
        }
    }

    /// Whether another process had its turn.
    pub(crate) fn is_busy(&self) -> bool {
        let code = if let Self::Sql(error) = self { error.sqlite_error_code() } else { None };
        matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }
}

pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match error.sqlite_error_code() {
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
        None => matches!(
            error,
            E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..)
        ),
    }
}

/// What waiting, or somebody who frees some space, may mend.
fn reason(error: &rusqlite::Error) -> Option<&'static str> {
    Some(match error.sqlite_error_code()? {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            "another process keeps the file locked"
        }
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
