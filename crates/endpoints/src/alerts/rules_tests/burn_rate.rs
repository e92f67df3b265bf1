//! The burn rate on both sides of its limits, and with windows that are partly empty.

use std::sync::Arc;

use async_endpoints_core::{
    Timestamp,
    store::{MinuteStats, Stats},
};
use serde_json::json;

use super::{context, ended, input, of_type};
use crate::{
    JobType,
    alerts::{Reading, Rule, Severity, state::Input},
};

const A: JobType<(), ()> = JobType::new("A");
/// The beginning of a minute, so that a window of n minutes begins n minutes ago.
const MINUTE: i64 = 1_000;
/// Completed jobs outside of the windows of an hour, which lower the burn rate of six hours.
const EARLIER: (i64, u64, u64) = (100, 1_000_000, 0);

fn rule(objective: f64) -> Rule {
    Rule::burn_rate(A, objective).expect("a valid objective")
}

/// Reads the rule after jobs that completed and failed so many minutes ago.
async fn read(rule: &Rule, jobs: &[(i64, u64, u64)]) -> Reading {
    let minutes: Vec<MinuteStats> = jobs.iter().map(|(ago, ok, failed)| ended(MINUTE - ago, *ok, *failed)).collect();
    let mut context = context(of_type(), Vec::new(), Vec::new());
    context.stats = Arc::new(Stats { now: Timestamp::from_minute(MINUTE), minutes, ..Stats::default() });
    rule.rule.evaluate(&context).await.expect("a reading")
}

#[tokio::test]
async fn burn_rate_fires_above_the_limit_of_a_pair() {
    // The budget is 1 %: the limits are 14.4 % and 6 % failed jobs.
    let rule = rule(99.0);
    for (jobs, value, expected) in [
        // An hour and 5 minutes.
        (vec![(0, 856, 144), EARLIER], 1.0, Input::Clear),
        (vec![(0, 855, 145), EARLIER], 1.006_944_444, Input::Breach),
        (vec![(5, 855, 145), EARLIER], 1.006_944_444, Input::Breach),
        (vec![(60, 855, 145), (0, 0, 1), EARLIER], 1.012_876_013, Input::Breach),
        // Six hours and 30 minutes.
        (vec![(0, 940, 60)], 1.0, Input::Clear),
        (vec![(0, 939, 61)], 1.016_666_667, Input::Breach),
        (vec![(30, 939, 61)], 1.016_666_667, Input::Breach),
        (vec![(359, 1_000, 0), (0, 880, 120)], 1.0, Input::Clear),
        (vec![(360, 1_000, 0), (0, 880, 120)], 2.0, Input::Breach),
    ] {
        let reading = read(&rule, &jobs).await;
        assert_eq!((reading.value, input(&rule, &reading)), (Some(value), expected), "{jobs:?}");
    }
}

#[tokio::test]
async fn burn_rate_of_empty_windows_is_zero() {
    let rule = rule(99.0);
    for (jobs, value) in [
        (vec![], 0.0),
        (vec![EARLIER], 0.0),
        // The failures have ended: nothing ended in the short windows, or only completed jobs did.
        (vec![(31, 0, 1_000)], 0.0),
        (vec![(31, 0, 1_000), (0, 5, 0)], 0.0),
        // They are outside of the short window of the first pair and of the long window of the second one.
        (vec![(6, 0, 1_000), (359, 99_000, 0)], 0.166_666_667),
    ] {
        let reading = read(&rule, &jobs).await;
        assert_eq!((reading.value, input(&rule, &reading)), (Some(value), Input::Clear), "{jobs:?}");
    }
    let young = read(&rule, &[(4, 0, 20)]).await;
    assert_eq!(
        (young.value, input(&rule, &young)),
        (Some(16.666_666_667), Input::Breach),
        "long windows may be partly empty"
    );
}

#[tokio::test]
async fn burn_rate_of_few_jobs_does_not_count() {
    let rule = rule(99.0);
    for (jobs, value, count, expected) in [
        (vec![(0, 0, 19)], 6.944_444_444, 19, Input::Clear),
        (vec![(0, 0, 20)], 16.666_666_667, 20, Input::Breach),
        // Enough jobs in six hours alone, then in the hour as well.
        (vec![(0, 0, 19), (100, 1_000, 0)], 0.310_762_185, 1_019, Input::Clear),
        (vec![(0, 0, 20), (100, 1_000, 0)], 6.944_444_444, 20, Input::Breach),
    ] {
        let reading = read(&rule, &jobs).await;
        let actual = (reading.value, reading.count, input(&rule, &reading));
        assert_eq!(actual, (Some(value), Some(count), expected), "{jobs:?}");
    }
}

#[tokio::test]
async fn burn_rate_at_the_limit_is_exactly_one() {
    // 14.4 times the budget, as failed jobs of 100 000.
    for (objective, failed) in [(99.0, 14_400), (99.5, 7_200), (99.9, 1_440), (99.95, 720), (99.99, 144)] {
        let earlier = (100, 100_000_000, 0);
        let [at, above] = [failed, failed + 1].map(|failed| [(0, 100_000 - failed, failed), earlier]);
        assert_eq!(read(&rule(objective), &at).await.value, Some(1.0), "{objective} %");
        assert!(read(&rule(objective), &above).await.value > Some(1.0), "{objective} %");
    }
}

#[tokio::test]
async fn reading_names_type_windows_and_limit() {
    let reading = read(&rule(99.0), &[(0, 800, 200), EARLIER]).await;
    let message = "the burn rate of the error budget of A is 20.0 over 60 min and 20.0 over 5 min: the limit is 14.4 at an objective of 99 %";
    assert_eq!(reading.message, message);
    assert_eq!((&reading.details["job_type"], &reading.details["objective"]), (&json!("A"), &json!(99.0)));
    let first = json!({
        "long_seconds": 3600, "short_seconds": 300, "long_burn_rate": 20.0, "short_burn_rate": 20.0, "limit": 14.4, "ended": 1000,
    });
    assert_eq!(reading.details["windows"][0], first);
    assert_eq!(reading.details["windows"][1]["ended"], 1_001_000);
}

#[tokio::test]
async fn other_types_and_canceled_jobs_do_not_count() {
    let mut other = ended(MINUTE, 0, 1_000);
    other.name = async_endpoints_testkit::jobs::name("B");
    let canceled = MinuteStats { ended: [0, 0, 1_000], ..ended(MINUTE, 0, 0) };
    let mut context = context(of_type(), Vec::new(), Vec::new());
    let minutes = vec![other, canceled, ended(MINUTE, 1, 0)];
    context.stats = Arc::new(Stats { now: Timestamp::from_minute(MINUTE), minutes, ..Stats::default() });
    let reading = rule(99.0).rule.evaluate(&context).await.expect("a reading");
    assert_eq!((reading.value, reading.count), (Some(0.0), Some(1)));
}

#[test]
fn objective_that_cannot_fire_is_refused() {
    for objective in [0.995, 83.9, 100.0, f64::NAN, f64::INFINITY] {
        let error = Rule::burn_rate(A, objective).err().expect("an invalid objective").to_string();
        let expected = "expected a percentage from 84 to below 100";
        assert_eq!(error, format!("invalid objective of a burn rate \"{objective}\": {expected}"));
    }
    let error = Rule::burn_rate(JobType::<(), ()>::new("a b"), 99.0).err().expect("an invalid name").to_string();
    assert!(error.starts_with("invalid job type of a burn rate \"a b\": expected 1–100 characters"), "{error}");
    assert_eq!(rule(84.0).settings.severity, Severity::Critical);
}

#[tokio::test]
async fn lowest_objective_can_fire() {
    let rule = rule(84.0);
    let reading = read(&rule, &[(0, 0, 20)]).await;
    assert_eq!(input(&rule, &reading), Input::Breach);
}
