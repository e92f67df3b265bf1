//! Keeps this worker's leases, on a thread of its own: a handler that blocks every thread of the runtime does not
//! make the worker look dead.
//!
//! Each tick renews all leases in one call, learns of cancel requests and lost leases, gives up leases that could
//! not be renewed for their whole length, and ends attempts whose own task cannot.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    limits::RENEW_LEASES,
    store::{Beat, BeatType, Lease, Renewed},
};
use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::{
    Worker, attempt,
    running::{Running, Why},
    settler::{Batch, LAST_TRY},
    supervise::supervise,
};
use crate::telemetry::events;

/// Starts the thread. It ends when the worker is done.
pub(super) fn start(worker: Arc<Worker>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("async-endpoints-keeper".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = supervise("keeper", &worker.restarts, || keep(&worker)) => {}
                () = worker.done.cancelled() => {}
            }
            say_goodbye(&worker).await;
        });
        worker.gone.cancel();
    })?;
    Ok(())
}

async fn keep(worker: &Arc<Worker>) {
    let lease = worker.options.lease;
    let mut ticks = tokio::time::interval((lease / 4).min(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stalled = Batch::default();
    loop {
        ticks.tick().await;
        let running = worker.table.all();
        renew(worker, &running).await;
        give_up_unrenewed(&running, lease);
        end_stalled(worker, &running, &mut stalled);
        if !stalled.is_empty() {
            match tokio::time::timeout(lease / 2, stalled.try_settle(&*worker.store)).await {
                Ok(Ok(_)) => stalled = Batch::default(),
                Ok(Err(error)) => events::store_failed("settle", &error),
                Err(_) => events::store_silent("settle", lease / 2),
            }
        }
    }
}

/// All leases at once, in calls of bounded size; the beat is told also without leases.
async fn renew(worker: &Worker, running: &[Arc<Running>]) {
    if running.is_empty() {
        return renew_some(worker, &[]).await;
    }
    join_all(running.chunks(RENEW_LEASES).map(|some| renew_some(worker, some))).await;
}

async fn renew_some(worker: &Worker, running: &[Arc<Running>]) {
    let lease = worker.options.lease;
    let leases: Vec<Lease> = running.iter().map(|running| running.lease).collect();
    let asked = Instant::now();
    let beat = beat(worker, lease * 2);
    // A call that hangs must not keep the thread from giving up leases in time.
    match tokio::time::timeout(lease / 2, worker.store.renew(&beat, &leases, lease)).await {
        Ok(Ok(answers)) => running.iter().zip(answers).for_each(|(running, answer)| apply(running, answer, asked)),
        Ok(Err(error)) => events::store_failed("renew", &error),
        Err(_) => events::store_silent("renew", lease / 2),
    }
}

fn apply(running: &Running, answer: Renewed, asked: Instant) {
    match answer {
        Renewed::Held => running.set_renewed(asked),
        Renewed::CancelRequested => {
            running.set_renewed(asked);
            running.stop(Why::Canceled);
        }
        Renewed::Lost => running.stop(Why::LeaseLost),
    }
}

/// Another worker may run the job from now on.
fn give_up_unrenewed(running: &[Arc<Running>], lease: Duration) {
    let now = Instant::now();
    for running in running.iter().filter(|running| now.duration_since(running.renewed()) >= lease) {
        running.stop(Why::LeaseLost);
    }
}

fn end_stalled(worker: &Worker, running: &[Arc<Running>], into: &mut Batch) {
    let now = Instant::now();
    for running in running.iter().filter(|running| running.is_stalled(now)) {
        if let Some(settling) = attempt::take_over(worker, running, Why::TimedOut) {
            events::attempt_stalled(&running.info);
            into.push(settling);
        }
    }
}

fn beat(worker: &Worker, ttl: Duration) -> Beat {
    let running = worker.slots.running();
    let types = worker.kinds.iter().zip(running).map(|(kind, (running, limit))| BeatType {
        name: kind.name.clone(),
        running,
        limit,
    });
    Beat { worker: worker.id, types: types.collect(), slots: worker.slots.snapshot(), ttl }
}

/// Takes the worker off the list of live ones. If that fails, the list forgets it by itself.
async fn say_goodbye(worker: &Worker) {
    let goodbye = beat(worker, Duration::ZERO);
    let gone = worker.store.renew(&goodbye, &[], worker.options.lease);
    let _ = tokio::time::timeout(LAST_TRY, gone).await;
}
