//! The check `process_allocated_memory`: resident memory against a fixed limit and the limit of the system.

use async_endpoints_telemetry::process;
use async_trait::async_trait;

use super::check::{BoxError, CheckResult, HealthCheck};

/// Default of [`ProcessMemory::max_bytes`].
const MAX_BYTES: u64 = 500_000_000;
/// Percentage of the system's limit above which the process is degraded.
const LIMIT_PERCENT: u64 = 80;

/// The built-in check of this process's memory, to register with another limit under its name `process_allocated_memory`:
///
/// ```
/// # use async_endpoints::{AsyncEndpoints, MemoryStore, health::ProcessMemory};
/// let builder = AsyncEndpoints::builder(MemoryStore::new())
///     .health_check("process_allocated_memory", ProcessMemory { max_bytes: 2_000_000_000 });
/// ```
///
/// Degraded above `max_bytes`, or above 80 % of the limit that the cgroup or the machine sets. Healthy where the system does
/// not tell the memory of a process.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident memory above which the process is degraded. Defaults to 500 MB.
    pub max_bytes: u64,
}

impl Default for ProcessMemory {
    fn default() -> Self {
        Self { max_bytes: MAX_BYTES }
    }
}

#[async_trait]
impl HealthCheck for ProcessMemory {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        Ok(self.judge(process::resident_memory(), process::memory_limit()))
    }
}

impl ProcessMemory {
    fn judge(self, resident: Option<u64>, limit: Option<u64>) -> CheckResult {
        let mut reasons = Vec::new();
        let used = resident.unwrap_or(0);
        if used > self.max_bytes {
            reasons.push(format!("the process uses {used} bytes, more than {}", self.max_bytes));
        }
        if let Some(limit) = limit.filter(|limit| used.saturating_mul(100) > limit.saturating_mul(LIMIT_PERCENT)) {
            reasons.push(format!("the process uses {used} bytes, more than {LIMIT_PERCENT} % of its limit of {limit}"));
        }
        CheckResult::degraded_by(&reasons).with("resident_bytes", resident).with("limit_bytes", limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthStatus::{Degraded, Healthy};

    #[test]
    fn both_limits_degrade_the_process() {
        let status = |resident, limit| ProcessMemory::default().judge(resident, limit).status;
        assert_eq!(status(Some(MAX_BYTES), None), Healthy);
        assert_eq!(status(Some(MAX_BYTES + 1), None), Degraded);
        assert_eq!(status(Some(80), Some(100)), Healthy);
        assert_eq!(status(Some(81), Some(100)), Degraded);
        assert_eq!(status(None, None), Healthy);
    }
}
