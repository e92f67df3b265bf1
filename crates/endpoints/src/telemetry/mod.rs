//! Everything the library tells its operators. Must not know how jobs are decided; never panics, never blocks,
//! never fails a job.
#![allow(clippy::disallowed_macros, reason = "the one room that may write telemetry")]

pub(crate) mod events;
