//! Runs operations. One process of the fleet does it at a time, under the role [`BULK`].
//!
//! The role only saves work. An operation stays correct with two runners: each round is stored only by the process that took the
//! operation last, and to cancel or retry a job twice changes nothing.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use async_endpoints_core::{JobId, StoreError, limits::BATCH_JOBS, store::Role};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Act, Bulk,
    document::{BULK, read, update},
    members::{self, MemberFilter},
    operation::{Acted, Next, Operation, Round, State},
};
use crate::{
    store_call::{limited, within},
    telemetry::events,
};

/// Time after which no further job of a chunk is begun, so that a stop is noticed.
const ROUND: Duration = Duration::from_secs(1);
/// Number of jobs that are changed at a time: a whole chunk, which SQLite commits together.
const CONCURRENCY: usize = BATCH_JOBS;
/// Pause after a round that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// An operation that this process runs.
struct Taken {
    operation: Operation,
    filter: MemberFilter,
    /// Identifies this run.
    runner: Uuid,
    /// Whether the chunk may have been acted on before.
    is_repeat: bool,
}

impl Bulk {
    /// Runs operations until `stop` fires. Looks for operations of a process that died once per lease.
    pub(crate) async fn run(&self, act: &Act, stop: &CancellationToken) {
        let running = async {
            loop {
                // An error is not worth a log line: the outage of the store has one.
                if self.has_work().await.unwrap_or(false) {
                    self.run_all(act).await;
                }
                let _ = tokio::time::timeout(self.lease, self.started.notified()).await;
            }
        };
        stop.run_until_cancelled(running).await;
        self.resign().await;
    }

    async fn has_work(&self) -> Result<bool, StoreError> {
        Ok(read(&*self.store).await?.next().is_some())
    }

    /// Asks for the role, or keeps it.
    async fn has_role(&self) -> Result<bool, StoreError> {
        let role = within(self.store.role(BULK, self.id.0, self.lease)).await?;
        let is_held = matches!(role, Role::Held(_));
        self.holds_role.store(is_held, Ordering::Relaxed);
        Ok(is_held)
    }

    /// Gives the role up. Without an answer, the role ends with its lease.
    async fn resign(&self) {
        if self.holds_role.swap(false, Ordering::Relaxed) {
            let _ = limited(PAUSE, self.store.role(BULK, self.id.0, Duration::ZERO)).await;
        }
    }

    /// Runs all operations, as long as this process has the role.
    async fn run_all(&self, act: &Act) {
        while self.has_role().await.unwrap_or(false) {
            match self.take().await {
                Ok(Some(taken)) => {
                    events::bulk_runs_here(taken.operation.id, taken.is_repeat);
                    if !self.run_one(taken, act).await {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => sleep(PAUSE).await,
            }
        }
        self.resign().await;
    }

    /// Takes the operation that is next.
    async fn take(&self) -> Result<Option<Taken>, StoreError> {
        let runner = Uuid::new_v4();
        let taken = update(&*self.store, |document| {
            let operation = document.next()?;
            let is_repeat = operation.take(runner);
            Some((operation.clone(), is_repeat))
        });
        let Some((operation, is_repeat)) = taken.await? else { return Ok(None) };
        // The filter was checked when it was stored.
        let filter =
            operation.filter.checked(operation.action).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(Some(Taken { operation, filter, runner, is_repeat }))
    }

    /// Runs an operation until its end. Returns false if another process has it or the role.
    async fn run_one(&self, mut taken: Taken, act: &Act) -> bool {
        loop {
            let (round, has_failed) = match taken.operation.state {
                // The process that ran it died, or was stopped before.
                State::Stopping => (Round { remaining: taken.operation.chunk.clone(), ..Round::default() }, false),
                _ => self.round(&taken, act).await,
            };
            let next = loop {
                if matches!(self.has_role().await, Ok(false)) {
                    return false;
                }
                match self.store_round(&mut taken, &round).await {
                    Ok(next) => break next,
                    Err(_) => sleep(PAUSE).await,
                }
            };
            match next {
                Next::Lost => return false,
                Next::Ended => {
                    let tally = taken.operation.tally;
                    events::bulk_ended(taken.operation.id, tally.changed, tally.skipped, tally.failed);
                    return true;
                }
                // Of a call that failed, the effect is not known.
                Next::Continue => taken.is_repeat = has_failed,
            }
            if has_failed {
                sleep(PAUSE).await;
            }
        }
    }

    /// Stores a round. A repeat after a lost answer changes nothing.
    async fn store_round(&self, taken: &mut Taken, round: &Round) -> Result<Next, StoreError> {
        let (id, runner, rounds) = (taken.operation.id, taken.runner, taken.operation.rounds);
        let now = SystemTime::now().into();
        let stored = update(&*self.store, |document| {
            let operation = document.find(id)?;
            let next = operation.advance(runner, rounds, round, now);
            let operation = operation.clone();
            document.prune();
            Some((operation, next))
        });
        let Some((operation, next)) = stored.await? else { return Ok(Next::Lost) };
        taken.operation = operation;
        Ok(next)
    }

    /// Acts on the chunk for a time, then reads the next one. Returns whether the store failed.
    async fn round(&self, taken: &Taken, act: &Act) -> (Round, bool) {
        let Operation { action, filter, chunk, rest, .. } = &taken.operation;
        let until = Instant::now() + ROUND;
        let one = |id: JobId| async move {
            let acted = if Instant::now() < until { Some(act(*action, filter.status, id).await) } else { None };
            (id, acted)
        };
        let done: Vec<_> = stream::iter(chunk.clone()).map(one).buffer_unordered(CONCURRENCY).collect().await;
        let (mut round, mut has_failed) = (Round::default(), false);
        for (id, acted) in done {
            match acted {
                None => round.remaining.push(id),
                Some(Ok(acted)) => round.tally.count(acted, taken.is_repeat),
                Some(Err(error)) if error.is_transient() => {
                    round.remaining.push(id);
                    has_failed = true;
                }
                Some(Err(_)) => round.tally.count(Acted::Failed, taken.is_repeat),
            }
        }
        let mut rest = *rest;
        while rest.is_some() && round.remaining.is_empty() && !has_failed {
            let page = members::page(&*self.store, &taken.filter, rest).await;
            match page {
                Ok((members, behind)) => {
                    // A page of a filter that skips most jobs may have no members.
                    rest = behind.filter(|_| members.is_empty() && Instant::now() < until);
                    round.page = Some((members, behind));
                }
                Err(_) => has_failed = true,
            }
        }
        (round, has_failed)
    }
}
