//! Claims jobs against free permits and starts their attempts.
//!
//! No job is claimed ahead: waiting jobs stay in the store, where every worker can claim them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::{Attempt, Claim, LeaseToken, Result, TypeQuota},
};

use super::{Worker, attempt::AttemptTask, running::RunningAttempt};
use crate::{backoff::Backoff, context::AttemptInfo, jitter, store_call::limited, telemetry::events};

/// Interval of claims without a hint. Hints may be lost.
const POLL: Duration = Duration::from_secs(1);
/// Minimum pause after a claim that took no job, whatever `next_claim` says.
const MIN_PAUSE: Duration = Duration::from_millis(5);
/// Longest attempt timeout: a larger one could overflow `Instant`.
const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Claims and starts attempts until the worker stops.
pub(super) async fn run(worker: &Arc<Worker>) {
    let mut backoff = Backoff::default();
    while !worker.stopping.is_cancelled() {
        match claim(worker).await {
            Ok(round) => {
                backoff.reset();
                if !round.pause.is_zero() {
                    tokio::select! {
                        () = worker.wake.notified() => {}
                        () = tokio::time::sleep(round.pause) => {}
                        () = worker.stopping.cancelled() => {}
                    }
                }
            }
            Err(error) => {
                events::store_failed("claim", &error);
                // A freed permit must not end this pause: a failing store would then get a call for each.
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = worker.stopping.cancelled() => {}
                }
            }
        }
    }
}

pub(super) struct Round {
    pub(super) started: usize,
    /// Pause before the next claim, ended early by a hint or a freed permit. Zero if more jobs are runnable.
    pause: Duration,
}

/// Claims once, against the permits that are free now, and starts the attempts.
pub(super) async fn claim(worker: &Arc<Worker>) -> Result<Round> {
    let poll = jitter::about(POLL);
    let controls = worker.controls.known().await?;
    let limits = worker.types.iter().map(|of_type| controls.allowed(&of_type.name, of_type.policy.concurrency));
    let (free, by_type) = worker.slots.free(limits);
    let quotas = worker.types.iter().zip(by_type).filter(|(_, max)| *max > 0);
    let quotas: Vec<TypeQuota> = quotas
        .map(|(of_type, max)| TypeQuota { name: of_type.name.clone(), max, timeout: of_type.policy.timeout })
        .collect();
    if quotas.is_empty() {
        return Ok(Round { started: 0, pause: poll });
    }
    // The leases begin after the claim is sent, so this end is never too late.
    let held_until = Instant::now() + worker.options.lease;
    let claim = Claim {
        worker: worker.info.id,
        token: LeaseToken::random(),
        quotas,
        max: free.min(BATCH_JOBS as u32),
        max_bytes: BATCH_BYTES,
        lease: worker.options.lease,
    };
    // If this task dies before the attempts are started, their leases expire and their jobs are recovered.
    let claimed = limited(worker.call_limit(), worker.store.claim(&claim)).await?;
    let started = claimed.attempts.len();
    for attempt in claimed.attempts {
        start(worker, attempt, held_until);
    }
    let pause = claimed.next_claim.map_or(poll, |next| next.min(poll));
    Ok(Round { started, pause: if started == 0 { pause.max(MIN_PAUSE) } else { pause } })
}

fn start(worker: &Arc<Worker>, attempt: Attempt, held_until: Instant) {
    let Some(type_index) = worker.type_index(&attempt.name) else {
        return; // The store returned a type without a quota. The lease expires and another worker claims the job.
    };
    let permit = worker.slots.take(type_index);
    let deadline = Instant::now() + worker.types[type_index].policy.timeout.min(MAX_TIMEOUT);
    let progress = worker.progress.reporter(attempt.lease);
    let scope = worker.observed.enter(&attempt, &progress);
    let info = AttemptInfo::new(&attempt, scope, deadline, progress, worker.acceptor.clone());
    let running = Arc::new(RunningAttempt::new(&attempt, type_index, info, held_until, &permit));
    let task = AttemptTask::new(worker.clone(), running.clone());
    running.set_task(worker.tasks.spawn(task.run(attempt.payload, permit)).abort_handle());
}
