//! Stops a worker: claims no more jobs, waits for running attempts and releases the rest without using up a retry.
//!
//! Runs on the keeper's thread. The process can exit within [`Options::shutdown`](crate::Options::shutdown) plus three
//! seconds, whatever handlers and store do.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Worker, attempt,
    running::RunningAttempt,
    settler::{self, PendingSettlement},
};
use crate::{cancellation::CancellationReason, telemetry::events};

/// Time for the last settlements after the drain.
const LAST_SETTLEMENTS: Duration = Duration::from_millis(1000);
/// Time for aborted handlers to be dropped, before their jobs may start elsewhere.
const LAST_DROPS: Duration = Duration::from_millis(300);
/// Minimum time for open connections to end after the drain.
const LAST_RESPONSES: Duration = Duration::from_millis(800);

/// Waits for a stop request, then drains. Returns the begin of the drain when everything is settled or released.
pub(super) async fn run(worker: &Arc<Worker>) -> Instant {
    requested(worker).await;
    worker.stop();
    worker.begin_drain();
    let stop_requested = Instant::now();
    let within = worker.options.shutdown;
    events::stopping(within);
    worker.claiming.close();
    // Tokens fire shortly before the time is over, so that handlers can still return.
    let last_call = (within / 4).min(Duration::from_secs(1));
    let settled = async {
        // A claim in flight still starts its attempts, or releases them.
        worker.claiming.wait().await;
        worker.table.empty().await;
    };
    tokio::pin!(settled);
    tokio::select! {
        () = &mut settled => return stop_requested,
        () = tokio::time::sleep(within - last_call) => {}
        () = worker.stop_now.cancelled() => {}
    }
    worker.table.all().iter().for_each(|running| running.stop(CancellationReason::Shutdown));
    if tokio::time::timeout(last_call, &mut settled).await.is_err() {
        release_all(worker).await;
    }
    stop_requested
}

/// Waits for a stop request, and then for the delay, in which load balancers learn of it.
async fn requested(worker: &Worker) {
    let after_delay = async {
        worker.vitals.stop_requested.cancelled().await;
        let delay = worker.options.shutdown_delay;
        if delay > Duration::ZERO {
            events::stop_requested(delay);
            tokio::time::sleep(delay).await;
        }
    };
    tokio::select! {
        () = after_delay => {}
        () = worker.stop_now.cancelled() => {}
        () = worker.stopping.cancelled() => {}
    }
}

/// Waits for requests in flight, those of the application's own routes included.
///
/// Ends with the last connection, or when the shutdown time is over, or shortly after a second signal.
pub(super) async fn last_responses(worker: &Worker, stop_requested: Instant) {
    let until = (stop_requested + worker.options.shutdown).max(Instant::now() + LAST_RESPONSES);
    let stop_now = async {
        worker.stop_now.cancelled().await;
        tokio::time::sleep(LAST_RESPONSES).await;
    };
    tokio::select! {
        () = worker.closed.cancelled() => {}
        () = stop_now => {}
        () = tokio::time::sleep_until(until) => {}
    }
}

async fn release_all(worker: &Worker) {
    // Attempts of a claim in flight release themselves, since the stop was requested before they began.
    let _ = tokio::time::timeout(LAST_DROPS, worker.claiming.wait()).await;
    let (aborted, pending): (Vec<Arc<RunningAttempt>>, Vec<PendingSettlement>) = worker
        .table
        .all()
        .into_iter()
        .filter_map(|running| {
            attempt::take_over(worker, &running, CancellationReason::Shutdown).map(|taken| (running, taken))
        })
        .unzip();
    events::attempts_given_back(aborted.len());
    aborted.iter().for_each(|running| running.abort());
    let _ = tokio::time::timeout(LAST_DROPS, all_dropped(&aborted)).await;
    // The table is empty once the settler's pending settlements are written as well.
    let written = async {
        settler::settle(&*worker.store, pending, LAST_SETTLEMENTS).await;
        worker.table.empty().await;
    };
    let _ = tokio::time::timeout(LAST_SETTLEMENTS, written).await;
}

async fn all_dropped(aborted: &[Arc<RunningAttempt>]) {
    while !aborted.iter().all(|running| running.is_dropped()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
