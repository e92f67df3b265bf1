//! Callers that insert at the same time share one call: a script costs more than the insert in it. Nobody waits for others
//! to come; those who come while a call is on its way make the next. Must not know what a job is.

use std::sync::Arc;

use async_endpoints_core::limits::{BATCH_BYTES, BATCH_JOBS};
use redis::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{args::Args, calls::Calls, fail::Fail, reply};

/// Calls on their way at once: one is run while the next one travels.
const FLIGHTS: usize = 2;
/// KiB that may wait, before callers have to.
const ROOM: u32 = 64 * 1024;

/// Where callers hand in.
pub(crate) struct Inserts {
    send: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
}

/// The part that makes the calls.
pub(crate) struct Desk {
    receive: mpsc::UnboundedReceiver<Waiting>,
    /// The one that was too large for the call before.
    next: Option<Waiting>,
}

struct Waiting {
    args: Args,
    answer: oneshot::Sender<Result<Value, Fail>>,
    _room: OwnedSemaphorePermit,
}

pub(crate) fn new() -> (Inserts, Desk) {
    let (send, receive) = mpsc::unbounded_channel();
    (Inserts { send, room: Arc::new(Semaphore::new(ROOM as usize)) }, Desk { receive, next: None })
}

fn ended<T>(_: T) -> Fail {
    Fail::Down("its desk is closed".to_owned())
}

impl Inserts {
    /// The script's answer to this one.
    pub(crate) async fn insert(&self, args: Args) -> Result<Value, Fail> {
        let size = u32::try_from(args.size() / 1024 + 1).unwrap_or(ROOM).min(ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(ended)?;
        let (answer, answered) = oneshot::channel();
        self.send.send(Waiting { args, answer, _room: room }).map_err(ended)?;
        answered.await.unwrap_or_else(|lost| Err(ended(lost)))
    }
}

impl Desk {
    /// Serves until nobody can hand in any more.
    pub(crate) async fn run(mut self, calls: Arc<Calls>) {
        let flights = Arc::new(Semaphore::new(FLIGHTS));
        while let Some(first) = self.first().await {
            // Nobody closes it.
            let Ok(flight) = Arc::clone(&flights).acquire_owned().await else { return };
            // A call that came back woke many callers, one after the other: those who are about to come again get their turn.
            tokio::task::yield_now().await;
            let batch = self.together_with(first);
            if batch.is_empty() {
                continue;
            }
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                fly(batch, &calls).await;
                drop(flight);
            });
        }
    }

    async fn first(&mut self) -> Option<Waiting> {
        match self.next.take() {
            Some(next) => Some(next),
            None => self.receive.recv().await,
        }
    }

    /// It and those that wait beside it, as far as a call takes them. Who left meanwhile wants no job: nothing of it was sent.
    fn together_with(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut bytes = first.args.size();
        let mut batch = vec![first];
        batch.retain(|waiting| !waiting.answer.is_closed());
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

async fn fly(batch: Vec<Waiting>, calls: &Calls) {
    let mut args = Args::new();
    batch.iter().for_each(|waiting| args.append(&waiting.args));
    let answers = calls.call(&calls.scripts.insert, &args).await.and_then(reply::list);
    match answers {
        Ok(answers) if answers.len() == batch.len() => {
            for (waiting, answer) in batch.into_iter().zip(answers) {
                drop(waiting.answer.send(Ok(answer)));
            }
        }
        answers => {
            let fail = answers.err().unwrap_or_else(|| Fail::Bad("answers are missing".to_owned()));
            for waiting in batch {
                drop(waiting.answer.send(Err(fail.clone())));
            }
        }
    }
}
