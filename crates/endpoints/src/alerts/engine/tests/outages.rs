//! Outages of the store, for all processes and for one.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    MemoryStore, SharedState as _,
    store::{Role, StoreOperation},
};
use async_endpoints_testkit::When;
use async_trait::async_trait;
use tokio::time::sleep;

use super::{
    super::super::{
        AlertRule,
        AlertStatus::{Firing, Resolved},
        Alerts, BoxError, Reading, Rule, RuleContext,
        document::ALERTS,
        instances::STORE_ERRORS,
    },
    fixture::{Answer, INTERVAL, LEASE, Level, Process, Receiver, alerts, seconds, store, stored},
};

/// The largest percentage of failed store calls.
struct StoreErrors;

#[async_trait]
impl AlertRule for StoreErrors {
    async fn evaluate(&self, context: &RuleContext) -> Result<Reading, BoxError> {
        let values = context.instances.iter().filter(|value| value.rule == STORE_ERRORS);
        let worst = values.max_by(|a, b| a.value.total_cmp(&b.value));
        let (value, count) = worst.map_or((0.0, 0), |worst| (worst.value, worst.count.unwrap_or(0)));
        Ok(Reading::new(value, "store calls fail").count(count))
    }
}

fn with_store_errors(level: &Level, receiver: &Receiver) -> Alerts {
    let rule = Rule::above(5.0, StoreErrors).min_count(10).independent_of_store();
    alerts(level.rule(), receiver).rule(STORE_ERRORS, rule)
}

async fn fleet(store: &Arc<MemoryStore>, level: &Level, receiver: &Receiver) -> Vec<Process> {
    fleet_of(store, || with_store_errors(level, receiver)).await
}

async fn fleet_of(store: &Arc<MemoryStore>, alerts: impl Fn() -> Alerts) -> Vec<Process> {
    let mut fleet = Vec::new();
    for _ in 0..3 {
        fleet.push(Process::start(store, alerts()));
        sleep(seconds(1)).await;
    }
    sleep(INTERVAL * 2).await;
    fleet
}

fn outage(fleet: &[Process], out: bool) {
    fleet.iter().for_each(|process| process.link.outage(out));
}

fn store_errors(status: crate::alerts::AlertStatus) -> (String, crate::alerts::AlertStatus) {
    (STORE_ERRORS.to_owned(), status)
}

#[tokio::test(start_paused = true)]
async fn outage_is_one_alert_and_mutes_others() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = fleet(&store, &level, &receiver).await;
    outage(&fleet, true);
    level.set(11.0);
    sleep(LEASE * 2 - seconds(1)).await;
    assert_eq!(receiver.distinct(), [], "within the grace time");
    sleep(seconds(60)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing)], "sent during the outage");
    outage(&fleet, false);
    sleep(seconds(20)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing)], "the level is muted");
    let document = stored(&store).await;
    assert_eq!(document.muted_at, document.evaluated_at);
    let state = &document.rules[STORE_ERRORS];
    assert_eq!(state.alert.as_ref().map(|alert| alert.id), Some(receiver.received()[0].alert.id), "stored by now");
    sleep(seconds(120)).await;
    let level_fires = ("level".to_owned(), Firing);
    assert_eq!(receiver.distinct(), [store_errors(Firing), store_errors(Resolved), level_fires]);
    assert_eq!(receiver.received().len(), 3, "each is sent once");
    let document = stored(&store).await;
    assert!(document.muted_at < document.evaluated_at, "{document:?}");
}

#[tokio::test(start_paused = true)]
async fn short_outage_is_no_alert() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = fleet(&store, &level, &receiver).await;
    outage(&fleet, true);
    sleep(seconds(2)).await;
    outage(&fleet, false);
    sleep(seconds(300)).await;
    assert_eq!(receiver.distinct(), []);
}

#[tokio::test(start_paused = true)]
async fn last_leader_keeps_the_role_if_it_reconnects_last() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = fleet(&store, &level, &receiver).await;
    outage(&fleet, true);
    sleep(seconds(60)).await;
    outage(&fleet[1..], false);
    sleep(LEASE - seconds(1)).await;
    outage(&fleet, false);
    sleep(seconds(200)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing), store_errors(Resolved)]);
    assert_eq!(receiver.received().len(), 2);
    assert_eq!(stored(&store).await.leader, fleet[0].engine.id.to_string());
}

#[tokio::test(start_paused = true)]
async fn next_leader_takes_the_alert_of_an_outage_over() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = fleet(&store, &level, &receiver).await;
    outage(&fleet, true);
    sleep(seconds(60)).await;
    // A server that hung runs the calls that reached it meanwhile, such as one for the role.
    let late = store.role(ALERTS, fleet[1].engine.id.0, LEASE).await;
    assert!(matches!(late, Ok(Role::Held(_))), "{late:?}");
    outage(&fleet, false);
    sleep(seconds(200)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing), store_errors(Resolved)]);
    let received = receiver.received();
    assert_eq!((received.len(), received[0].alert.id), (2, received[1].alert.id));
}

#[tokio::test(start_paused = true)]
async fn alert_sent_while_its_leader_waits_for_the_store_is_not_repeated() {
    let (store, level, receiver, slow) = (store(), Level::default(), Receiver::default(), Receiver::default());
    let fleet = fleet_of(&store, || with_store_errors(&level, &receiver).sender("slow", slow.clone())).await;
    outage(&fleet, true);
    // The write of the alert, and the report to the next leader, during which the slow receiver would get the alert.
    fleet[0].link.fail_next(StoreOperation::PutDocument, When::Late);
    fleet[0].link.fail_next(StoreOperation::PutDocument, When::Late);
    slow.answer([Answer::After(Duration::from_millis(600))]);
    while receiver.received().is_empty() {
        // With few calls, the rule about failed ones would be clear until there are enough, and then fire again.
        fleet[0].engine.store.probe().await.expect_err("an outage");
        sleep(Duration::from_millis(10)).await;
    }
    let late = store.role(ALERTS, fleet[1].engine.id.0, LEASE).await;
    assert!(matches!(late, Ok(Role::Held(_))), "{late:?}");
    outage(&fleet, false);
    sleep(seconds(200)).await;
    assert_eq!((receiver.statuses(), slow.statuses()), (vec![Firing, Resolved], vec![Firing, Resolved]));
}

#[tokio::test(start_paused = true)]
async fn leader_restarted_after_an_outage_alert_repeats_nothing() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let mut fleet = fleet(&store, &level, &receiver).await;
    outage(&fleet, true);
    sleep(seconds(60)).await;
    outage(&fleet, false);
    sleep(seconds(5)).await;
    fleet.remove(0).kill().await;
    sleep(seconds(200)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing), store_errors(Resolved)]);
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn outage_without_last_leader_is_notified_afterwards() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let mut fleet = fleet(&store, &level, &receiver).await;
    outage(&fleet, true);
    fleet.remove(0).kill().await;
    sleep(seconds(60)).await;
    assert_eq!(receiver.distinct(), [], "no process may speak for the fleet");
    outage(&fleet, false);
    sleep(seconds(200)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing), store_errors(Resolved)]);
}

#[tokio::test(start_paused = true)]
async fn next_leader_resolves_the_alert_of_one_that_was_cut_off() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = fleet(&store, &level, &receiver).await;
    fleet[0].link.outage(true);
    sleep(seconds(60)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing)]);
    assert_ne!(stored(&store).await.leader, fleet[0].engine.id.to_string());
    level.set(11.0);
    sleep(INTERVAL * 2).await;
    assert_eq!(receiver.distinct().len(), 2, "the new leader evaluates");
    fleet[0].link.outage(false);
    sleep(seconds(300)).await;
    let expected = [store_errors(Firing), ("level".to_owned(), Firing), store_errors(Resolved)];
    assert_eq!(receiver.distinct(), expected);
    let received = receiver.received();
    assert_eq!(received[0].alert.id, received[2].alert.id);
}

#[tokio::test(start_paused = true)]
async fn process_that_was_cut_off_is_reported_once() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = fleet(&store, &level, &receiver).await;
    fleet[2].link.outage(true);
    sleep(seconds(40)).await;
    assert_eq!(receiver.distinct(), []);
    fleet[2].link.outage(false);
    sleep(seconds(300)).await;
    assert_eq!(receiver.distinct(), [store_errors(Firing), store_errors(Resolved)]);
    assert_eq!(stored(&store).await.leader, fleet[0].engine.id.to_string());
}
