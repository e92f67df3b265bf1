//! Receives hints from Redis. A broken subscription costs callers a polling interval. Knows nothing of jobs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{JobId, JobName, store::Hint};
use futures_util::StreamExt as _;
use tokio::{sync::broadcast, time::timeout};

use crate::{backoff::Backoff, server::Server};

const CONNECT: Duration = Duration::from_millis(1500);
/// A subscription that is silent for this long is pinged.
const PING_AFTER: Duration = Duration::from_secs(2);

/// Subscribes, forwards hints, and reconnects, without end.
pub(crate) async fn run(server: Arc<Server>, hints: broadcast::Sender<Hint>) {
    let mut backoff = Backoff::new();
    loop {
        let served = listen(&server, &hints).await.unwrap_or_default();
        backoff.wait(served).await;
    }
}

/// Forwards hints until the subscription breaks. Returns how long it lasted; `None` if it was not made.
async fn listen(server: &Server, hints: &broadcast::Sender<Hint>) -> Option<Duration> {
    let channel = format!("{}hints", server.namespace);
    let connected = timeout(CONNECT, server.client.get_async_pubsub()).await.ok()?.ok()?;
    let (mut sink, mut stream) = connected.split();
    timeout(CONNECT, sink.subscribe(&channel)).await.ok()?.ok()?;
    let began = Instant::now();
    // Hints may have been published before the subscription.
    let _ = hints.send(Hint::Lagged);
    loop {
        match timeout(PING_AFTER, stream.next()).await {
            Ok(Some(message)) => parse(message.get_payload_bytes()).for_each(|hint| drop(hints.send(hint))),
            Ok(None) => break,
            Err(_) => {
                if !matches!(timeout(PING_AFTER, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    break;
                }
            }
        }
    }
    let _ = hints.send(Hint::Lagged);
    Some(began.elapsed())
}

/// Parses one hint per line: `w` and a type, or `j` and ids. Skips other lines, which a later version may publish.
fn parse(message: &[u8]) -> impl Iterator<Item = Hint> {
    let lines = std::str::from_utf8(message).unwrap_or_default().lines();
    lines.filter_map(|line| match line.split_at_checked(1)? {
        ("w", name) => JobName::new(name).ok().map(Hint::Work),
        ("j", ids) => {
            let ids: Arc<[JobId]> = ids.split(' ').filter_map(|id| id.parse().ok()).collect();
            Some(Hint::Jobs(ids))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_hint_lines_are_skipped() {
        let id = JobId::random();
        let text = format!("walpha\nx of a later version\nj{id} {id}\nw not a name\n\n");
        let hints: Vec<Hint> = parse(text.as_bytes()).collect();
        assert_eq!(hints, [Hint::Work(JobName::new("alpha").unwrap()), Hint::Jobs([id, id].into())]);
        assert_eq!(parse(b"\xff").count(), 0);
    }
}
