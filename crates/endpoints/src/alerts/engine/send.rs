//! Sends one notification once.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::super::sender::{Notification, Route, SendError};
use crate::panics;

/// Time limit of a sender.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends a notification in a task of its own: a panic is an error, and so is a sender that takes longer than 10 s.
///
/// Waits for a sender that blocks its thread, so that it is not called a second time meanwhile. Dropping the future aborts
/// the sender.
pub(super) async fn once(route: &Route, notification: Arc<Notification>) -> Result<(), SendError> {
    let sender = route.sender.clone();
    let mut task = AbortOnDropHandle::new(tokio::spawn(async move { sender.send(&notification).await }));
    match timeout(LIMIT, &mut task).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(ended)) => Err(SendError::temporary(match ended.try_into_panic() {
            Ok(panic) => format!("the sender panicked: {}", panics::message(&*panic)),
            Err(ended) => ended.to_string(),
        })),
        Err(_) => {
            task.abort();
            let _ = task.await;
            Err(SendError::temporary(format!("no answer within {} s", LIMIT.as_secs())))
        }
    }
}
