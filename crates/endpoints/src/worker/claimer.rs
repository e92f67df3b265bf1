//! Takes jobs while there are permits for them, and starts them. Nothing is claimed ahead: a job that waits,
//! waits in the store, where every worker can take it.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use async_endpoints_core::{
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::{Attempt, Claim, LeaseToken, Result, TypeQuota},
};

use super::{Worker, attempt::Seat, backoff::Backoff, running::Running};
use crate::{
    context::{AttemptInfo, ProgressReporter},
    jitter,
    store_call::limited,
    telemetry::events,
};

/// How long to wait for a hint before looking anyway: hints may be lost.
const POLL: Duration = Duration::from_secs(1);
/// After a claim that took nothing, though the store may say that there is more.
const LEAST: Duration = Duration::from_millis(5);
/// As good as never, and still a point in time that the clock can name.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Claims and starts attempts until the worker stops.
pub(super) async fn run(worker: &Arc<Worker>) {
    let mut backoff = Backoff::default();
    while !worker.stopping.is_cancelled() {
        let wait = match claim(worker).await {
            Ok(round) => {
                backoff.reset();
                round.next
            }
            Err(error) => {
                events::store_failed("claim", &error);
                // A permit given back must not cut this wait short: it would turn into a stream of failing calls.
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = worker.stopping.cancelled() => {}
                }
                continue;
            }
        };
        if wait.is_zero() {
            continue;
        }
        tokio::select! {
            () = worker.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = worker.stopping.cancelled() => {}
        }
    }
}

pub(super) struct Round {
    pub(super) started: usize,
    /// Until the next claim, if nothing happens before; zero if more could be had at once.
    next: Duration,
}

/// One claim, against the permits that are free now.
pub(super) async fn claim(worker: &Arc<Worker>) -> Result<Round> {
    let poll = jitter::about(POLL);
    let (free, by_kind) = worker.slots.free();
    let wants = worker.kinds.iter().zip(by_kind).filter(|(_, n)| *n > 0);
    let wants: Vec<TypeQuota> =
        wants.map(|(kind, n)| TypeQuota { name: kind.name.clone(), max: n, timeout: kind.policy.timeout }).collect();
    if wants.is_empty() {
        return Ok(Round { started: 0, next: poll });
    }
    // The leases begin after the claim is sent: counting from here errs on the safe side.
    let held_until = Instant::now() + worker.options.lease;
    let claim = Claim {
        worker: worker.id,
        token: LeaseToken::random(),
        quotas: wants,
        max: free.min(BATCH_JOBS as u32),
        max_bytes: BATCH_BYTES,
        lease: worker.options.lease,
    };
    // If this task dies before the attempts are started, their leases run out: a loss, not a lost job.
    let claimed = limited(worker.call_limit(), worker.store.claim(&claim)).await?;
    let started = claimed.attempts.len();
    for attempt in claimed.attempts {
        start(worker, attempt, held_until);
    }
    let next = claimed.next_claim.map_or(poll, |next| next.min(poll));
    Ok(Round { started, next: if started == 0 { next.max(LEAST) } else { next } })
}

fn start(worker: &Arc<Worker>, attempt: Attempt, held_until: Instant) {
    let Some(kind) = worker.kind(&attempt.name) else {
        return; // A store that gives what was not asked for: the lease runs out and another worker takes it.
    };
    let permit = worker.slots.take(kind);
    let deadline = Instant::now() + worker.kinds[kind].policy.timeout.min(LONGEST);
    let running = Arc::new_cyclic(|weak: &Weak<Running>| {
        let (reporter, weak) = (worker.reporter.clone(), weak.clone());
        let progress = ProgressReporter::new(move || reporter.changed(weak.clone()));
        Running::new(&attempt, kind, AttemptInfo::new(&attempt, deadline, progress), held_until, &permit)
    });
    let seat = Seat::new(worker.clone(), running.clone());
    running.set_task(tokio::spawn(seat.run(attempt.payload, permit)).abort_handle());
}
