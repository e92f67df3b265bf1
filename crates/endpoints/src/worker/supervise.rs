//! Restarts background tasks that panic and counts the restarts.

use std::{collections::BTreeMap, panic::AssertUnwindSafe};

use futures_util::FutureExt;

use crate::{backoff::Backoff, panics, sync::Mutex, telemetry::events};

/// Number of restarts after a panic, by background task.
#[derive(Debug, Default)]
pub(crate) struct Restarts(Mutex<BTreeMap<&'static str, u32>>);

impl Restarts {
    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, u32> {
        self.0.lock().clone()
    }

    fn count(&self, task: &'static str) -> u32 {
        let mut counts = self.0.lock();
        let count = counts.entry(task).or_default();
        *count += 1;
        *count
    }
}

/// Runs a task until it returns. Restarts it after a panic, with a growing pause.
pub(crate) async fn supervise<F: Future<Output = ()>>(task: &'static str, restarts: &Restarts, run: impl Fn() -> F) {
    let mut backoff = Backoff::default();
    while let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await {
        let count = restarts.count(task);
        events::task_restarted(task, count, panics::message(&*panic));
        tokio::time::sleep(backoff.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn panicking_task_is_restarted_and_counted() {
        let (restarts, runs) = (Restarts::default(), AtomicU32::new(0));
        supervise("test", &restarts, || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 3, "first three runs");
        })
        .await;
        assert_eq!(restarts.snapshot(), BTreeMap::from([("test", 3)]));
    }
}
