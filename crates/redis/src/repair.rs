//! Finds jobs that disagree with their indexes, and repairs the indexes. Indexes can disagree after an eviction, a failover,
//! or a foreign script that changed keys.
//!
//! One process at a time repairs in the background, a little at a time. An operator can repair everything at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    args::Args,
    calls::Calls,
    fail::Fail,
    reply::{self, list},
    wire::role_args,
};

/// Between the end of one pass over everything and the next.
pub(crate) const REST: Duration = Duration::from_secs(60);
/// How long the background repair runs at a time, and how many times as long it then rests: it takes 1 % of the server.
const BURST: Duration = Duration::from_millis(5);
const RESTS: u32 = 99;
/// The role of the process that repairs, and how long the role lasts without another step.
const ROLE: &str = "repair";
const TERM: Duration = Duration::from_secs(90);
/// The wait after a step that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Counts of a repair.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Jobs and index entries that were checked.
    pub checked: u64,
    /// Jobs and index entries that disagreed and were repaired.
    pub repaired: u64,
    /// Jobs that could not be read and were quarantined. `HGETALL {ae}:quarantine` shows the reasons.
    pub quarantined: u64,
}

/// Compares all jobs with all indexes and repairs the indexes, in short steps.
pub(crate) async fn all(calls: &Calls) -> Result<Repaired, Fail> {
    let (mut place, mut all) = (Place::new(), Repaired::default());
    loop {
        let found = step(calls, &mut place).await?;
        all.checked += found.checked;
        all.repaired += found.repaired;
        all.quarantined += found.quarantined;
        if place.is_empty() {
            return Ok(all);
        }
    }
}

/// The place at which a pass continues, as the script wrote it. Empty at the beginning and at the end.
type Place = Vec<u8>;

async fn step(calls: &Calls, place: &mut Place) -> Result<Repaired, Fail> {
    let args = Args::new().bytes(&place);
    let decode = |answer| {
        let mut found = list(answer)?;
        let place = found.bytes()?;
        Ok((place, Repaired { checked: found.number()?, repaired: found.number()?, quarantined: found.number()? }))
    };
    let (next, repaired) = calls.call(&calls.scripts.repair, &args, decode).await?;
    *place = next;
    Ok(repaired)
}

/// Repairs without end while this process holds the role. The first step waits, because a process has other work when it
/// starts.
pub(crate) async fn run(calls: Arc<Calls>, rest: Duration) {
    let (holder, mut wait) = (Uuid::new_v4(), rest);
    loop {
        tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        // The slower the server, the longer the step and the rest after it.
        wait = match burst(&calls, holder).await {
            Ok(Some(took)) => (took * RESTS).min(REST),
            Ok(None) => rest,
            Err(_) => rest.min(RETRY),
        };
    }
}

/// Repairs for a moment, from the place that the last holder of the role reached. Returns how long it took; `None` if another
/// process holds the role, or if the pass is done.
async fn burst(calls: &Calls, holder: Uuid) -> Result<Option<Duration>, Fail> {
    let held = |answer| Ok(list(answer)?.int()? == 0);
    if !calls.call(&calls.scripts.role, &role_args(ROLE, holder, TERM), held).await? {
        return Ok(None);
    }
    let (role, began) = (calls.key(format_args!("role:{ROLE}")), Instant::now());
    let mut place =
        reply::maybe(calls.link.send(redis::cmd("HGET").arg(&role).arg("place")).await?)?.unwrap_or_default();
    loop {
        step(calls, &mut place).await?;
        let (done, took) = (place.is_empty(), began.elapsed());
        if done || took >= BURST {
            calls.link.send(redis::cmd("HSET").arg(&role).arg("place").arg(&place)).await?;
            return Ok((!done).then_some(took));
        }
    }
}
