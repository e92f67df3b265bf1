//! Recovers the jobs of dead workers and clears away what is past its retention. Every process does both, also one that
//! only accepts; the store sees to it that two at once do no harm.

use std::time::Duration;

use async_endpoints_core::{
    limits::SWEEP_JOBS,
    store::{Reclaim, Reclaimed, Result},
};

use super::Worker;
use crate::{error::Builtin, jitter, store_call::limited, telemetry::events};

/// Calls of one sweep at most.
const CALLS: u32 = 50;
/// Between two looks at retention.
const PRUNE_PACE: Duration = Duration::from_secs(5);

/// Takes expired leases away, for ever.
pub(super) async fn sweep(worker: &Worker) {
    let pace = (worker.options.lease / 8).clamp(Duration::from_millis(20), Duration::from_millis(800));
    loop {
        tokio::time::sleep(jitter::about(pace)).await;
        if let Err(error) = reclaim(worker).await {
            events::store_failed("reclaim", &error);
        }
    }
}

/// Clears away what is past its retention, for ever: as fast as it comes, in bounded calls.
pub(super) async fn prune(worker: &Worker) {
    loop {
        match limited(worker.call_limit(), worker.store.prune(SWEEP_JOBS)).await {
            Ok(cut) if cut >= SWEEP_JOBS => tokio::task::yield_now().await,
            Ok(_) => tokio::time::sleep(jitter::about(PRUNE_PACE.min(worker.options.lease))).await,
            Err(error) => {
                events::store_failed("prune", &error);
                tokio::time::sleep(jitter::about(PRUNE_PACE)).await;
            }
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
