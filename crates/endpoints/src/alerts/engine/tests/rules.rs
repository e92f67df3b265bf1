//! Rules that fail, hang, panic, remember, repeat, or are removed.

use async_endpoints_core::JobId;
use serde_json::json;
use tokio::time::sleep;

use super::{
    super::super::{
        AlertRule,
        AlertStatus::{Firing, Resolved},
        BoxError, Reading, Rule, RuleContext,
        state::State,
    },
    fixture::{INTERVAL, Level, Process, REPEAT, Receiver, alerts, no_rules, seconds, store, stored},
};

#[tokio::test(start_paused = true)]
async fn hanging_and_panicking_rules_do_not_stop_others() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let hanging = Rule::above(1.0, std::future::pending::<Result<Reading, BoxError>>);
    let panicking = Rule::above(1.0, async || -> Result<Reading, BoxError> { panic!("no paper") });
    let endless = Rule::above(1.0, async || Ok::<_, BoxError>(Reading::new(f64::INFINITY, "")));
    let rules = alerts(level.rule(), &receiver).rule("a", hanging).rule("b", panicking).rule("c", endless);
    let process = Process::start(&store, rules);
    level.set(11.0);
    sleep(seconds(60)).await;
    assert_eq!(receiver.statuses(), [Firing]);
    let status = process.engine.status().await.expect("the store answers");
    let errors: Vec<_> = status.rules.iter().map(|rule| &rule.details["error"]).collect();
    let expected = [
        json!(null),
        json!("no result within 10s"),
        json!("the rule panicked: no paper"),
        json!("the value is not a finite number"),
    ];
    assert_eq!(errors, expected.iter().collect::<Vec<_>>());
    level.set(0.0);
    sleep(seconds(60)).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn failing_rule_keeps_firing_without_new_notifications() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let reads = level.clone();
    let rule = Rule::above(10.0, move || {
        let value = reads.value();
        async move { if value < 0.0 { Err("cannot count") } else { Ok(Reading::new(value, "")) } }
    });
    let process = Process::start(&store, alerts(rule, &receiver));
    for value in [11.0, -1.0] {
        level.set(value);
        sleep(REPEAT + INTERVAL).await;
    }
    let status = process.engine.status().await.expect("the store answers");
    assert_eq!((status.rules[0].state, &status.rules[0].details["error"]), ("firing", &json!("cannot count")));
    assert_eq!(receiver.statuses(), [Firing, Firing], "one repeat while it could be read");
    level.set(0.0);
    sleep(INTERVAL * 2).await;
    assert_eq!(receiver.statuses(), [Firing, Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn firing_rule_repeats_in_its_interval() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let _process = Process::start(&store, alerts(level.rule(), &receiver));
    level.set(11.0);
    sleep(REPEAT * 3 - INTERVAL).await;
    let received = receiver.received();
    assert_eq!(receiver.statuses(), [Firing; 3]);
    assert!(received.iter().all(|repeat| repeat.alert.id == received[0].alert.id), "all are about one alert");
    assert!(received[0].id != received[1].id, "a repeat is a notification of its own");
}

#[tokio::test(start_paused = true)]
async fn texts_of_a_rule_are_limited() {
    let (store, receiver) = (store(), Receiver::default());
    let rule = Rule::above(1.0, async || {
        let reading = Reading::new(2.0, "x".repeat(5000)).with("rows", "y".repeat(20_000));
        Ok::<_, BoxError>(reading.jobs((0..5).map(|_| JobId::random())))
    });
    let _process = Process::start(&store, alerts(rule, &receiver));
    sleep(INTERVAL).await;
    let alert = receiver.received().remove(0).alert;
    assert!(alert.message.len() < 1500 && alert.details.to_string().len() < 1500, "{alert:?}");
    assert_eq!(alert.details["details"], "left out: 20011 bytes, more than 16384");
    assert_eq!(alert.jobs().count(), 3);
}

/// A rule whose value is the number of its evaluations.
struct Counts;

#[async_trait::async_trait]
impl AlertRule for Counts {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let count = context.memory().as_u64().unwrap_or(0) + 1;
        Ok(Reading::new(count as f64, "").remember(json!(count)))
    }
}

#[tokio::test(start_paused = true)]
async fn memory_of_a_rule_survives_restarts() {
    let (store, receiver) = (store(), Receiver::default());
    for _ in 0..3 {
        let process = Process::start(&store, alerts(Rule::above(1e6, Counts), &receiver));
        sleep(INTERVAL).await;
        process.stop().await;
    }
    let evaluations = stored(&store).await.rules["level"].value;
    assert!(evaluations.is_some_and(|count| (3.0..=4.0).contains(&count)), "{evaluations:?}");
}

#[tokio::test(start_paused = true)]
async fn removed_rule_is_resolved() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    level.set(11.0);
    sleep(INTERVAL * 2).await;
    process.stop().await;
    let _process = Process::start(&store, no_rules(&receiver));
    sleep(INTERVAL * 2).await;
    let received = receiver.received();
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
    assert_eq!(received[0].alert.id, received[1].alert.id);
    assert!(stored(&store).await.rules.is_empty());
}

#[tokio::test(start_paused = true)]
async fn status_is_equal_in_every_process() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = [(); 2].map(|()| Process::start(&store, alerts(level.rule().unit("s"), &receiver)));
    let before = fleet[1].engine.status().await.expect("the store answers");
    assert_eq!((before.rules[0].state, before.rules[0].threshold), ("inactive", 10.0), "before the first evaluation");
    level.set(12.0);
    sleep(INTERVAL * 2).await;
    let [one, other] = [&fleet[0], &fleet[1]].map(|process| process.engine.clone());
    let status = one.status().await.expect("the store answers");
    assert_eq!(status, other.status().await.expect("the store answers"));
    let rule = &status.rules[0];
    let State::Firing { starts_at, .. } = stored(&store).await.rules["level"].state else { panic!("a firing rule") };
    assert_eq!((rule.rule.as_str(), rule.state, rule.since), ("level", "firing", Some(starts_at)));
    let details = json!({ "value": 12.0, "threshold": 10.0, "unit": "s", "jobs": [], "message": "the level is high" });
    assert_eq!((rule.value, &rule.details), (Some(12.0), &details));
}
