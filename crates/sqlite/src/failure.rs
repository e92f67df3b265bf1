//! Failures of a step, and the contract error that each becomes.

use std::path::Path;

use async_endpoints_core::StoreError;
use rusqlite::ErrorCode;

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// SQLite returned an error.
    Sql(rusqlite::Error),
    /// A row holds values that this store never writes. The rest of the file is usable.
    Unreadable(String),
    /// The file is damaged. The store stops.
    Corrupt(String),
    /// The call may succeed later.
    Unavailable(String),
    /// A step panicked, which is a bug in this crate.
    Panicked,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            None if is_conversion(&error) => Self::Unreadable(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

impl Failure {
    /// Converts to the contract's error and names the file.
    pub(crate) fn into_error(self, file: &Path) -> StoreError {
        let file = file.display();
        match self {
            Self::Unavailable(reason) => StoreError::Unavailable(format!("{file}: {reason}")),
            Self::Unreadable(reason) => StoreError::Unreadable(format!("{file}: {reason}")),
            Self::Corrupt(reason) => StoreError::Corrupt(format!(
                "{file} is damaged ({reason}): stop all its processes, then restore a backup or save the readable rows \
                 with `sqlite3 {file} .recover`"
            )),
            Self::Panicked => StoreError::Backend { source: "a step panicked".into() },
            Self::Sql(error) => match reason(&error) {
                Some(reason) => StoreError::Unavailable(format!("{file}: {reason} ({error})")),
                None => StoreError::Backend { source: error.into() },
            },
        }
    }

    /// The same failure for another call of the failed transaction.
    pub(crate) fn copy(&self) -> Self {
        match self {
            // An error that SQLite does not explain is not the fault of the other calls: they may try again.
            Self::Sql(error) => Self::Unavailable(match reason(error) {
                Some(reason) => format!("{reason} ({error})"),
                None => error.to_string(),
            }),
            Self::Unreadable(reason) => Self::Unreadable(reason.clone()),
            Self::Corrupt(reason) => Self::Corrupt(reason.clone()),
            Self::Unavailable(reason) => Self::Unavailable(reason.clone()),
            Self::Panicked => Self::Panicked,
        }
    }

    /// A job's row names a type that is not in table `types`.
    pub(crate) fn unknown_type(type_id: i64) -> Self {
        Self::Unreadable(format!("unknown type_id {type_id}: expected a row of table types"))
    }

    /// An index names a job whose row is missing or has other values, as after a lost write.
    pub(crate) fn index_mismatch(seq: i64) -> Self {
        Self::Corrupt(format!("an index and table jobs differ in the job of seq {seq}"))
    }

    /// Whether another process holds the lock.
    pub(crate) fn is_busy(&self) -> bool {
        let code = if let Self::Sql(error) = self { error.sqlite_error_code() } else { None };
        matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }
}

/// Whether a column holds a value of another type than this store writes.
fn is_conversion(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) | E::Utf8Error(..)
    )
}

/// Explains errors that pass with time, or once an operator frees space.
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
