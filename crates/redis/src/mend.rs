//! Finds jobs whose indexes disagree with them, and mends the indexes. That happens to nobody who leaves the keys alone, but
//! keys get lost: to an eviction, to a failover, to somebody's script. The job decides, never the index.
//!
//! One process of the fleet looks all the time, a little at a time; an operator may look at all at once.

use std::{sync::Arc, time::Duration};

use redis::Value;
use uuid::Uuid;

use crate::{
    args::Args,
    calls::Calls,
    fail::Fail,
    reply::{self, Items},
    store::RedisStore,
};

/// Entries that one step asks the server for, and that one call compares.
const STEP: usize = 250;
const COMPARED: usize = 50;
/// Between two steps, and between the end of one look at everything and the next.
pub(crate) const PACE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Who looks, for that long without another step.
const ROLE: &str = "mend";
const TERM: Duration = Duration::from_secs(90);

/// What a look at everything found.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Jobs and entries of indexes that were looked at.
    pub looked_at: u64,
    /// Jobs whose indexes, or entries whose jobs, disagreed and were mended.
    pub mended: u64,
    /// Jobs that could not be read and were put aside: `HGETALL {ae}:quarantine` says why.
    pub put_aside: u64,
}

impl RedisStore {
    /// Compares all jobs with all indexes now, in small steps that hold nobody up, and mends what disagrees. The store does
    /// the same by itself, slowly; this is for an operator who knows that something was lost.
    pub async fn mend(&self) -> Result<Mended, async_endpoints_core::StoreError> {
        let (mut walk, mut found) = (Walk::default(), Mended::default());
        loop {
            let step = walk.step(self.calls()).await.map_err(|fail| self.error(fail))?;
            found.looked_at += step.looked_at;
            found.mended += step.mended;
            found.put_aside += step.put_aside;
            if walk.is_over() {
                return Ok(found);
            }
        }
    }
}

/// Looks for ever, while it is this process's turn. What fails is tried again. Not at once: a process has better things to do
/// at its start, and one that an operator started to mend does it itself.
pub(crate) async fn run(calls: Arc<Calls>, [pace, rest]: [Duration; 2]) {
    let (me, mut walk, mut wait) = (Uuid::new_v4(), Walk::default(), rest);
    loop {
        tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        wait = match in_turn(&calls, me, &mut walk).await {
            Ok(true) if !walk.is_over() => pace,
            Ok(_) => {
                walk = Walk::default();
                rest
            }
            // It goes on from where it was.
            Err(_) => pace,
        };
    }
}

async fn in_turn(calls: &Calls, me: Uuid, walk: &mut Walk) -> Result<bool, Fail> {
    let args = Args::new().bytes(ROLE).text(me).duration(TERM).text(Uuid::new_v4());
    let held = reply::list(calls.call(&calls.scripts.role, &args).await?)?.int()? == 0;
    if held {
        walk.step(calls).await?;
    }
    Ok(held)
}

/// Places of a walk: all keys, then each index.
#[derive(Debug, Default)]
struct Walk {
    begun: bool,
    cursor: u64,
    /// Indexes that are left to look at, once all keys were.
    indexes: Option<Vec<Index>>,
}

/// A key that holds ids.
#[derive(Debug)]
struct Index {
    key: String,
    /// Whose jobs' it is; none for the leases of all.
    kind: String,
    /// What it has to be.
    is: &'static str,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.indexes.as_ref().is_some_and(Vec::is_empty)
    }

    async fn step(&mut self, calls: &Calls) -> Result<Mended, Fail> {
        let mut step = Mended::default();
        if !self.begun {
            step.mended += clear(calls).await?;
            self.begun = true;
        }
        let of_jobs = self.indexes.is_none();
        let found = if of_jobs { self.jobs(calls).await? } else { self.entries(calls).await? };
        step.looked_at = found.len() as u64;
        for some in found.chunks(COMPARED) {
            let args = some.iter().fold(Args::new(), |args, (id, kind)| args.bytes(id).bytes(kind));
            let mut answer = reply::list(calls.call(&calls.scripts.mend, &args).await?)?;
            step.mended += answer.number::<u64>()?;
            step.put_aside += answer.number::<u64>()?;
        }
        // Jobs make their types known first.
        if of_jobs && self.cursor == 0 {
            self.indexes = Some(indexes(calls).await?);
        }
        Ok(step)
    }

    /// The next jobs, by their keys.
    async fn jobs(&mut self, calls: &Calls) -> Result<Vec<(Vec<u8>, String)>, Fail> {
        let prefix = calls.key(format_args!("job:"));
        let mut command = redis::cmd("SCAN");
        command.arg(self.cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(STEP);
        let (cursor, keys) = scanned(calls.link.send(&command).await?)?;
        self.cursor = cursor;
        let ids = keys.filter_map(|key| match key {
            Value::BulkString(key) => Some((key.get(prefix.len()..)?.to_vec(), String::new())),
            _ => None,
        });
        Ok(ids.collect())
    }

    /// The next entries of an index.
    async fn entries(&mut self, calls: &Calls) -> Result<Vec<(Vec<u8>, String)>, Fail> {
        let Some(index) = self.indexes.as_ref().and_then(|indexes| indexes.last()) else { return Ok(Vec::new()) };
        let (scan, every) = if index.is == "set" { ("SSCAN", 1) } else { ("ZSCAN", 2) };
        let mut command = redis::cmd(scan);
        command.arg(&index.key).arg(self.cursor).arg("COUNT").arg(STEP);
        let (cursor, entries) = scanned(calls.link.send(&command).await?)?;
        let ids = entries.step_by(every).filter_map(|entry| match entry {
            Value::BulkString(id) => Some((id, index.kind.clone())),
            _ => None,
        });
        let ids = ids.collect();
        self.cursor = cursor;
        if cursor == 0 {
            drop(self.indexes.as_mut().and_then(Vec::pop));
        }
        Ok(ids)
    }
}

fn scanned(answer: Value) -> Result<(u64, Items), Fail> {
    let mut answer = reply::list(answer)?;
    Ok((reply::number(&answer.bytes()?)?, answer.list()?))
}

async fn indexes(calls: &Calls) -> Result<Vec<Index>, Fail> {
    let mut command = redis::cmd("SMEMBERS");
    let found = calls.link.send(command.arg(calls.key(format_args!("types")))).await?;
    let mut indexes = vec![Index { key: calls.key(format_args!("leased")), kind: String::new(), is: "zset" }];
    for kind in reply::list(found)? {
        let Value::BulkString(kind) = kind else { continue };
        let kind = reply::text(kind)?;
        for index in ["accepted", "queued", "scheduled", "running", "completed", "failed", "canceled", "delayed"] {
            let is = if index == "delayed" { "set" } else { "zset" };
            indexes.push(Index { key: calls.key(format_args!("{index}:{kind}")), kind: kind.clone(), is });
        }
    }
    Ok(indexes)
}

/// Removes what stands at an index's key and is none: it would be in the way of all jobs of the type. How many there were.
async fn clear(calls: &Calls) -> Result<u64, Fail> {
    let mut cleared = 0;
    for Index { key, is, .. } in indexes(calls).await? {
        let found = calls.link.send(redis::cmd("TYPE").arg(&key)).await?;
        if !matches!(&found, Value::SimpleString(found) if found == is || found == "none") {
            calls.link.send(redis::cmd("UNLINK").arg(&key)).await?;
            cleared += 1;
        }
    }
    Ok(cleared)
}
