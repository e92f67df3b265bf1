//! Recovers jobs of dead workers and removes jobs past their retention.
//!
//! Every process runs both tasks, also one without handlers. The store makes concurrent sweeps safe.

use std::time::Duration;

use async_endpoints_core::{
    limits::SWEEP_JOBS,
    store::{Reclaim, Reclaimed, Result},
};

use super::Worker;
use crate::{error::Builtin, jitter, store_call::limited, telemetry::events};

/// Maximum number of store calls in one sweep.
const CALLS: u32 = 50;
/// Interval of retention checks.
const PRUNE_PACE: Duration = Duration::from_secs(5);

/// Periodically requeues jobs whose lease expired. Never returns.
pub(super) async fn sweep(worker: &Worker) {
    let pace = (worker.options.lease / 8).clamp(Duration::from_millis(20), Duration::from_millis(800));
    loop {
        tokio::time::sleep(jitter::about(pace)).await;
        if let Err(error) = reclaim(worker).await {
            events::store_failed("reclaim", &error);
        }
    }
}

/// Periodically removes jobs past their retention, in bounded calls. Never returns.
pub(super) async fn prune(worker: &Worker) {
    loop {
        match limited(worker.call_limit(), worker.store.prune(SWEEP_JOBS)).await {
            Ok(pruned) if pruned >= SWEEP_JOBS => tokio::task::yield_now().await,
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
        let reclaimed = limited(worker.call_limit(), worker.store.reclaim(&reclaim)).await?;
        if !matches!(reclaimed, Reclaimed::Done { more: true, .. }) {
            break;
        }
    }
    Ok(())
}
