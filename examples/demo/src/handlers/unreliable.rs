//! `Unreliable`: fails a share of its attempts. Seed, job id and attempt decide which ones.

use async_endpoints::{JobContext, JobError, JobHandler, JobType};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{now, number_within};
use crate::ledger::Ledger;

pub(crate) const UNRELIABLE: JobType<UnreliableRequest, UnreliableResult> =
    JobType::new("Unreliable").error_codes(&["UNRELIABLE"]);

#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnreliableRequest {
    /// Share of attempts that fail: 0 to 1.
    #[serde(deserialize_with = "failure_rate")]
    #[schema(minimum = 0, maximum = 1, example = 0.2)]
    failure_rate: f64,
    /// Selects the attempts that fail.
    #[serde(default, deserialize_with = "seed")]
    #[schema(minimum = -9007199254740991i64, maximum = 9007199254740991i64, example = 7)]
    seed: i64,
}

fn failure_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number_within(deserializer, &(0.0..=1.0))
}

/// Integers that JSON numbers represent exactly.
fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let largest = (1 << 53) - 1;
    number_within(deserializer, &(-largest..=largest))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnreliableResult {
    /// Number of the successful attempt.
    attempt: u32,
    processed_at: String,
}

/// The handler.
pub(crate) struct Unreliable(pub(crate) Ledger);

impl JobHandler<UnreliableRequest, UnreliableResult> for Unreliable {
    async fn run(&self, ctx: JobContext<UnreliableRequest>) -> Result<UnreliableResult, JobError> {
        let attempt = ctx.attempt();
        let _running = self.0.enter(ctx.job_id(), attempt);
        if fails(ctx.request(), &ctx.job_id().to_string(), attempt) {
            return Err(JobError::retryable("UNRELIABLE", format!("Attempt {attempt} was selected to fail.")));
        }
        Ok(UnreliableResult { attempt, processed_at: now() })
    }
}

fn fails(request: &UnreliableRequest, job: &str, attempt: u32) -> bool {
    let UnreliableRequest { failure_rate, seed } = request;
    share(&[&seed.to_le_bytes(), job.as_bytes(), &attempt.to_le_bytes()]) < *failure_rate
}

/// Maps bytes to a number in [0, 1): FNV-1a with a final mix of the high bits. Not a hash of the standard library, which may
/// change with the version of Rust.
fn share(parts: &[&[u8]]) -> f64 {
    let bytes = parts.iter().copied().flatten();
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    // A double holds 53 bits exactly.
    ((mixed ^ (mixed >> 33)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(rate: f64, seed: i64) -> Vec<bool> {
        let request = UnreliableRequest { failure_rate: rate, seed };
        (0..10_000).map(|n| fails(&request, &format!("job-{}", n / 4), n % 4 + 1)).collect()
    }

    #[test]
    fn share_of_failures_matches_the_rate() {
        for rate in [0.0, 0.1, 0.5, 0.9, 1.0] {
            let found = failures(rate, 7).iter().filter(|failed| **failed).count() as f64 / 10_000.0;
            assert!((found - rate).abs() < 0.02, "{found} for {rate}");
        }
        assert!(failures(0.0, 1).iter().all(|failed| !failed) && failures(1.0, 1).iter().all(|failed| *failed));
    }

    #[test]
    fn failures_depend_on_the_seed() {
        assert_eq!(failures(0.5, 1), failures(0.5, 1));
        assert_ne!(failures(0.5, 1), failures(0.5, 2));
        // Fixed values, so that every compiler and machine fails the same attempts.
        let found: String = failures(0.5, 42)[..24].iter().map(|failed| if *failed { 'x' } else { '.' }).collect();
        assert_eq!(found, ".xx.xxxx...xx...x...x..x");
    }

    #[test]
    fn rate_out_of_range_is_rejected() {
        for rate in [-0.1, 1.1] {
            let request = serde_json::json!({ "failureRate": rate });
            let error = serde_json::from_value::<UnreliableRequest>(request).unwrap_err();
            assert!(error.to_string().contains("expected 0 to 1"), "{error}");
        }
    }
}
