//! Bulk operations: cancel or retry all jobs that match a filter. Must not know HTTP.
//!
//! A preview freezes the members: the jobs that match at that moment. One process runs a started operation, in chunks, and
//! stores counts and position after each. Another process continues it if that one dies.
//!
//! | file | contents |
//! |---|---|
//! | `operation` | the state machine of an operation, pure |
//! | `members` | reads the members from the store's list |
//! | `document` | the stored operations |
//! | `commands` | preview, start, stop, and what operators see |
//! | `runner` | runs operations, one process at a time |

mod commands;
mod document;
mod members;
mod operation;
mod runner;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, JobStatus, Store, StoreError, Timestamp,
    job::Digest,
    store::{ListFilter, WorkerId},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::text::shortened;

use self::members::MemberFilter;
pub(crate) use self::operation::Acted;
use crate::json::object;

/// What a bulk operation does with each job.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BulkAction {
    /// Cancels waiting and running jobs.
    Cancel,
    /// Makes a new job from each failed or canceled one that was not retried before.
    Retry,
}

/// Which jobs a bulk operation acts on: those that its action can change. A job must match all filters that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BulkFilter {
    /// Only jobs in this state.
    pub status: Option<JobStatus>,
    /// Only jobs of this type.
    pub name: Option<JobName>,
    /// Only jobs whose error has this code.
    pub code: Option<String>,
    /// Only jobs of this owner: the SHA-256 of its name, as in the job document.
    pub owner: Option<String>,
    /// Only jobs with this text in their id, error or progress message.
    #[serde(rename = "q")]
    pub text: Option<String>,
    /// Only jobs accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Only jobs accepted before this time.
    pub until: Option<Timestamp>,
    /// Only jobs that ended at this time or later.
    // Left out if it is not set, so that older processes can read stored operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_since: Option<Timestamp>,
}

/// A bulk operation to preview.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBulk {
    /// What it does.
    pub action: BulkAction,
    /// With which jobs.
    #[serde(deserialize_with = "object")]
    pub filter: BulkFilter,
}

/// The members that a bulk operation would have. They are the jobs that match at the time of the preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BulkPreview {
    /// The id of the preview, and of the operation if it is started.
    pub id: Uuid,
    /// What the operation would do.
    pub action: BulkAction,
    /// Number of members that were counted.
    pub count: u64,
    /// Whether all members were counted. The operation acts on all members in any case.
    pub complete: bool,
    /// Some of the members, at most 10.
    pub sample: Vec<JobId>,
}

/// The state of a bulk operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub enum BulkStatus {
    /// It acts on its members.
    Running,
    /// An operator stopped it, and its process has not yet noticed.
    Stopping,
    /// It was stopped before it had acted on all members.
    Stopped,
    /// It has acted on all members.
    Completed,
}

/// A started bulk operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BulkOperation {
    /// Its id.
    pub id: Uuid,
    /// What it does.
    pub action: BulkAction,
    /// With which jobs.
    pub filter: BulkFilter,
    /// Its state.
    pub status: BulkStatus,
    /// Number of members. `None` until the end if the preview could not count them all.
    pub total: Option<u64>,
    /// Jobs that it canceled, running jobs whose cancellation it requested, or jobs that it retried.
    pub changed: u64,
    /// Members that had nothing to change when their turn came: they had ended, were retried before, or left the state.
    pub skipped: u64,
    /// Members whose stored record cannot be read.
    pub failed: u64,
    /// When it was started, by the clock of that process.
    pub started_at: Timestamp,
    /// When it ended, by the clock of the process that ran it.
    pub ended_at: Option<Timestamp>,
}

/// A bulk operation was not previewed, started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// A field is invalid.
    #[error("invalid {field} {value:?}: expected {expected}")]
    Field {
        /// The field's name in JSON.
        field: &'static str,
        /// The invalid value.
        value: String,
        /// A description of valid values.
        expected: &'static str,
    },
    /// There is no preview or operation with this id. The last 50 ended operations are kept.
    #[error("there is no such preview or operation")]
    NotFound,
    /// The preview was removed, because 20 later ones were made.
    #[error("the preview has expired, because 20 later ones were made: make a new one")]
    Expired,
    /// The id is that of a preview.
    #[error("the operation was not started: it is a preview")]
    NotStarted,
    /// Ten operations wait or run.
    #[error("ten operations wait or run: stop one, or wait until one has ended")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Acts on a job, if it has the state that the filter asks for.
pub(crate) type Act =
    Box<dyn Fn(BulkAction, Option<JobStatus>, JobId) -> BoxFuture<'static, Result<Acted, StoreError>> + Send + Sync>;

/// The bulk operations of the fleet, as this process handles them.
pub(crate) struct Bulk {
    store: Arc<dyn Store>,
    /// Id of this process.
    id: WorkerId,
    lease: Duration,
    /// Whether this process has the role of the runner, as far as it knows.
    holds_role: AtomicBool,
    /// Wakes the runner of this process for a new operation.
    started: tokio::sync::Notify,
}

impl Bulk {
    pub(crate) fn new(store: Arc<dyn Store>, id: WorkerId, lease: Duration) -> Arc<Self> {
        Arc::new(Self { store, id, lease, holds_role: AtomicBool::new(false), started: tokio::sync::Notify::default() })
    }
}

impl BulkFilter {
    /// The filter of the members, if it fits the action.
    fn checked(&self, action: BulkAction) -> Result<MemberFilter, BulkError> {
        use JobStatus::{Canceled, Failed, InProgress, Queued, Scheduled};
        let (has_effect, expected) = match (action, self.status) {
            (BulkAction::Cancel, status) => (
                matches!(status, None | Some(Queued | Scheduled | InProgress)),
                "Queued, Scheduled or InProgress to cancel",
            ),
            (BulkAction::Retry, status) => {
                (matches!(status, None | Some(Failed | Canceled)), "Failed or Canceled to retry")
            }
        };
        let invalid = |field, value: &str, expected| Err(BulkError::Field { field, value: shortened(value), expected });
        if let Some(status) = self.status.filter(|_| !has_effect) {
            return invalid("status", status.as_str(), expected);
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return invalid("since", &since.to_string(), "a time that is not after until");
        }
        if let Some(ended_since) = self.ended_since.filter(|_| action == BulkAction::Cancel) {
            return invalid("endedSince", &ended_since.to_string(), "no value: the action cancel takes no ended jobs");
        }
        for (field, value) in [("code", &self.code), ("q", &self.text)] {
            if let Some(value) = value.as_ref().filter(|value| value.is_empty() || value.len() > TEXT_BYTES) {
                return invalid(field, value, "a text of 1 to 200 bytes");
            }
        }
        let owner = self.owner.as_deref().map(|owner| Digest::from_hex(owner).ok_or(owner));
        let owner = match owner.transpose() {
            Ok(owner) => owner,
            Err(owner) => return invalid("owner", owner, "64 hexadecimal digits, as in the owner of a job"),
        };
        let Self { status, name, code, text, since, until, ended_since, owner: _ } = self.clone();
        Ok(MemberFilter { action, list: ListFilter { status, name, owner, code, since, until, text }, ended_since })
    }
}

/// Maximum bytes of an error code and of a text.
const TEXT_BYTES: usize = 200;

#[cfg(test)]
mod tests;
