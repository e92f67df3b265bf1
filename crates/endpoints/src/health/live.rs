//! Liveness: whether the runtime still runs tasks and the worker's thread its loop. Without I/O.

use std::time::Duration;

use super::{
    check::CheckResult,
    report::{CheckReport, HealthReport},
};
use crate::vitals::Pulse;

/// Interval of the runtime's ticks. The worker's thread ticks at least four times a second.
const INTERVAL: Duration = Duration::from_secs(1);
/// Silence from which on a part counts as wedged. A restart is the only help then, so the limit is generous.
const WEDGED: Duration = Duration::from_secs(30);

/// Ticks on the current runtime, without an end.
pub(super) async fn tick(pulse: &Pulse) {
    loop {
        pulse.tick();
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The report on parts by name, with the time since the last tick of each. Parts that never ticked are alive.
pub(super) fn report(parts: [(&'static str, Option<Duration>); 2]) -> HealthReport {
    HealthReport::of(parts.map(|(name, silence)| check(name, silence)).into())
}

fn check(name: &'static str, silence: Option<Duration>) -> CheckReport {
    let result = match silence.filter(|silence| *silence > WEDGED) {
        Some(silence) => CheckResult::unhealthy(format!("no tick for {:.1} s", silence.as_secs_f64())),
        None => CheckResult::healthy(),
    };
    CheckReport::new(name.into(), Vec::new(), Duration::ZERO, result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthStatus;

    #[test]
    fn part_is_wedged_after_30_s() {
        let status = |runtime: Option<Duration>, worker: Option<Duration>| {
            report([("runtime", runtime), ("worker", worker)]).status
        };
        let late = WEDGED + Duration::from_millis(1);
        assert_eq!(status(None, None), HealthStatus::Healthy);
        assert_eq!(status(Some(WEDGED), Some(WEDGED)), HealthStatus::Healthy);
        assert_eq!(status(Some(late), None), HealthStatus::Unhealthy);
        assert_eq!(status(None, Some(late)), HealthStatus::Unhealthy);
    }

    #[tokio::test(start_paused = true)]
    async fn ticking_runtime_is_alive() {
        let pulse = Pulse::default();
        tokio::time::timeout(Duration::from_secs(3600), tick(&pulse)).await.expect_err("ticks without an end");
        assert!(pulse.silence().is_some_and(|silence| silence < WEDGED));
    }
}
