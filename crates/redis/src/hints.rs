//! What changed, as Redis tells it to all processes. A cut subscription costs the polling interval and nothing else. Must
//! not know what jobs are.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{JobId, JobName, store::Hint};
use futures_util::StreamExt as _;
use tokio::{sync::broadcast, time::timeout};

use crate::{backoff::Backoff, server::Server};

const CONNECT: Duration = Duration::from_millis(1500);
/// How often a subscription is tried out that tells nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Listens for ever, and passes on.
pub(crate) async fn run(server: Arc<Server>, hints: broadcast::Sender<Hint>) {
    let mut backoff = Backoff::new();
    loop {
        let served = listen(&server, &hints).await.unwrap_or_default();
        backoff.wait(served).await;
    }
}

/// Until the subscription breaks: how long it served, or none if there was never one.
async fn listen(server: &Server, hints: &broadcast::Sender<Hint>) -> Option<Duration> {
    let channel = format!("{}hints", server.namespace);
    let connected = timeout(CONNECT, server.client.get_async_pubsub()).await.ok()?.ok()?;
    let (mut sink, mut stream) = connected.split();
    timeout(CONNECT, sink.subscribe(&channel)).await.ok()?.ok()?;
    let began = Instant::now();
    // Something may have been told while nobody listened.
    let _ = hints.send(Hint::Lagged);
    loop {
        match timeout(LOOK, stream.next()).await {
            Ok(Some(message)) => read(message.get_payload_bytes()).for_each(|hint| drop(hints.send(hint))),
            Ok(None) => break,
            Err(_) => {
                if !matches!(timeout(LOOK, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    break;
                }
            }
        }
    }
    let _ = hints.send(Hint::Lagged);
    Some(began.elapsed())
}

/// One line for each hint: `w` and a type, `j` and ids. Lines of a later version are passed over.
fn read(message: &[u8]) -> impl Iterator<Item = Hint> {
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
    fn lines_are_hints_and_others_are_passed_over() {
        let id = JobId::random();
        let text = format!("walpha\nx of a later version\nj{id} {id}\nw not a name\n\n");
        let hints: Vec<Hint> = read(text.as_bytes()).collect();
        assert_eq!(hints, [Hint::Work(JobName::new("alpha").unwrap()), Hint::Jobs([id, id].into())]);
        assert_eq!(read(b"\xff").count(), 0);
    }
}
