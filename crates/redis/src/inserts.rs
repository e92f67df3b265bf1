//! Combines concurrent inserts into one call, because a call costs more than the insert in it. No insert waits for others:
//! inserts that arrive while calls are under way make up the next call.

use std::sync::Arc;

use async_endpoints_core::{
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::InsertOutcome,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{args::Args, calls::Calls, fail::Fail, reply::each, wire::inserted};

/// Concurrent calls: the server runs one while the next travels.
const CALLS: usize = 2;
/// Capacity of the queue in KiB. Callers wait while it is full.
const CAPACITY: u32 = 64 * 1024;

/// Hands inserts to the [`Batcher`].
pub(crate) struct Inserts {
    send: mpsc::UnboundedSender<Pending>,
    capacity: Arc<Semaphore>,
}

/// Makes the calls.
pub(crate) struct Batcher {
    receive: mpsc::UnboundedReceiver<Pending>,
    /// The insert that was too large for the call before.
    next: Option<Pending>,
}

struct Pending {
    args: Args,
    answer: oneshot::Sender<Result<InsertOutcome, Fail>>,
    _capacity: OwnedSemaphorePermit,
}

pub(crate) fn new() -> (Inserts, Batcher) {
    let (send, receive) = mpsc::unbounded_channel();
    let capacity = Arc::new(Semaphore::new(CAPACITY as usize));
    (Inserts { send, capacity }, Batcher { receive, next: None })
}

fn closed<T>(_: T) -> Fail {
    Fail::Disconnected("the store's task has ended".to_owned())
}

impl Inserts {
    /// Inserts a job. A caller that drops the future before the call begins inserts nothing.
    pub(crate) async fn insert(&self, args: Args) -> Result<InsertOutcome, Fail> {
        let size = u32::try_from(args.size() / 1024 + 1).unwrap_or(CAPACITY).min(CAPACITY);
        let capacity = Arc::clone(&self.capacity).acquire_many_owned(size).await.map_err(closed)?;
        let (answer, answered) = oneshot::channel();
        self.send.send(Pending { args, answer, _capacity: capacity }).map_err(closed)?;
        answered.await.unwrap_or_else(|dropped| Err(closed(dropped)))
    }
}

impl Batcher {
    /// Runs until the [`Inserts`] is dropped.
    pub(crate) async fn run(mut self, calls: Arc<Calls>) {
        let permits = Arc::new(Semaphore::new(CALLS));
        while let Some(first) = self.first().await {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            // The last answers woke many callers. Those that insert again at once join this call.
            tokio::task::yield_now().await;
            let batch = self.batch(first);
            if batch.is_empty() {
                continue;
            }
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                call(batch, &calls).await;
                drop(permit);
            });
        }
    }

    async fn first(&mut self) -> Option<Pending> {
        match self.next.take() {
            Some(next) => Some(next),
            None => self.receive.recv().await,
        }
    }

    /// The first insert and as many queued ones as a call takes, without those whose callers have left.
    fn batch(&mut self, first: Pending) -> Vec<Pending> {
        let mut bytes = first.args.size();
        let mut batch = vec![first];
        batch.retain(|pending| !pending.answer.is_closed());
        while batch.len() < BATCH_JOBS {
            let Ok(next) = self.receive.try_recv() else { break };
            if next.answer.is_closed() {
                continue;
            }
            bytes += next.args.size();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                self.next = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

async fn call(batch: Vec<Pending>, calls: &Calls) {
    let stride = Args::new().text(batch.first().map_or(1, |first| first.args.len()));
    let args = batch.iter().fold(stride, |args, pending| args.append(&pending.args));
    let script = &calls.scripts.insert;
    // An answer that cannot be decoded fails its own insert only.
    match calls.call(script, &args, |answers| each(answers, batch.len(), |answer| Ok(inserted(answer)))).await {
        Ok(outcomes) => {
            for (pending, outcome) in batch.into_iter().zip(outcomes) {
                drop(pending.answer.send(outcome.map_err(|fail| fail.in_script(script.name))));
            }
        }
        Err(fail) => {
            for pending in batch {
                drop(pending.answer.send(Err(fail.clone())));
            }
        }
    }
}
