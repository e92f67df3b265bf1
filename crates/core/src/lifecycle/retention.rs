//! How long an ended job and what is left of it are kept.

use std::time::Duration;

use crate::{limits::KEY_SECONDS, time::Timestamp};

/// Until when an ended job can be read; none for a job that has not ended.
pub fn expires_at(ended_at: Option<Timestamp>, retention: Duration) -> Option<Timestamp> {
    ended_at.map(|ended_at| ended_at + retention)
}

/// Until when an expired job answers `Gone`.
pub fn gone_until(ended_at: Option<Timestamp>, retention: Duration) -> Option<Timestamp> {
    expires_at(ended_at, retention).map(|expires_at| expires_at + retention)
}

/// When the tombstone of a job may be forgotten. A job that may be submitted again, by its key or its id, is remembered for
/// at least [`KEY_SECONDS`] after its acceptance.
pub fn forget_at(created_at: Timestamp, gone_until: Timestamp, repeatable: bool) -> Timestamp {
    if repeatable { gone_until.max(created_at + Duration::from_secs(KEY_SECONDS)) } else { gone_until }
}
