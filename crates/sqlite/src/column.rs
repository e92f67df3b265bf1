//! Values of a job's row: how each type is stored in a column. Must not know which columns there are.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, Priority, Timestamp,
    job::{Digest, ErrorRecord, Progress, TraceParent},
    store::{LeaseToken, WorkerId},
};
use rusqlite::{
    CachedStatement, Row,
    types::{FromSql, Null, ToSqlOutput, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::failure::Failure;

/// A type that is stored in one column.
pub(crate) trait Column: Sized {
    /// Decodes a value, or says why the value is unreadable.
    fn read(value: ValueRef<'_>) -> Result<Self, String>;
    fn write(&self) -> Result<ToSqlOutput<'_>, Failure>;
}

/// Reads the columns of a row one after another.
pub(crate) struct Columns<'r> {
    pub(crate) row: &'r Row<'r>,
    pub(crate) next: usize,
}

impl Columns<'_> {
    pub(crate) fn read<T: Column>(&mut self) -> Result<T, String> {
        self.next += 1;
        T::read(self.row.get_ref(self.next - 1).map_err(|error| error.to_string())?)
    }
}

/// Binds the parameters of a statement one after another.
pub(crate) struct Parameters<'c> {
    pub(crate) statement: CachedStatement<'c>,
    pub(crate) bound: usize,
}

impl Parameters<'_> {
    pub(crate) fn bind(&mut self, value: &impl Column) -> Result<(), Failure> {
        self.bound += 1;
        Ok(self.statement.raw_bind_parameter(self.bound, value.write()?)?)
    }
}

fn read<T: FromSql>(value: ValueRef<'_>) -> Result<T, String> {
    T::column_result(value).map_err(|error| error.to_string())
}

/// Microseconds, as the file stores a duration.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Unreadable(error.to_string()))
}

/// The error does not quote the JSON, as serde's would: it is logged.
pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("invalid JSON at byte {}", error.column()))
}

/// Implements [`Column`] for a type by way of a type that SQLite knows.
macro_rules! column {
    ($type:ty, |$stored:ident: $sql:ty| $read:expr, |$value:ident| $write:expr) => {
        impl Column for $type {
            fn read(value: ValueRef<'_>) -> Result<Self, String> {
                let $stored: $sql = read(value)?;
                $read
            }

            fn write(&self) -> Result<ToSqlOutput<'_>, Failure> {
                let $value = self;
                Ok(ToSqlOutput::from($write))
            }
        }
    };
}

column!(bool, |stored: bool| Ok(stored), |value| *value);
column!(i64, |stored: i64| Ok(stored), |value| *value);
column!(u32, |stored: u32| Ok(stored), |value| *value);
column!(String, |stored: String| Ok(stored), |value| value.as_str());
column!(Timestamp, |stored: i64| Ok(Self::from_micros(stored)), |value| value.as_micros());
column!(Duration, |stored: i64| Ok(Self::from_micros(stored.max(0).unsigned_abs())), |value| micros(*value));
column!(Priority, |stored: u8| Self::try_from(stored).map_err(str::to_owned), |value| value.get());
column!(JobId, |stored: [u8; 16]| Ok(Self(Uuid::from_bytes(stored))), |value| value.0.as_bytes().as_slice());
column!(LeaseToken, |stored: [u8; 16]| Ok(Self(Uuid::from_bytes(stored))), |value| value.0.as_bytes().as_slice());
column!(WorkerId, |stored: [u8; 16]| Ok(Self(Uuid::from_bytes(stored))), |value| value.0.as_bytes().as_slice());
column!(TraceParent, |stored: String| stored.parse().map_err(|_| "invalid traceparent".to_owned()), |value| value
    .to_string());
column!(Digest, |stored: [u8; 32]| Ok(Self(stored)), |value| value.0.as_slice());
column!(ErrorRecord, |stored: String| from_json(stored.as_bytes()), |value| json(value)?);
column!(Progress, |stored: String| from_json(stored.as_bytes()), |value| json(value)?);
column!(
    JobStatus,
    |stored: i64| {
        let known = usize::try_from(stored).ok().and_then(|at| Self::ALL.get(at)).copied();
        known.ok_or_else(|| format!("unknown status {stored}"))
    },
    |value| *value as i64
);

impl<T: Column> Column for Option<T> {
    fn read(value: ValueRef<'_>) -> Result<Self, String> {
        if value == ValueRef::Null { Ok(None) } else { T::read(value).map(Some) }
    }

    fn write(&self) -> Result<ToSqlOutput<'_>, Failure> {
        self.as_ref().map_or(Ok(ToSqlOutput::from(Null)), T::write)
    }
}
