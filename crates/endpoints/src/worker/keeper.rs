//! Keeps this process's leases, and stops it in time, on a thread of its own: a handler that blocks every thread of the
//! runtime neither makes the worker look dead nor holds up its end.
//!
//! Renews all leases in one call a tick, and hears so of cancel requests and lost leases; gives up leases that could not
//! be renewed for their whole length; ends attempts whose own task cannot; listens to signals, and drains.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    limits::RENEW_LEASES,
    store::{Heartbeat, Lease, Renewed, TypeCapacity},
};
use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::{
    Worker, attempt, drain,
    running::{Running, Why},
    settler::{self, Settling},
    supervise::supervise,
};
use crate::{signal::Signals, store_call::limited, telemetry::events};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Starts the thread. It ends when the worker has stopped.
pub(super) fn start(worker: Arc<Worker>, signals: bool) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before this returns: once a process says that it runs, a signal asks it to stop and does not kill it.
    let signals = {
        let _context = runtime.enter();
        signals.then(Signals::listen).transpose()?
    };
    let thread = std::thread::Builder::new().name("async-endpoints-keeper".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            if let Some(signals) = signals {
                tokio::spawn(obey(signals, worker.clone()));
            }
            let told = tokio::select! {
                () = supervise("keeper", &worker.restarts, || keep(&worker)) => tokio::time::Instant::now(),
                told = drain::run(&worker) => told,
            };
            worker.done.cancel();
            say_goodbye(&worker).await;
            worker.gone.cancel();
            drain::last_answers(&worker, told).await;
            worker.over.cancel();
        });
    })?;
    Ok(())
}

/// The first signal asks to stop, the second ends the drain: whoever asks twice does not want to wait.
async fn obey(mut signals: Signals, worker: Arc<Worker>) {
    signals.next().await;
    worker.stopping.cancel();
    signals.next().await;
    worker.hurry.cancel();
}

async fn keep(worker: &Arc<Worker>) {
    tokio::join!(renew_for_ever(worker), watch_for_ever(worker));
}

async fn renew_for_ever(worker: &Arc<Worker>) {
    let mut ticks = tokio::time::interval((worker.options.lease / 4).min(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        renew(worker, &worker.table.all()).await;
    }
}

/// Apart from the renewals, so that one which hangs does not keep handlers of lost leases running.
async fn watch_for_ever(worker: &Arc<Worker>) {
    let pace = (worker.options.lease / 16).clamp(Duration::from_millis(10), Duration::from_millis(250));
    loop {
        tokio::time::sleep(pace).await;
        let running = worker.table.all();
        give_up_expired(&running);
        let stalled = end_stalled(worker, &running);
        if !stalled.is_empty() {
            let worker = worker.clone();
            tokio::spawn(async move { settler::end(&*worker.store, stalled, worker.call_limit()).await });
        }
    }
}

/// All leases at once, in calls of bounded size; the beat is told also without leases.
async fn renew(worker: &Worker, running: &[Arc<Running>]) {
    if !running.is_empty() {
        join_all(running.chunks(RENEW_LEASES).map(|some| renew_some(worker, some))).await;
    } else if !worker.kinds.is_empty() {
        renew_some(worker, &[]).await;
    }
}

async fn renew_some(worker: &Worker, running: &[Arc<Running>]) {
    let lease = worker.options.lease;
    let leases: Vec<Lease> = running.iter().map(|running| running.lease).collect();
    let held_until = Instant::now() + lease;
    let beat = beat(worker, lease * 2);
    match limited(lease / 2, worker.store.renew(&beat, &leases, lease)).await {
        Ok(answers) => running.iter().zip(answers).for_each(|(running, answer)| apply(running, answer, held_until)),
        Err(error) => events::store_failed("renew", &error),
    }
}

fn apply(running: &Running, answer: Renewed, held_until: Instant) {
    match answer {
        Renewed::Held => running.hold_until(held_until),
        Renewed::CancelRequested => {
            running.hold_until(held_until);
            running.stop(Why::Canceled);
        }
        Renewed::Lost => running.stop(Why::LeaseLost),
    }
}

fn give_up_expired(running: &[Arc<Running>]) {
    let now = Instant::now();
    for running in running.iter().filter(|running| running.is_expired(now)) {
        running.stop(Why::LeaseLost);
    }
}

fn end_stalled(worker: &Worker, running: &[Arc<Running>]) -> Vec<Settling> {
    let now = Instant::now();
    let stalled = running.iter().filter(|running| running.is_stalled(now));
    let ended = stalled.filter_map(|running| {
        let settling = attempt::take_over(worker, running, Why::TimedOut)?;
        running.mark_leaked();
        events::attempt_stalled(&running.info);
        Some(settling)
    });
    ended.collect()
}

fn beat(worker: &Worker, ttl: Duration) -> Heartbeat {
    let running = worker.slots.running();
    let types = worker.kinds.iter().zip(running).map(|(kind, (running, limit))| TypeCapacity {
        name: kind.name.clone(),
        running,
        limit,
    });
    Heartbeat { worker: worker.id, types: types.collect(), slots: worker.slots.snapshot(), ttl }
}

/// Takes the worker off the list of live ones. If that fails, the list forgets it by itself.
async fn say_goodbye(worker: &Worker) {
    if !worker.kinds.is_empty() {
        let goodbye = beat(worker, Duration::ZERO);
        let _ = limited(GOODBYE, worker.store.renew(&goodbye, &[], worker.options.lease)).await;
    }
}
