//! Publishes lines by NOTIFY. A transaction that notifies holds a lock of the whole server while it commits, so this
//! happens on a connection of its own, in transactions that do nothing else and do not wait for the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_postgres::types::Type;

use super::DEADLINE;
use crate::{
    backoff::Backoff,
    server::{Server, Session},
};

/// The pause between two transactions. Lines of this time are sent together.
const PAUSE: Duration = Duration::from_millis(8);
/// The most bytes of one notification. PostgreSQL allows 7999.
const PAYLOAD: usize = 7900;
/// Lines that wait for a connection.
const QUEUE: usize = 4096;

const SQL: &str = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true)) \
    SELECT pg_notify(channel, payload) FROM quick, unnest($1, $2) AS lines (channel, payload)";

/// A channel and a line.
pub(super) type Message = (Box<str>, String);

pub(super) fn channel() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(QUEUE)
}

/// Connects, and reconnects, until all senders are gone.
pub(super) async fn run(server: Arc<Server>, mut messages: mpsc::Receiver<Message>) {
    let mut backoff = Backoff::new();
    while !messages.is_closed() {
        let served = match server.connect().await {
            Ok(session) => send(session, &mut messages).await,
            Err(_) => Duration::ZERO,
        };
        backoff.wait(served).await;
    }
}

/// Sends lines until the connection breaks. Returns how long it lasted.
async fn send(mut session: Session, messages: &mut mpsc::Receiver<Message>) -> Duration {
    let began = Instant::now();
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            _ = session.driver.ended() => break,
            received = messages.recv_many(&mut batch, QUEUE) => if received == 0 { break },
        }
        let (channels, payloads) = notifications(batch);
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&channels, Type::TEXT_ARRAY), (&payloads, Type::TEXT_ARRAY)];
        if !matches!(timeout(DEADLINE, session.client.query_typed(SQL, &params)).await, Ok(Ok(_))) {
            break;
        }
        sleep(PAUSE).await;
    }
    began.elapsed()
}

/// Joins the different lines of each channel to payloads. Leaves out lines that are too long.
fn notifications(batch: Vec<Message>) -> (Vec<Box<str>>, Vec<String>) {
    let mut lines: BTreeMap<Box<str>, BTreeSet<String>> = BTreeMap::new();
    for (channel, line) in batch.into_iter().filter(|(_, line)| line.len() <= PAYLOAD) {
        lines.entry(channel).or_default().insert(line);
    }
    let (mut channels, mut payloads) = (Vec::new(), Vec::<String>::new());
    for (channel, lines) in lines {
        let mut joins = false;
        for line in lines {
            match payloads.last_mut() {
                Some(last) if joins && last.len() + 1 + line.len() <= PAYLOAD => {
                    last.push('\n');
                    last.push_str(&line);
                }
                _ => {
                    channels.push(channel.clone());
                    payloads.push(line);
                    joins = true;
                }
            }
        }
    }
    (channels, payloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_by_channel_up_to_the_limit() {
        let long = |c: &str| c.repeat(PAYLOAD - 2);
        let batch = [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x"), ("b", &*long("z")), ("b", &*long("zz"))];
        let batch = batch.map(|(channel, line)| (channel.into(), line.to_owned()));
        let (channels, payloads) = notifications(batch.into());
        assert_eq!(channels, ["a".into(), "b".into()]);
        assert_eq!(payloads, ["x\ny".to_owned(), format!("x\n{}", long("z"))]);
        let two = [("b", long("y")), ("b", long("z"))].map(|(channel, line)| (channel.into(), line));
        assert_eq!(notifications(two.into()).1, [long("y"), long("z")]);
    }
}
