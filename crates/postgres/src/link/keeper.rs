//! Makes the connection of one slot, again and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_postgres::{CancelToken, Client};

use super::{
    DEADLINE,
    slot::{Connection, Report, Slot, State, Symptom},
};
use crate::{
    backoff::Backoff,
    fail::OpenError,
    server::{Driver, Server, Session},
};

/// The time limit of a check.
pub(super) const CHECK: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub(super) server: Arc<Server>,
    pub(super) slots: Arc<[Slot]>,
    pub(super) at: usize,
    pub(super) changed: watch::Sender<()>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
}

impl Keeper {
    /// Connects, and reconnects after each break, without end. Sends the result of the first attempt to `first`; ends if
    /// that attempt failed and `first` is given.
    pub(super) async fn run(mut self, mut first: Option<oneshot::Sender<Result<(), OpenError>>>) {
        let (mut number, mut backoff) = (0, Backoff::new());
        loop {
            let served = match self.server.connect().await {
                Ok(session) => {
                    number += 1;
                    let began = Instant::now();
                    let Session { client, driver, .. } = session;
                    let client = Arc::new(client);
                    let connection = Connection { client, number, alive_at: began, is_suspect: false };
                    self.set(State::Connected(connection.clone()));
                    drop(first.take().map(|first| first.send(Ok(()))));
                    let why = self.until_useless(connection, driver).await;
                    self.set(State::Disconnected { why: why.into(), since: Instant::now() });
                    began.elapsed()
                }
                Err(error) => {
                    let why = error.to_string().into();
                    let since = match &*self.slot().state() {
                        State::Disconnected { since, .. } => *since,
                        State::Connected(_) => Instant::now(),
                    };
                    self.set(State::Disconnected { why, since });
                    if let Some(first) = first.take() {
                        drop(first.send(Err(error)));
                        return;
                    }
                    Duration::ZERO
                }
            };
            backoff.wait(served).await;
        }
    }

    /// Waits until the connection has ended or is of no use any more. Returns the reason.
    async fn until_useless(&mut self, connection: Connection, mut driver: Driver) -> String {
        let Connection { client, number, .. } = connection;
        loop {
            let report = tokio::select! {
                why = driver.ended() => return why,
                report = self.reports.recv() => match report {
                    Some(report) if report.number < number => continue,
                    Some(report) => report,
                    None => return "the link has ended".to_owned(),
                },
            };
            match report.what {
                Symptom::Broken => return "the connection broke".to_owned(),
                Symptom::Late => {
                    self.suspect_others(report.sent_at);
                    // PgBouncer finds the statement by the connection, which so has to last.
                    self.server.cancel(client.cancel_token()).await;
                    return "no answer in time".to_owned();
                }
                Symptom::Suspect if self.check(&client, number).await => {}
                Symptom::Suspect => {
                    self.suspect_others(report.sent_at);
                    tokio::spawn(retire(Arc::clone(&self.server), client.cancel_token(), driver));
                    return "no answer to a check".to_owned();
                }
            }
        }
    }

    /// Whether the connection answers an empty statement, or another call meanwhile.
    async fn check(&self, client: &Client, number: u64) -> bool {
        let began = Instant::now();
        match timeout(CHECK, client.batch_execute("")).await {
            Ok(Err(error)) if error.as_db_error().is_none() => return false,
            Ok(_) => self.slot().answered(number),
            Err(_) => {}
        }
        let is_alive = self.slot().acquit(number, began);
        self.changed.send_replace(());
        is_alive
    }

    /// Other connections may have died together with this one, unless they have answered since.
    fn suspect_others(&self, since: Instant) {
        let others = self.slots.iter().enumerate().filter(|(at, _)| *at != self.at);
        others.for_each(|(_, slot)| slot.suspect(since));
    }

    fn slot(&self) -> &Slot {
        &self.slots[self.at]
    }

    fn set(&self, state: State) {
        *self.slot().state() = state;
        self.changed.send_replace(());
    }
}

/// Lets the calls that still run on a replaced connection end: a slow statement looks like a dead connection.
async fn retire(server: Arc<Server>, cancel: CancelToken, mut driver: Driver) {
    if timeout(DEADLINE, driver.ended()).await.is_err() {
        server.cancel(cancel).await;
    }
}
