//! The delay before a retry. Pure: randomness is passed in.

use std::time::Duration;

/// The delay before each retry. `Copy` and `const`, so that it can be part of a job type's constant.
///
/// ```
/// # use std::time::Duration;
/// # use async_endpoints_core::RetryPolicy;
/// const GENTLE: RetryPolicy = RetryPolicy::exponential(Duration::from_secs(10)).cap(Duration::from_secs(60));
/// assert_eq!(GENTLE.delay(1, 1.0), Duration::from_secs(10));
/// assert_eq!(GENTLE.delay(2, 0.0), Duration::from_secs(10)); // 20 s, jittered down to a half
/// assert_eq!(GENTLE.delay(9, 1.0), Duration::from_secs(60));
/// ```
#[derive(Copy, Clone, Debug)]
pub enum RetryPolicy {
    /// `min(cap, base × 2^(n−1))`, times a random share between `1 − jitter` and 1.
    Exponential {
        /// The delay before the first retry.
        base: Duration,
        /// The longest delay.
        cap: Duration,
        /// The random share, 0 (none) to 1 (full).
        jitter: f64,
    },
    /// A function from the number of the retry, from 1, to its delay. Without jitter.
    Custom(fn(u32) -> Duration),
}

impl RetryPolicy {
    /// Doubles from `base` up to an hour, with a jitter of 0.5.
    pub const fn exponential(base: Duration) -> Self {
        Self::Exponential { base, cap: Duration::from_secs(3600), jitter: 0.5 }
    }

    /// Sets the longest delay. Has no effect on a custom policy.
    #[must_use]
    pub const fn cap(self, cap: Duration) -> Self {
        match self {
            Self::Exponential { base, jitter, .. } => Self::Exponential { base, cap, jitter },
            Self::Custom(_) => self,
        }
    }

    /// Sets the jitter, 0 to 1. Has no effect on a custom policy.
    #[must_use]
    pub const fn jitter(self, jitter: f64) -> Self {
        match self {
            Self::Exponential { base, cap, .. } => Self::Exponential { base, cap, jitter: jitter.clamp(0.0, 1.0) },
            Self::Custom(_) => self,
        }
    }

    /// The delay before retry `n`, from 1. `random`, 0 to 1, selects a point in the jitter's range.
    pub fn delay(&self, n: u32, random: f64) -> Duration {
        match *self {
            Self::Exponential { base, cap, jitter } => {
                let doubled = 2_u32.checked_pow(n.saturating_sub(1)).map_or(cap, |f| base.saturating_mul(f));
                let whole = doubled.min(cap);
                let share = 1.0 - jitter * (1.0 - random.clamp(0.0, 1.0));
                Duration::try_from_secs_f64(whole.as_secs_f64() * share).unwrap_or(whole)
            }
            Self::Custom(delay) => delay(n),
        }
    }
}

impl Default for RetryPolicy {
    /// Exponential from two seconds.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jittered_delay_is_half_to_whole() {
        let policy = RetryPolicy::default();
        for n in 1..200 {
            let whole = 2_f64.powi(n).min(3600.0);
            let (least, most) = (policy.delay(n as u32, 0.0), policy.delay(n as u32, 1.0));
            assert!((least.as_secs_f64() - whole / 2.0).abs() < 1e-6, "{n}: {least:?}");
            assert!((most.as_secs_f64() - whole).abs() < 1e-6, "{n}: {most:?}");
        }
    }

    #[test]
    fn extreme_values_do_not_panic() {
        let long = RetryPolicy::exponential(Duration::MAX).cap(Duration::MAX).jitter(0.0);
        assert_eq!(long.delay(0, 0.0), Duration::MAX);
        assert_eq!(long.delay(u32::MAX, f64::NAN.max(2.0)), Duration::MAX);
        assert_eq!(RetryPolicy::Custom(|n| Duration::from_secs(n.into())).delay(7, 0.0).as_secs(), 7);
    }
}
