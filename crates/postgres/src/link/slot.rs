//! Connection slots: their state, the calls that run on them, and connections that may no longer answer.
//!
//! A connection can die without notice: a proxy holds it open after the server behind it was replaced, accepts requests and
//! never answers. Some callers have limits below [`DEADLINE`](super::DEADLINE) and drop a call that takes longer. So a dropped call makes its
//! connection a suspect, which its keeper checks.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::mpsc;
use tokio_postgres::Client;

use super::Lane;
use crate::fail::Fail;

/// The place of one connection.
pub(super) struct Slot {
    pub(super) lane: Lane,
    state: Mutex<State>,
    running: AtomicUsize,
    reports: mpsc::UnboundedSender<Report>,
}

#[derive(Clone)]
pub(super) enum State {
    Connected(Connection),
    Disconnected { why: Arc<str>, since: Instant },
}

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Arc<Client>,
    /// Counts the connections of the slot.
    pub(super) number: u64,
    /// When it was made, or answered last.
    pub(super) alive_at: Instant,
    /// The keeper checks it. Calls wait for the result or use another connection.
    pub(super) is_suspect: bool,
}

/// A report to the keeper about the connection of this number.
pub(super) struct Report {
    pub(super) number: u64,
    pub(super) what: Symptom,
    /// When the call was sent that shows it.
    pub(super) sent_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symptom {
    /// The connection is of no use any more.
    Broken,
    /// A call reached the deadline. The server may still run its statement.
    Late,
    /// The connection may no longer answer.
    Suspect,
}

impl Slot {
    pub(super) fn new(lane: Lane) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (reports, received) = mpsc::unbounded_channel();
        let state = State::Disconnected { why: "not connected yet".into(), since: Instant::now() };
        (Self { lane, state: Mutex::new(state), running: AtomicUsize::new(0), reports }, received)
    }

    /// The number of calls that run on the connection.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(*self.state(), State::Connected { .. })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the keeper check the connection, unless it has answered since that time.
    pub(super) fn suspect(&self, since: Instant) {
        let number = match &*self.state() {
            State::Connected(connection) if connection.alive_at < since => connection.number,
            _ => return,
        };
        self.report(number, Symptom::Suspect, since);
    }

    /// The connection of this number has answered.
    pub(super) fn answered(&self, number: u64) {
        if let State::Connected(connection) = &mut *self.state()
            && connection.number == number
        {
            connection.alive_at = Instant::now();
        }
    }

    /// Ends the suspicion of the connection of this number if it has answered since that time. Returns whether it has.
    pub(super) fn acquit(&self, number: u64, since: Instant) -> bool {
        match &mut *self.state() {
            State::Connected(connection) if connection.number == number && connection.alive_at >= since => {
                connection.is_suspect = false;
                true
            }
            _ => false,
        }
    }

    /// Reports a symptom to the keeper. Takes the connection from later calls, unless it is only a suspect.
    fn report(&self, number: u64, what: Symptom, sent_at: Instant) {
        let mut state = self.state();
        let State::Connected(connection) = &mut *state else { return };
        if connection.number != number || what == Symptom::Suspect && connection.is_suspect {
            return;
        }
        match what {
            Symptom::Suspect => connection.is_suspect = true,
            _ => *state = State::Disconnected { why: "the connection broke".into(), since: Instant::now() },
        }
        // The keeper may have ended.
        let _ = self.reports.send(Report { number, what, sent_at });
    }
}

/// A call that runs on the connection of this number. If it is dropped before its end, the connection is a suspect.
pub(super) struct Call<'a> {
    slot: &'a Slot,
    number: u64,
    sent_at: Instant,
    /// What the call shows about its connection.
    symptom: Option<Symptom>,
}

impl<'a> Call<'a> {
    pub(super) fn begin(slot: &'a Slot, number: u64) -> Self {
        slot.running.fetch_add(1, Ordering::Relaxed);
        Self { slot, number, sent_at: Instant::now(), symptom: Some(Symptom::Suspect) }
    }

    pub(super) fn end<T>(mut self, answer: &Result<T, Fail>) {
        self.symptom = match answer {
            Err(Fail::Late) => Some(Symptom::Late),
            Err(fail) if fail.ends_connection() => Some(Symptom::Broken),
            _ => None,
        };
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.slot.running.fetch_sub(1, Ordering::Relaxed);
        match self.symptom {
            Some(symptom) => self.slot.report(self.number, symptom, self.sent_at),
            None => self.slot.answered(self.number),
        }
    }
}
