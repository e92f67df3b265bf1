//! Processes that die, stop, are paused or lose the role.

use std::sync::Arc;

use async_endpoints_core::store::StoreOperation;
use async_endpoints_testkit::When;
use tokio::time::sleep;

use super::{
    super::super::{
        AlertStatus::{Firing, Resolved},
        state::State,
    },
    fixture::{Answer, INTERVAL, LEASE, Level, Process, Receiver, alerts, flaky_engine, seconds, store, stored},
};

/// Longer than a change of the leader and an evaluation take.
const SOON: std::time::Duration = seconds(30);

#[tokio::test(start_paused = true)]
async fn fleet_sends_one_firing_and_one_resolve() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let fleet = [(); 3].map(|()| Process::start(&store, alerts(level.rule(), &receiver)));
    sleep(SOON).await;
    level.set(11.0);
    sleep(SOON * 10).await;
    level.set(10.0);
    sleep(SOON * 10).await;
    let received = receiver.received();
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
    let [firing, resolved] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!((firing.alert.id, firing.alert.starts_at), (resolved.alert.id, resolved.alert.starts_at));
    assert_eq!(firing.id, firing.alert.id, "mails refer to the first notification by the alert's id");
    assert!(firing.id != resolved.id && firing.alert.ends_at.is_none() && resolved.alert.ends_at.is_some());
    assert_eq!(stored(&store).await.outbox, [], "nothing waits");
    let evaluations = level.evaluations();
    assert!((60..=64).contains(&evaluations), "one process evaluates every 10 s: {evaluations} in 630 s");
    drop(fleet);
}

#[tokio::test(start_paused = true)]
async fn leader_killed_between_write_and_send() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(SOON).await;
    level.set(11.0);
    receiver.answer([Answer::Hang]);
    sleep(INTERVAL).await;
    let waiting = stored(&store).await.outbox;
    assert_eq!((waiting.len(), receiver.received().len()), (1, 0), "stored and not sent");
    first.kill().await;
    let _second = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(SOON).await;
    let received = receiver.received();
    assert_eq!(received.iter().map(|received| received.id).collect::<Vec<_>>(), [waiting[0].id]);
    level.set(0.0);
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn leader_killed_between_send_and_write() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(SOON).await;
    let link = first.link.clone();
    receiver.answer([Answer::Then(Arc::new(move || link.outage(true)))]);
    level.set(11.0);
    sleep(INTERVAL).await;
    assert_eq!(receiver.statuses(), [Firing], "sent, and the store does not know");
    first.kill().await;
    let _second = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(SOON).await;
    let received = receiver.received();
    assert_eq!(received.len(), 2, "sent at least once");
    assert_eq!(received[0].id, received[1].id, "receivers recognize the repeat");
    level.set(0.0);
    sleep(SOON).await;
    assert_eq!(receiver.distinct().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn notification_that_is_not_stored_is_not_sent() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let process = Process::start(&store, alerts(level.rule().independent_of_store(), &receiver));
    sleep(seconds(1)).await;
    (0..20).for_each(|_| process.link.fail_next(StoreOperation::PutDocument, When::Before));
    level.set(11.0);
    sleep(INTERVAL + seconds(8)).await;
    assert!(receiver.received().is_empty() && stored(&store).await.outbox.is_empty());
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing]);
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_within_a_lease() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(seconds(1)).await;
    let second = Process::start(&store, alerts(level.rule(), &receiver));
    level.set(11.0);
    sleep(INTERVAL * 2).await;
    assert_eq!(receiver.statuses(), [Firing]);
    first.kill().await;
    level.set(0.0);
    sleep(INTERVAL + LEASE).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved], "the resolve still comes");
    assert_eq!(stored(&store).await.leader, second.engine.id.to_string());
}

#[tokio::test(start_paused = true)]
async fn restart_in_any_state_repeats_and_forgets_nothing() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let start = || Process::start(&store, alerts(level.rule().pending_for(seconds(60)), &receiver));
    let mut process = start();
    let mut expected = Vec::new();
    for (value, after, sent) in [(0.0, 30, None), (11.0, 30, None), (11.0, 60, Some(Firing)), (0.0, 30, Some(Resolved))]
    {
        level.set(value);
        sleep(seconds(after)).await;
        expected.extend(sent);
        assert_eq!(receiver.statuses(), expected, "level {value}");
        let before = stored(&store).await.rules["level"].state;
        process.stop().await;
        process = start();
        sleep(seconds(1)).await;
        assert_eq!(stored(&store).await.rules["level"].state, before);
    }
    assert!(matches!(stored(&store).await.rules["level"].state, State::Resolved { .. }));
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn new_leader_keeps_the_interval() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let rare = || alerts(level.rule(), &receiver).interval(seconds(300));
    let mut process = Process::start(&store, rare());
    for _ in 0..20 {
        sleep(seconds(20)).await;
        process.stop().await;
        process = Process::start(&store, rare());
    }
    assert_eq!(level.evaluations(), 2, "at once and after 300 s, whatever restarted in 400 s");
}

#[tokio::test(start_paused = true)]
async fn stopping_leader_waits_for_a_send_in_progress() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    level.set(11.0);
    receiver.answer([Answer::After(seconds(5))]);
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(seconds(1)).await;
    assert_eq!(stored(&store).await.outbox.len(), 1);
    first.stop().await;
    assert_eq!((receiver.statuses(), stored(&store).await.outbox), (vec![Firing], Vec::new()));
    let _second = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing], "nothing is repeated");
}

#[tokio::test(start_paused = true)]
async fn stopping_leader_keeps_the_role_during_its_last_send() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    level.set(11.0);
    receiver.answer([Answer::After(LEASE * 2)]);
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(seconds(1)).await;
    let _second = Process::start(&store, alerts(level.rule(), &receiver));
    first.stop().await;
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing], "the second process does not send it too");
}

#[tokio::test(start_paused = true)]
async fn paused_leader_stays_silent_after_it_was_replaced() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(seconds(1)).await;
    let _second = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(INTERVAL).await;
    first.pause(true);
    level.set(11.0);
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing], "the second process leads");
    first.pause(false);
    sleep(SOON).await;
    level.set(0.0);
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn leader_cut_off_during_a_send_leaves_the_rest_to_the_next() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let first = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(seconds(1)).await;
    let _second = Process::start(&store, alerts(level.rule(), &receiver));
    // Retries of the first process would begin after its lease has passed.
    receiver.answer([Answer::Temporary(Some(LEASE * 2))]);
    level.set(11.0);
    sleep(INTERVAL).await;
    first.link.outage(true);
    sleep(SOON).await;
    assert_eq!(receiver.statuses(), [Firing], "sent by the second process alone");
    first.link.outage(false);
    level.set(0.0);
    sleep(SOON * 2).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn each_lost_call_or_reply_changes_nothing() {
    use StoreOperation::{Document, PutDocument, Role, Stats};
    for operation in [Role, Document, Stats, PutDocument] {
        for when in [When::Before, When::After, When::Never, When::Late] {
            for at in 0..4 {
                let (store, level, receiver) = (store(), Level::default(), Receiver::default());
                let process = Process::start(&store, alerts(level.rule(), &receiver));
                for (step, value) in [0.0, 11.0, 11.0, 0.0].into_iter().enumerate() {
                    level.set(value);
                    if step == at {
                        process.link.fail_next(operation, when);
                    }
                    sleep(INTERVAL * 2).await;
                }
                assert_eq!(receiver.statuses(), [Firing, Resolved], "{operation:?} {when:?} in step {at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn random_faults_and_kills_lose_and_add_nothing() {
    for seed in 0..8 {
        let (store, level, receiver) = (store(), Level::default(), Receiver::default());
        let mut fleet: Vec<Process> = Vec::new();
        let mut expected = Vec::new();
        for round in 0..4 {
            let (value, status) = if round % 2 == 0 { (11.0, Firing) } else { (0.0, Resolved) };
            level.set(value);
            expected.push(("level".to_owned(), status));
            for member in 0..3 {
                let alerts = alerts(level.rule().independent_of_store(), &receiver);
                fleet.push(Process::run(flaky_engine(&store, alerts, seed * 100 + round * 10 + member)));
                if fleet.len() > 3 {
                    fleet.remove(0).kill().await;
                }
                sleep(seconds(7)).await;
            }
            sleep(INTERVAL * 20).await;
        }
        assert_eq!(receiver.distinct(), expected, "seed {seed}");
    }
}
