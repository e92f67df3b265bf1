//! Recovers the jobs of dead workers and clears away what is past its retention. Every process does it, also one that only
//! accepts; the store
//! sees to it that two at once do no harm.

use std::time::Duration;

use async_endpoints_core::{
    limits::SWEEP_JOBS,
    store::{Reclaim, Reclaimed, Result},
};

use super::Worker;
use crate::{error::Builtin, jitter, submit::limited, telemetry::events};

/// Sweeps for each look at retention.
const SWEEPS_PER_PRUNE: u32 = 8;
/// Calls in one go at most, so that a mountain of old jobs does not keep sweeps waiting.
const CALLS: u32 = 50;

/// Sweeps until the worker is done.
pub(super) async fn run(worker: &Worker) {
    let pace = (worker.options.lease / 8).clamp(Duration::from_millis(20), Duration::from_millis(800));
    for round in 0_u32.. {
        tokio::time::sleep(jitter::about(pace)).await;
        if let Err(error) = reclaim(worker).await {
            events::store_failed("reclaim", &error);
        }
        if round % SWEEPS_PER_PRUNE == 0
            && let Err(error) = prune(worker).await
        {
            events::store_failed("prune", &error);
        }
    }
}

async fn reclaim(worker: &Worker) -> Result<()> {
    let reclaim = Reclaim {
        limit: SWEEP_JOBS,
        lease: worker.options.lease,
        lost: Builtin::WorkerLost.record(None),
        canceled: Builtin::Canceled.record(None),
    };
    for _ in 0..CALLS {
        let Reclaimed::Done { recovered, more } = limited(worker.call_limit(), worker.store.reclaim(&reclaim)).await?
        else {
            break;
        };
        for job in recovered {
            events::job_recovered(&job);
        }
        if !more {
            break;
        }
    }
    Ok(())
}

async fn prune(worker: &Worker) -> Result<()> {
    for _ in 0..CALLS {
        if limited(worker.call_limit(), worker.store.prune(SWEEP_JOBS)).await? < SWEEP_JOBS {
            break;
        }
    }
    Ok(())
}
