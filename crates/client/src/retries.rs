//! How long a failed request is repeated, and the pauses in between.

use std::time::Duration;

use tokio::time::Instant;

/// How long a failed request is repeated.
///
/// The pauses double from `first_delay` to `max_delay`. Each is shortened by a random part of at most a half, so that many
/// clients do not repeat at the same time. A pause is never shorter than the service's `Retry-After`.
///
/// ```
/// # use std::time::Duration;
/// # use async_endpoints_client::Retries;
/// let impatient = Retries { give_up_after: Duration::from_secs(5), ..Retries::default() };
/// # assert_eq!(impatient.first_delay, Duration::from_millis(250));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The first pause. Defaults to 250 ms.
    pub first_delay: Duration,
    /// The longest pause without `Retry-After`. Defaults to 10 s.
    pub max_delay: Duration,
    /// No repeat is sent later than this after the first failure. Defaults to 30 s. Zero means no repeats.
    pub give_up_after: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(10),
            give_up_after: Duration::from_secs(30),
        }
    }
}

/// The repeats of one request.
pub(crate) struct Backoff {
    retries: Retries,
    first_failure: Option<Instant>,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(retries: Retries) -> Self {
        Self { retries, first_failure: None, failures: 0 }
    }

    /// Requests sent, once the present one has failed.
    pub(crate) fn requests(&self) -> u32 {
        self.failures
    }

    /// Counts a failure. Returns the pause before the next request, or `None` if there is to be none.
    pub(crate) fn fail(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        let Retries { first_delay, max_delay, give_up_after } = self.retries;
        let doubled = first_delay.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures += 1;
        let pause = jittered(doubled.min(max_delay)).max(retry_after.unwrap_or_default());
        let since = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        (since + pause <= give_up_after && !give_up_after.is_zero()).then_some(pause)
    }
}

/// Shortens a pause by a random part of at most a half.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Retries::default());
        let pauses = std::iter::from_fn(|| backoff.fail(None)).take(8).map(|pause| pause.as_secs_f64());
        for (pause, longest) in pauses.zip([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
            assert!((longest / 2.0..=longest).contains(&pause), "{pause} of {longest}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_is_repeated_after_the_limit() {
        let mut backoff = Backoff::new(Retries { give_up_after: 3 * SECOND, ..Retries::default() });
        assert!(backoff.fail(None).is_some());
        tokio::time::advance(3 * SECOND).await;
        assert_eq!(backoff.fail(None), None);
        assert_eq!(backoff.requests(), 2);
        let none = Retries { first_delay: Duration::ZERO, give_up_after: Duration::ZERO, ..Retries::default() };
        assert_eq!(Backoff::new(none).fail(None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pause_is_at_least_retry_after() {
        let mut backoff = Backoff::new(Retries::default());
        assert_eq!(backoff.fail(Some(7 * SECOND)), Some(7 * SECOND));
        assert_eq!(backoff.fail(Some(31 * SECOND)), None, "the next request would be too late");
    }
}
