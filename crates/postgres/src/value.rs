//! Values of rows: how each type is stored in a column, and a reader of columns in order. Must not know tables.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, Priority, StoreError, Timestamp,
    job::{Digest, ErrorRecord, WorkerId},
    store::{ReportedProgress, Result},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

/// Larger than any duration of use, and small enough that sums of times do not overflow.
const LONGEST: i64 = 1 << 60;

/// Microseconds, as tables store a duration.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}

/// A text that the server accepts: it has no NUL characters.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// The error does not quote the JSON, as serde's would: it is logged.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("invalid JSON at byte {}", error.column()))
}

/// Progress as a column stores it: its time has a column of its own, since the server's clock decides.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredProgress {
    pub(crate) completed: u64,
    pub(crate) total: Option<u64>,
    pub(crate) percent: Option<f64>,
    pub(crate) message: Option<String>,
}

pub(crate) fn progress_json(progress: &ReportedProgress) -> Result<String> {
    let ReportedProgress { completed, total, percent, message } = progress.clone();
    json(&StoredProgress { completed, total, percent, message })
}

/// Reads the columns of a row one after another.
pub(crate) struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

pub(crate) type Read<T> = std::result::Result<T, String>;

impl<'r> Columns<'r> {
    pub(crate) const fn new(row: &'r Row) -> Self {
        Self { row, next: 0 }
    }

    pub(crate) fn read<T: FromSql<'r>>(&mut self) -> Read<T> {
        self.next += 1;
        self.row.try_get(self.next - 1).map_err(|error| error.to_string())
    }

    pub(crate) fn time(&mut self) -> Read<Timestamp> {
        self.read().map(Timestamp::from_micros)
    }

    pub(crate) fn maybe_time(&mut self) -> Read<Option<Timestamp>> {
        Ok(self.read::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    pub(crate) fn number(&mut self) -> Read<u32> {
        let number: i32 = self.read()?;
        u32::try_from(number).map_err(|_| format!("negative number {number}"))
    }

    pub(crate) fn large(&mut self) -> Read<u64> {
        let number: i64 = self.read()?;
        u64::try_from(number).map_err(|_| format!("negative number {number}"))
    }

    pub(crate) fn job(&mut self) -> Read<JobId> {
        self.read().map(JobId)
    }

    pub(crate) fn maybe_job(&mut self) -> Read<Option<JobId>> {
        Ok(self.read::<Option<Uuid>>()?.map(JobId))
    }

    pub(crate) fn maybe_worker(&mut self) -> Read<Option<WorkerId>> {
        Ok(self.read::<Option<Uuid>>()?.map(WorkerId))
    }

    pub(crate) fn maybe_digest(&mut self) -> Read<Option<Digest>> {
        let Some(bytes) = self.read::<Option<&[u8]>>()? else { return Ok(None) };
        bytes.try_into().map(|bytes| Some(Digest(bytes))).map_err(|_| format!("a digest of {} bytes", bytes.len()))
    }

    pub(crate) fn priority(&mut self) -> Read<Priority> {
        let number: i16 = self.read()?;
        u8::try_from(number)
            .ok()
            .and_then(|number| Priority::try_from(number).ok())
            .ok_or_else(|| format!("priority {number}"))
    }

    pub(crate) fn status(&mut self) -> Read<JobStatus> {
        let number: Option<i16> = self.read()?;
        number.map_or_else(|| Err("the job has no state".to_owned()), status)
    }

    pub(crate) fn maybe_error(&mut self) -> Read<Option<ErrorRecord>> {
        self.read::<Option<&str>>()?.map(from_json).transpose()
    }
}

pub(crate) fn status(number: i16) -> Read<JobStatus> {
    let known = usize::try_from(number).ok().and_then(|at| JobStatus::ALL.get(at)).copied();
    known.ok_or_else(|| format!("unknown status {number}"))
}

/// A row of an answer that this program's functions return: another shape is the fault of the schema, not of a job.
pub(crate) fn answer<T>(read: Read<T>) -> Result<T> {
    read.map_err(|reason| StoreError::Corrupt(format!("unexpected answer of the server: {reason}")))
}
