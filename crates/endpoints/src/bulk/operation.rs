//! The state machine of a bulk operation. Pure: the caller acts on jobs, reads pages and stores the result.

use async_endpoints_core::{JobId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BulkAction, BulkFilter, BulkOperation, BulkStatus, members::Position};

/// The effect of an action on one job.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acted {
    Changed,
    /// The job is as the action leaves it. Someone else may have done it, or this operation before its process died.
    Already,
    Skipped,
    Failed,
}

/// A stored operation, from its preview on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    pub(super) id: Uuid,
    pub(super) action: BulkAction,
    pub(super) filter: BulkFilter,
    pub(super) state: State,
    /// Number of members that the preview counted.
    pub(super) count: u64,
    /// Whether it counted all of them.
    pub(super) complete: bool,
    /// The members to act on next. Stored before any of them is changed, so that a process that continues knows which members
    /// its predecessor may have changed.
    pub(super) chunk: Vec<JobId>,
    /// Where the members behind the chunk begin; none if there are no more.
    pub(super) rest: Option<Position>,
    /// The process run that may write progress. Made anew by each process that takes the operation.
    pub(super) runner: Option<Uuid>,
    /// Number of stored rounds. A repeated write of a round is recognized by it.
    pub(super) rounds: u64,
    #[serde(flatten)]
    pub(super) tally: Tally,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
}

/// Where an operation is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Previewed,
    Running,
    Stopping,
    Stopped,
    Completed,
}

/// Numbers of members by what happened to them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) changed: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
}

/// What a process did since the last stored round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) tally: Tally,
    /// Members of the chunk that are not done.
    pub(super) remaining: Vec<JobId>,
    /// The next members, and where those behind them begin. None if they were not read.
    pub(super) page: Option<(Vec<JobId>, Option<Position>)>,
}

/// Whether the process goes on with an operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Ended,
    /// Another process runs the operation.
    Lost,
}

impl Tally {
    /// Counts a member. `is_repeat`: the chunk may have been acted on before.
    pub(super) fn count(&mut self, acted: Acted, is_repeat: bool) {
        match acted {
            Acted::Already if is_repeat => self.changed += 1,
            Acted::Changed => self.changed += 1,
            Acted::Already | Acted::Skipped => self.skipped += 1,
            Acted::Failed => self.failed += 1,
        }
    }

    fn sum(self) -> u64 {
        self.changed + self.skipped + self.failed
    }

    fn add(&mut self, other: Self) {
        self.changed += other.changed;
        self.skipped += other.skipped;
        self.failed += other.failed;
    }
}

impl Operation {
    /// Whether a process must run the operation.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Running | State::Stopping)
    }

    /// Starts a previewed operation. A repeat changes nothing.
    pub(super) fn start(&mut self, now: Timestamp) {
        if self.state == State::Previewed {
            (self.state, self.started_at) = (State::Running, Some(now));
        }
    }

    /// Ends an operation that waits, and requests the end of one that a process runs. An ended one stays as it is.
    pub(super) fn stop(&mut self, now: Timestamp) {
        match (self.state, self.runner) {
            (State::Running, None) => self.end(State::Stopped, now),
            (State::Running, Some(_)) => self.state = State::Stopping,
            _ => {}
        }
    }

    fn end(&mut self, state: State, now: Timestamp) {
        (self.state, self.ended_at) = (state, Some(now));
        self.chunk.clear();
    }

    /// Gives the operation to a process. Returns whether another one had it, which may have acted on the chunk.
    pub(super) fn take(&mut self, runner: Uuid) -> bool {
        self.runner.replace(runner).is_some()
    }

    /// Stores a round of `runner`, which is the one after `rounds`.
    pub(super) fn advance(&mut self, runner: Uuid, rounds: u64, round: &Round, now: Timestamp) -> Next {
        if self.runner != Some(runner) {
            return Next::Lost;
        }
        // Otherwise the round is stored, and its answer was lost.
        if self.rounds == rounds && self.is_active() {
            self.apply(round, now);
        }
        if self.is_active() { Next::Continue } else { Next::Ended }
    }

    fn apply(&mut self, round: &Round, now: Timestamp) {
        self.rounds += 1;
        self.tally.add(round.tally);
        self.chunk.clone_from(&round.remaining);
        if let Some((members, rest)) = &round.page {
            self.chunk.extend(members);
            self.rest = *rest;
        }
        let is_done = self.chunk.is_empty() && self.rest.is_none();
        if is_done {
            // Members that left the state before their turn are no longer in the list.
            let left = self.count.saturating_sub(self.tally.sum());
            self.tally.skipped += if self.complete { left } else { 0 };
            self.end(State::Completed, now);
        } else if self.state == State::Stopping {
            self.end(State::Stopped, now);
        }
    }

    /// What operators see; none for a preview.
    pub(super) fn view(&self) -> Option<BulkOperation> {
        let status = match self.state {
            State::Previewed => return None,
            State::Running => BulkStatus::Running,
            State::Stopping => BulkStatus::Stopping,
            State::Stopped => BulkStatus::Stopped,
            State::Completed => BulkStatus::Completed,
        };
        let Tally { changed, skipped, failed } = self.tally;
        let is_known = self.complete || self.state == State::Completed;
        Some(BulkOperation {
            id: self.id,
            action: self.action,
            filter: self.filter.clone(),
            status,
            total: is_known.then(|| self.count.max(self.tally.sum())),
            changed,
            skipped,
            failed,
            started_at: self.started_at?,
            ended_at: self.ended_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1);
    const RUNNER: Uuid = Uuid::from_u128(7);

    fn position(score: u64) -> Option<Position> {
        Some(Position { since: NOW, score, id: JobId(Uuid::nil()) })
    }

    fn members(count: u128) -> Vec<JobId> {
        (0..count).map(|id| JobId(Uuid::from_u128(id))).collect()
    }

    fn tally(changed: u64, skipped: u64, failed: u64) -> Tally {
        Tally { changed, skipped, failed }
    }

    /// A running operation of ten members, three of them in the chunk.
    fn running() -> Operation {
        let mut operation = Operation {
            id: Uuid::nil(),
            action: BulkAction::Cancel,
            filter: BulkFilter::default(),
            state: State::Previewed,
            count: 10,
            complete: true,
            chunk: members(3),
            rest: position(3),
            runner: None,
            rounds: 0,
            tally: Tally::default(),
            started_at: None,
            ended_at: None,
        };
        assert!(operation.view().is_none() && !operation.is_active());
        operation.start(NOW);
        assert!(!operation.take(RUNNER));
        operation
    }

    #[test]
    fn round_moves_the_operation() {
        let done = |page| Round { tally: tally(3, 0, 0), remaining: Vec::new(), page };
        let unread = |remaining| Round { tally: tally(1, 1, 1), remaining, page: None };
        for (round, is_stopping, state, chunk, sum) in [
            (done(Some((members(2), position(5)))), false, State::Running, 2, 3),
            (done(Some((members(2), None))), false, State::Running, 2, 3),
            (done(Some((Vec::new(), position(5)))), false, State::Running, 0, 3),
            (done(None), false, State::Running, 0, 3),
            (unread(members(1)), false, State::Running, 1, 3),
            (done(Some((Vec::new(), None))), false, State::Completed, 0, 10),
            (done(Some((members(2), position(5)))), true, State::Stopped, 0, 3),
            (unread(members(1)), true, State::Stopped, 0, 3),
            (done(Some((Vec::new(), None))), true, State::Completed, 0, 10),
        ] {
            let mut operation = running();
            if is_stopping {
                operation.stop(NOW);
                assert_eq!(operation.view().map(|view| view.status), Some(BulkStatus::Stopping));
            }
            let next = operation.advance(RUNNER, 0, &round, NOW);
            let found = (operation.state, operation.chunk.len(), operation.tally.sum());
            assert_eq!(found, (state, chunk, sum), "{round:?} {is_stopping}");
            assert_eq!(next == Next::Ended, operation.ended_at.is_some(), "{round:?}");
            assert_eq!(next == Next::Continue, state == State::Running, "{round:?}");
        }
    }

    #[test]
    fn stop_ends_an_operation_that_waits() {
        let mut operation = Operation { runner: None, ..running() };
        operation.stop(NOW);
        assert_eq!((operation.state, operation.ended_at), (State::Stopped, Some(NOW)));
        assert!(operation.chunk.is_empty() && !operation.is_active());
    }

    #[test]
    fn repeated_round_counts_once() {
        let mut operation = running();
        let round = Round { tally: tally(3, 0, 0), remaining: Vec::new(), page: Some((members(2), None)) };
        assert_eq!(operation.advance(RUNNER, 0, &round, NOW), Next::Continue);
        let stored = operation.clone();
        assert_eq!(operation.advance(RUNNER, 0, &round, NOW), Next::Continue);
        assert_eq!(operation, stored);
    }

    #[test]
    fn round_of_an_earlier_process_is_lost() {
        let mut operation = running();
        assert!(operation.take(Uuid::from_u128(8)), "the first process may have acted");
        let stored = operation.clone();
        assert_eq!(operation.advance(RUNNER, 0, &Round::default(), NOW), Next::Lost);
        assert_eq!(operation, stored);
    }

    #[test]
    fn ended_operation_never_changes() {
        let mut operation = running();
        let last = Round { tally: tally(10, 0, 0), remaining: Vec::new(), page: Some((Vec::new(), None)) };
        assert_eq!(operation.advance(RUNNER, 0, &last, NOW), Next::Ended);
        let ended = operation.clone();
        operation.stop(NOW);
        operation.start(Timestamp::from_micros(2));
        assert_eq!(operation.advance(RUNNER, 1, &last, NOW), Next::Ended);
        assert_eq!(operation, ended);
    }

    #[test]
    fn total_is_known_when_all_are_counted() {
        for (complete, count, before, after) in [(true, 10, Some(10), 10), (false, 2, None, 3), (true, 2, Some(2), 3)] {
            let mut operation = Operation { complete, count, ..running() };
            assert_eq!(operation.view().expect("started").total, before);
            let round = Round { tally: tally(3, 0, 0), remaining: Vec::new(), page: Some((Vec::new(), None)) };
            operation.advance(RUNNER, 0, &round, NOW);
            let view = operation.view().expect("started");
            assert_eq!(view.total, Some(after));
            assert_eq!(view.changed + view.skipped + view.failed, after);
        }
    }

    #[test]
    fn member_counts_by_what_happened() {
        for (acted, is_repeat, expected) in [
            (Acted::Changed, false, tally(1, 0, 0)),
            (Acted::Changed, true, tally(1, 0, 0)),
            (Acted::Already, false, tally(0, 1, 0)),
            (Acted::Already, true, tally(1, 0, 0)),
            (Acted::Skipped, true, tally(0, 1, 0)),
            (Acted::Failed, false, tally(0, 0, 1)),
        ] {
            let mut counted = Tally::default();
            counted.count(acted, is_repeat);
            assert_eq!(counted, expected, "{acted:?} {is_repeat}");
        }
    }
}
