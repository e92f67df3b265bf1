//! Finds jobs whose indexes disagree with them, and mends the indexes. That happens to nobody who leaves the keys alone, but
//! keys get lost: to an eviction, to a failover, to somebody's script. The job decides, never the index.
//!
//! One process of the fleet looks all the time, a little at a time; an operator may look at all at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{args::Args, calls::Calls, fail::Fail, reply, store::RedisStore};

/// Between the end of one look at everything and the next.
pub(crate) const REST: Duration = Duration::from_secs(60);
/// How long the fleet's look takes at a time, and how many times as long it rests then: it costs a hundredth of a server.
const BURST: Duration = Duration::from_millis(5);
const RESTS: u32 = 99;
/// Who looks, for that long without another step.
const ROLE: &str = "repair";
const TERM: Duration = Duration::from_secs(90);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(5);

/// What a look at everything found.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Jobs and entries of indexes that were looked at.
    pub checked: u64,
    /// Jobs whose indexes, or entries whose jobs, disagreed and were repaired.
    pub repaired: u64,
    /// Jobs that could not be read and were put aside: `HGETALL {ae}:quarantine` says why.
    pub quarantined: u64,
}

impl RedisStore {
    /// Compares all jobs with all indexes now, in small steps that hold nobody up, and mends what disagrees. The store does
    /// the same by itself, slowly; this is for an operator who knows that something was lost.
    pub async fn repair(&self) -> Result<Repaired, async_endpoints_core::StoreError> {
        let (mut place, mut all) = (Place::new(), Repaired::default());
        loop {
            let found = step(self.calls(), &mut place).await.map_err(|fail| self.error(fail))?;
            all.checked += found.checked;
            all.repaired += found.repaired;
            all.quarantined += found.quarantined;
            if place.is_empty() {
                return Ok(all);
            }
        }
    }
}

/// Where a look at everything goes on, in the script's words; empty at its beginning, and at its end.
type Place = Vec<u8>;

async fn step(calls: &Calls, place: &mut Place) -> Result<Repaired, Fail> {
    let mut found = reply::list(calls.call(&calls.scripts.repair, &Args::new().bytes(&place)).await?)?;
    *place = found.bytes()?;
    Ok(Repaired { checked: found.number()?, repaired: found.number()?, quarantined: found.number()? })
}

/// Looks for ever, while it is this process's turn. What fails is tried again. Not at once: a process has better things to do
/// at its start, and one that an operator started to repair does it itself.
pub(crate) async fn run(calls: Arc<Calls>, rest: Duration) {
    let (me, mut wait) = (Uuid::new_v4(), rest);
    loop {
        tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        // A step slows down with its server, and so does what comes after it.
        wait = match in_turn(&calls, me).await {
            Ok(Some(took)) => (took * RESTS).min(REST),
            Ok(None) => rest,
            Err(_) => rest.min(RETRY),
        };
    }
}

/// Looks for a moment, from where whoever had the role before came to; how long it took, or none if this is not its turn, or
/// everything was looked at.
async fn in_turn(calls: &Calls, me: Uuid) -> Result<Option<Duration>, Fail> {
    let args = Args::new().bytes(ROLE).text(me).duration(TERM).text(Uuid::new_v4());
    if reply::list(calls.call(&calls.scripts.role, &args).await?)?.int()? != 0 {
        return Ok(None);
    }
    let (role, began) = (calls.key(format_args!("role:{ROLE}")), Instant::now());
    let mut place =
        reply::maybe(calls.link.send(redis::cmd("HGET").arg(&role).arg("place")).await?)?.unwrap_or_default();
    loop {
        step(calls, &mut place).await?;
        let (over, took) = (place.is_empty(), began.elapsed());
        if over || took >= BURST {
            calls.link.send(redis::cmd("HSET").arg(&role).arg("place").arg(&place)).await?;
            return Ok((!over).then_some(took));
        }
    }
}
