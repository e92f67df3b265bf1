//! The bounds that keep every store call short, and stored jobs small.
//!
//! Callers of a store keep to them; a store may rely on that and must never return more.

/// Jobs in one `claim` or `settle` at most.
pub const BATCH_JOBS: usize = 64;
/// Bytes of payload or result in one `claim` or `settle`; a larger single item goes alone.
pub const BATCH_BYTES: usize = 4 << 20;
/// Leases in one `renew` at most.
pub const RENEW_LEASES: usize = 256;
/// Jobs in one `reclaim` or `prune`, and due jobs promoted by one `claim`, at most.
pub const SWEEP_JOBS: u32 = 100;
/// Jobs in one page of `list` at most.
pub const PAGE_JOBS: u32 = 200;
/// Attempts a job remembers, the current one included.
pub const ATTEMPTS_KEPT: usize = 20;
/// `JobView::ahead` is exact up to this and may stop there.
pub const AHEAD_COUNTED: u64 = 1_000;
/// Bytes of log a job keeps over all its attempts; beyond, the oldest attempt's lines go.
pub const LOG_BYTES_PER_JOB: usize = 1 << 20;
/// Minutes that a slot of counts is kept.
pub const STATS_MINUTES: i64 = 360;
/// Seconds that an idempotency record lives at least, however short the job's retention: a key, or an id that the
/// submitter chose.
pub const KEY_SECONDS: u64 = 24 * 60 * 60;
