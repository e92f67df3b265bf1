//! Bounds that keep store calls short and stored jobs small.
//!
//! Callers keep to them, and stores may rely on that. A store never returns more.

/// Maximum number of jobs in one `claim` or `settle`.
pub const BATCH_JOBS: usize = 64;
/// Maximum bytes of payloads, results and log lines in one `claim`, `report` or `settle`; a larger item is sent alone.
pub const BATCH_BYTES: usize = 4 << 20;
/// Maximum number of leases in one `renew`.
pub const RENEW_LEASES: usize = 256;
/// Maximum number of jobs in one `reclaim` or `prune`, and of due jobs promoted by one `claim`.
pub const SWEEP_JOBS: u32 = 100;
/// Maximum number of jobs in one page of `list`.
pub const PAGE_JOBS: u32 = 200;
/// Number of attempts kept with a job, the running one included.
pub const ATTEMPTS_KEPT: usize = 20;
/// `JobView::ahead` is exact up to this number and may stop there. The answer to an insert may reuse a count that stopped there for
/// 100 ms.
pub const AHEAD_COUNTED: u64 = 1_000;
/// Maximum number of log lines that a worker stores for one attempt.
pub const LOG_LINES_PER_ATTEMPT: usize = 1_000;
/// Maximum bytes of log lines that a worker stores for one attempt.
pub const LOG_BYTES_PER_ATTEMPT: usize = 256 << 10;
/// Maximum bytes of log lines kept with a job. Beyond it, the oldest attempt's lines are deleted.
pub const LOG_BYTES_PER_JOB: usize = 1 << 20;
/// Maximum number of sources kept with an error.
pub const ERROR_SOURCES: usize = 16;
/// Maximum bytes of all sources of an error together.
pub const ERROR_SOURCE_BYTES: usize = 4 << 10;
/// Minutes for which a minute bucket is kept.
pub const STATS_MINUTES: i64 = 360;
/// Minimum seconds for which a store recognizes a repeated submission by its key or by an id that its submitter chose,
/// however short the job's retention.
pub const KEY_SECONDS: u64 = 24 * 60 * 60;
