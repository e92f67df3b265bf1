//! Renews leases, enforces time limits and handles signals, on a thread of its own.
//!
//! A handler that blocks every thread of the application's runtime therefore neither loses its lease nor delays a
//! shutdown. The keeper
//!
//! - renews all leases periodically and learns of cancel requests and lost leases,
//! - stops attempts whose lease could not be renewed for its whole length,
//! - settles attempts whose own task is blocked,
//! - drains the worker on a signal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    limits::RENEW_LEASES,
    store::{Heartbeat, Lease, Renewed, TypeCapacity, WorkerInfo},
};
use futures_util::future::join_all;
use tokio::{sync::oneshot, time::MissedTickBehavior};

use super::{
    Worker, attempt, drain,
    running::RunningAttempt,
    settler::{self, PendingSettlement},
    supervise::supervise,
};
use crate::{cancellation::CancellationReason, signal::Signals, store_call::limited, telemetry::events};

/// Limit of the call that deregisters the worker.
const DEREGISTER_LIMIT: Duration = Duration::from_millis(500);

/// Starts the thread, which ends when the worker has stopped. The returned channel closes when the thread has released the
/// store.
pub(super) fn start(worker: Arc<Worker>, signals: bool) -> std::io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Installed before this returns: from then on a signal drains the process instead of killing it.
    let signals = {
        let _context = runtime.enter();
        signals.then(Signals::listen).transpose()?
    };
    let thread = std::thread::Builder::new().name("async-endpoints-keeper".to_owned());
    let (running, ended) = oneshot::channel::<()>();
    thread.spawn(move || {
        runtime.block_on(async {
            if let Some(signals) = signals {
                tokio::spawn(handle_signals(signals, worker.clone()));
            }
            let stop_requested = tokio::select! {
                () = supervise("keeper", &worker.restarts, || keep(&worker)) => tokio::time::Instant::now(),
                at = drain::run(&worker) => at,
            };
            worker.vitals.keeper.end();
            worker.vitals.heartbeats.end();
            worker.settled.cancel();
            deregister(&worker).await;
            worker.drained.cancel();
            drain::last_responses(&worker, stop_requested).await;
            worker.closed.cancel();
        });
        // Tasks of this runtime hold the worker as well.
        drop(runtime);
        drop(worker);
        drop(running);
    })?;
    Ok(ended)
}

/// The first signal starts the drain, the second ends it at once.
async fn handle_signals(mut signals: Signals, worker: Arc<Worker>) {
    signals.next().await;
    worker.stop();
    signals.next().await;
    worker.stop_now.cancel();
}

async fn keep(worker: &Arc<Worker>) {
    tokio::join!(renew_periodically(worker), enforce_limits(worker));
}

async fn renew_periodically(worker: &Arc<Worker>) {
    if !worker.types.is_empty() {
        worker.vitals.heartbeats.tick();
    }
    let mut ticks = tokio::time::interval((worker.options.lease / 4).min(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        renew_all(worker, &worker.table.all()).await;
    }
}

/// Runs beside the renewals, so that a renewal that hangs does not keep handlers with lost leases running.
async fn enforce_limits(worker: &Arc<Worker>) {
    let pace = (worker.options.lease / 16).clamp(Duration::from_millis(10), Duration::from_millis(250));
    loop {
        tokio::time::sleep(pace).await;
        worker.vitals.keeper.tick();
        let running = worker.table.all();
        stop_expired(&running);
        let blocked = take_over_blocked(worker, &running);
        if !blocked.is_empty() {
            let worker = worker.clone();
            tokio::spawn(async move { settler::settle(&*worker.store, blocked, worker.call_limit()).await });
        }
    }
}

/// Renews leases in calls of bounded size. Sends a heartbeat also when no attempt runs.
async fn renew_all(worker: &Worker, running: &[Arc<RunningAttempt>]) {
    if !running.is_empty() {
        join_all(running.chunks(RENEW_LEASES).map(|batch| renew(worker, batch))).await;
    } else if !worker.types.is_empty() {
        renew(worker, &[]).await;
    }
}

async fn renew(worker: &Worker, running: &[Arc<RunningAttempt>]) {
    let lease = worker.options.lease;
    let leases: Vec<Lease> = running.iter().map(|running| running.lease).collect();
    let held_until = Instant::now() + lease;
    let heartbeat = heartbeat(worker, lease * 2);
    match limited(lease / 2, worker.store.renew(&heartbeat, &leases, lease)).await {
        Ok(answers) => {
            worker.vitals.heartbeats.tick();
            running.iter().zip(answers).for_each(|(running, answer)| apply(running, answer, held_until));
        }
        Err(error) => events::store_failed("renew", &error),
    }
}

fn apply(running: &RunningAttempt, answer: Renewed, held_until: Instant) {
    match answer {
        Renewed::Held => running.hold_until(held_until),
        Renewed::CancelRequested => {
            running.hold_until(held_until);
            running.stop(CancellationReason::Canceled);
        }
        Renewed::Lost => running.stop(CancellationReason::LeaseLost),
    }
}

fn stop_expired(running: &[Arc<RunningAttempt>]) {
    let now = Instant::now();
    for running in running.iter().filter(|running| running.is_expired(now)) {
        running.stop(CancellationReason::LeaseLost);
    }
}

fn take_over_blocked(worker: &Worker, running: &[Arc<RunningAttempt>]) -> Vec<PendingSettlement> {
    let now = Instant::now();
    let blocked = running.iter().filter(|running| running.is_blocked(now));
    let taken = blocked.filter_map(|running| {
        let pending = attempt::take_over(worker, running, CancellationReason::TimedOut)?;
        running.mark_leaked();
        events::attempt_stalled(&running.info);
        Some(pending)
    });
    taken.collect()
}

fn heartbeat(worker: &Worker, ttl: Duration) -> Heartbeat {
    let controls = worker.controls.latest();
    let types = worker.types.iter().zip(worker.slots.running()).map(|(of_type, running)| TypeCapacity {
        name: of_type.name.clone(),
        running,
        limit: controls.limit(&of_type.name, of_type.policy.concurrency),
    });
    let (slots, types) = (worker.slots.snapshot(), types.collect());
    Heartbeat { worker: WorkerInfo { slots, types, ..worker.info.clone() }, ttl }
}

/// Removes the worker from the list of live workers. If the call fails, the worker's entry expires.
async fn deregister(worker: &Worker) {
    if !worker.types.is_empty() {
        let last = heartbeat(worker, Duration::ZERO);
        let _ = limited(DEREGISTER_LIMIT, worker.store.renew(&last, &[], worker.options.lease)).await;
    }
}
