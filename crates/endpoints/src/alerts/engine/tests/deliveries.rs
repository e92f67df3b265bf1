//! Senders that fail, hang, panic, ask for pauses, or want alerts again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    super::super::{
        AlertStatus::{Firing, Resolved},
        Severity,
        document::OUTBOX,
    },
    fixture::{Answer, INTERVAL, LEASE, Level, Process, Receiver, alerts, engine, no_rules, seconds, store, stored},
};

/// Starts a process whose rule fires at once, and returns when the receiver got the notification.
async fn time_until_received(receiver: &Receiver) -> Duration {
    let (store, level) = (store(), Level::default());
    level.set(11.0);
    let _process = Process::start(&store, alerts(level.rule(), receiver));
    let began = Instant::now();
    while receiver.received().is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn failed_send_is_repeated_with_growing_pauses() {
    let receiver = Receiver::default();
    receiver.answer([Answer::Temporary(None), Answer::Panic, Answer::Temporary(None), Answer::Temporary(None)]);
    let took = time_until_received(&receiver).await;
    assert!((seconds(15)..seconds(16)).contains(&took), "1 + 2 + 4 + 8 s, not {took:?}");
}

#[tokio::test(start_paused = true)]
async fn hanging_send_is_repeated_after_its_limit() {
    let receiver = Receiver::default();
    receiver.answer([Answer::Hang]);
    let took = time_until_received(&receiver).await;
    assert!((seconds(11)..seconds(12)).contains(&took), "10 + 1 s, not {took:?}");
}

#[tokio::test(start_paused = true)]
async fn requested_pause_is_kept() {
    let receiver = Receiver::default();
    receiver.answer([Answer::Temporary(Some(seconds(100)))]);
    let took = time_until_received(&receiver).await;
    assert!((seconds(100)..seconds(101)).contains(&took), "100 s, not {took:?}");
}

#[tokio::test(start_paused = true)]
async fn resolve_waits_for_its_alert() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    receiver.answer([Answer::Temporary(Some(seconds(100)))]);
    level.set(11.0);
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(INTERVAL).await;
    level.set(0.0);
    sleep(INTERVAL * 2).await;
    assert_eq!((receiver.received().len(), stored(&store).await.outbox.len()), (0, 2));
    sleep(seconds(100)).await;
    assert_eq!((receiver.statuses(), stored(&store).await.outbox.len()), (vec![Firing, Resolved], 0));
    drop(process);
}

#[tokio::test(start_paused = true)]
async fn failing_sender_does_not_delay_another() {
    let (store, level, receiver, failing) = (store(), Level::default(), Receiver::default(), Receiver::default());
    failing.answer((0..1000).map(|_| Answer::Hang));
    level.set(11.0);
    let alerts = alerts(level.rule(), &receiver).sender("failing", failing.clone());
    let _process = Process::start(&store, alerts);
    sleep(INTERVAL).await;
    level.set(0.0);
    sleep(INTERVAL * 2).await;
    assert_eq!((receiver.statuses(), failing.statuses()), (vec![Firing, Resolved], Vec::new()));
    let waiting: Vec<_> = stored(&store).await.outbox.into_iter().flat_map(|outgoing| outgoing.to).collect();
    assert_eq!(waiting, ["failing", "failing"]);
}

#[tokio::test(start_paused = true)]
async fn alerts_are_routed_by_severity() {
    let (store, level, receiver, urgent) = (store(), Level::default(), Receiver::default(), Receiver::default());
    level.set(11.0);
    let medium = level.rule().severity(Severity::Medium);
    let alerts =
        alerts(medium, &receiver).rule("high", level.rule()).sender_from(Severity::High, "urgent", urgent.clone());
    let _process = Process::start(&store, alerts);
    sleep(INTERVAL).await;
    let rules = |receiver: &Receiver| receiver.distinct().into_iter().map(|(rule, _)| rule).collect::<Vec<_>>();
    assert_eq!(rules(&urgent), ["high"]);
    assert_eq!(rules(&receiver).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn permanent_failure_is_stored_until_the_next_success() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    receiver.answer([Answer::Permanent]);
    level.set(11.0);
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    sleep(INTERVAL).await;
    let state = stored(&store).await;
    assert_eq!((state.outbox.len(), state.failures["receiver"].as_str()), (0, "unknown address"));
    let (limit, read) = process.engine.vitals();
    let vitals = read().await.expect("the store answers");
    assert_eq!((limit, vitals.pending, vitals.failures), (INTERVAL * 2 + LEASE, 0, state.failures));
    level.set(0.0);
    sleep(INTERVAL * 2).await;
    assert!(stored(&store).await.failures.is_empty());
    assert_eq!(receiver.statuses(), [Resolved]);
}

#[tokio::test(start_paused = true)]
async fn notification_is_given_up_after_a_day() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let hour = seconds(60 * 60);
    receiver.answer((0..1000).map(|_| Answer::Temporary(Some(hour))));
    level.set(11.0);
    let process = Process::start(&store, alerts(level.rule(), &receiver).repeat(hour * 1000).interval(seconds(300)));
    sleep(hour * 22).await;
    assert_eq!(stored(&store).await.outbox.len(), 1);
    process.stop().await;
    let _process = Process::start(&store, alerts(level.rule(), &receiver).repeat(hour * 1000).interval(seconds(300)));
    sleep(hour * 3).await;
    let state = stored(&store).await;
    assert_eq!((state.outbox.len(), state.failures["receiver"].as_str()), (0, "try again"));
}

#[tokio::test(start_paused = true)]
async fn full_outbox_drops_the_oldest() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    receiver.answer((0..1000).map(|_| Answer::Temporary(Some(seconds(3600)))));
    let _process = Process::start(&store, alerts(level.rule(), &receiver).interval(seconds(1)));
    for round in 0..OUTBOX {
        level.set(if round % 2 == 0 { 11.0 } else { 0.0 });
        sleep(seconds(2)).await;
    }
    let before = stored(&store).await.outbox;
    assert_eq!(before.len(), OUTBOX);
    level.set(11.0);
    sleep(seconds(2)).await;
    let after = stored(&store).await.outbox;
    assert_eq!((after.len(), after[0].id), (OUTBOX, before[1].id));
}

#[tokio::test(start_paused = true)]
async fn repeat_waits_only_once() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    receiver.answer([Answer::Temporary(Some(seconds(3600)))]);
    level.set(11.0);
    let _process = Process::start(&store, alerts(level.rule(), &receiver).repeat(seconds(60)));
    sleep(seconds(3500)).await;
    assert_eq!(stored(&store).await.outbox.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refreshed_receiver_gets_alerts_again_until_five_minutes_after_the_end() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::refreshed(seconds(60)));
    let start = || Process::start(&store, alerts(level.rule(), &receiver));
    let mut process = start();
    level.set(11.0);
    sleep(seconds(300)).await;
    let firing = receiver.statuses();
    assert!((5..=7).contains(&firing.len()) && firing.iter().all(|status| *status == Firing), "{firing:?}");
    process.stop().await;
    process = start();
    level.set(0.0);
    sleep(seconds(1200)).await;
    let all = receiver.received();
    let resolved = all.iter().skip_while(|received| received.alert.status == Firing);
    assert!(resolved.clone().all(|received| received.alert.status == Resolved), "no alert after its end");
    assert!((5..=7).contains(&resolved.count()), "{:?}", receiver.statuses());
    assert!(all.iter().all(|received| received.alert.id == all[0].alert.id));
    let last = receiver.received().len();
    sleep(seconds(1200)).await;
    assert_eq!(receiver.received().len(), last);
    drop(process);
}

#[tokio::test(start_paused = true)]
async fn test_alert_reaches_every_sender_and_is_not_stored() {
    let (works, refuses, hangs) = (Receiver::default(), Receiver::default(), Receiver::default());
    refuses.answer([Answer::Permanent]);
    hangs.answer([Answer::Hang]);
    let store = store();
    let alerts = no_rules(&works).sender_from(Severity::Critical, "refuses", refuses).sender("hangs", hangs);
    let (engine, link) = engine(&store, alerts);
    link.outage(true);
    let began = Instant::now();
    let results = engine.test().await;
    assert!(began.elapsed() <= seconds(11), "side by side");
    let results: Vec<_> =
        results.iter().map(|result| (result.sender.as_str(), result.ok, result.error.as_deref())).collect();
    let expected = [
        ("receiver", true, None),
        ("refuses", false, Some("unknown address")),
        ("hangs", false, Some("no answer within 10 s")),
    ];
    assert_eq!(results, expected);
    assert_eq!(works.received()[0].alert.rule, "test");
}
