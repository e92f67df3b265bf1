//! The end of a worker: nothing more is taken, what runs may end, and what does not is given back without using up a
//! retry. Runs on the keeper's thread.
//!
//! In all, the process is gone within `Options::shutdown` and three seconds, whatever handlers and store do.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Worker, attempt,
    running::{Running, Why},
    settler::{self, Settling},
};
use crate::telemetry::events;

/// How long the last settlements may take after the drain.
const LAST_SETTLEMENTS: Duration = Duration::from_millis(1000);
/// How long a handler that was aborted may take to be dropped, before its job may start elsewhere.
const LAST_DROPS: Duration = Duration::from_millis(300);
/// How long open connections may take at least to end, once everything else has.
const LAST_ANSWERS: Duration = Duration::from_millis(800);

/// Waits until it is told to stop, and returns when everything is settled or given back: since when it was told.
pub(super) async fn run(worker: &Arc<Worker>) -> Instant {
    worker.stopping.cancelled().await;
    let told = Instant::now();
    let within = worker.options.shutdown;
    events::stopping(within);
    worker.claiming.close();
    // Tokens fire a little before the time is over, so that polite handlers can still end.
    let last_call = (within / 4).min(Duration::from_secs(1));
    let settled = async {
        // What the claimer is just being given has to be started, or given back.
        worker.claiming.wait().await;
        worker.table.empty().await;
    };
    tokio::pin!(settled);
    tokio::select! {
        () = &mut settled => return told,
        () = tokio::time::sleep(within - last_call) => {}
        () = worker.hurry.cancelled() => {}
    }
    worker.table.all().iter().for_each(|running| running.stop(Why::Shutdown));
    if tokio::time::timeout(last_call, &mut settled).await.is_err() {
        give_back(worker).await;
    }
    told
}

/// Waits for requests in flight, an application's own among them: for as long as a drain may take, unless somebody is in a
/// hurry. Ends with the last connection.
pub(super) async fn last_answers(worker: &Worker, told: Instant) {
    let until = (told + worker.options.shutdown).max(Instant::now() + LAST_ANSWERS);
    let hurried = async {
        worker.hurry.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        () = worker.over.cancelled() => {}
        () = hurried => {}
        () = tokio::time::sleep_until(until) => {}
    }
}

async fn give_back(worker: &Worker) {
    // What a claim on its way still brings is given back by its own task: it was told to stop before it began.
    let _ = tokio::time::timeout(LAST_DROPS, worker.claiming.wait()).await;
    let running = worker.table.all();
    let left: Vec<(Arc<Running>, Settling)> = running
        .into_iter()
        .filter_map(|running| attempt::take_over(worker, &running, Why::Shutdown).map(|settling| (running, settling)))
        .collect();
    let (left, settling): (Vec<_>, Vec<_>) = left.into_iter().unzip();
    events::attempts_given_back(left.len());
    left.iter().for_each(|running| running.abort());
    let _ = tokio::time::timeout(LAST_DROPS, all_gone(&left)).await;
    // Those that had ended before are still at the settler: the table is empty when they are written as well.
    let written = async {
        settler::end(&*worker.store, settling, LAST_SETTLEMENTS).await;
        worker.table.empty().await;
    };
    let _ = tokio::time::timeout(LAST_SETTLEMENTS, written).await;
}

async fn all_gone(left: &[Arc<Running>]) {
    while !left.iter().all(|running| running.is_gone()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
