//! Silences that begin and end in each state.

use tokio::time::sleep;

use super::{
    super::super::{
        AlertStatus::{Firing, Resolved},
        NewSilence, Silence,
        silence::now,
        state::State,
    },
    fixture::{INTERVAL, Level, Process, REPEAT, Receiver, alerts, seconds, store, stored},
};

async fn silence(process: &Process, for_seconds: u64) -> Silence {
    let ends_at = now(&*process.engine.store).await.expect("the store answers") + seconds(for_seconds);
    let (rule, author, reason) = ("level".to_owned(), "Ada".to_owned(), "deployment".to_owned());
    process.engine.silence(NewSilence { rule, author, reason, ends_at }).await.expect("a silence")
}

#[tokio::test(start_paused = true)]
async fn alert_that_outlasts_its_silence_is_notified_at_its_end() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    silence(&process, 100).await;
    level.set(11.0);
    sleep(seconds(99)).await;
    assert!(receiver.received().is_empty());
    let State::Firing { starts_at, .. } = stored(&store).await.rules["level"].state else { panic!("a firing rule") };
    sleep(INTERVAL * 2).await;
    let received = receiver.received();
    assert_eq!((receiver.statuses(), received[0].alert.starts_at), (vec![Firing], starts_at));
    level.set(0.0);
    sleep(INTERVAL * 2).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn alert_within_a_silence_is_not_notified() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    silence(&process, 100).await;
    level.set(11.0);
    sleep(seconds(40)).await;
    level.set(0.0);
    sleep(seconds(200)).await;
    assert!(receiver.received().is_empty());
    assert!(matches!(stored(&store).await.rules["level"].state, State::Resolved { notified: false, .. }));
}

#[tokio::test(start_paused = true)]
async fn silence_of_a_notified_alert_stops_repeats_and_not_the_resolve() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    level.set(11.0);
    sleep(INTERVAL * 2).await;
    silence(&process, 10 * REPEAT.as_secs()).await;
    sleep(REPEAT * 3).await;
    assert_eq!(receiver.statuses(), [Firing]);
    level.set(0.0);
    sleep(INTERVAL * 2).await;
    assert_eq!(receiver.statuses(), [Firing, Resolved]);
}

#[tokio::test(start_paused = true)]
async fn deleted_silence_ends_at_once() {
    let (store, level, receiver) = (store(), Level::default(), Receiver::default());
    let process = Process::start(&store, alerts(level.rule(), &receiver));
    let other = Process::start(&store, alerts(level.rule(), &receiver));
    let silence = silence(&other, 10_000).await;
    level.set(11.0);
    sleep(INTERVAL * 2).await;
    assert!(receiver.received().is_empty());
    let seen = process.engine.status().await.expect("the store answers").silences;
    assert_eq!(seen, std::slice::from_ref(&silence));
    assert!(process.engine.unsilence(silence.id).await.expect("the store answers"));
    sleep(INTERVAL * 2).await;
    assert_eq!(receiver.statuses(), [Firing]);
    drop(other);
}
