//! Hints of changes, and the stream of them.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::job::{JobId, JobName};

/// A change. Hints only wake: they may be lost, repeated or late, and a read returns everything that they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Jobs of this type became runnable.
    Work(JobName),
    /// The jobs that one call changed visibly.
    Jobs(Arc<[JobId]>),
    /// Some hints were lost: read everything that you wait for.
    Lagged,
}

/// The hints of a channel. Ends when all its senders are dropped.
pub fn hint_stream(receiver: Receiver<Hint>) -> BoxStream<'static, Hint> {
    stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Ok(hint) => Some((hint, receiver)),
            Err(RecvError::Lagged(_)) => Some((Hint::Lagged, receiver)),
            Err(RecvError::Closed) => None,
        }
    })
    .boxed()
}
