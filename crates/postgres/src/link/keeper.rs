//! Makes the connection of one slot, again and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_postgres::CancelToken;

use super::{Broke, Slot, State};
use crate::{
    backoff::Backoff,
    fail::OpenError,
    server::{Driver, Server, Session},
};

pub(super) struct Keeper {
    pub(super) server: Arc<Server>,
    pub(super) slots: Arc<[Slot]>,
    pub(super) at: usize,
    pub(super) changed: watch::Sender<()>,
    pub(super) broken: mpsc::UnboundedReceiver<Broke>,
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
                    let cancel = client.cancel_token();
                    self.set(State::Connected { client: Arc::new(client), number });
                    drop(first.take().map(|first| first.send(Ok(()))));
                    let why = self.until_broken(driver, number, cancel).await;
                    self.set(State::Disconnected { why: why.into(), since: Instant::now() });
                    began.elapsed()
                }
                Err(error) => {
                    let why = error.to_string().into();
                    let since = match &*self.slot().state() {
                        State::Disconnected { since, .. } => *since,
                        State::Connected { .. } => Instant::now(),
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

    /// Waits until the connection has ended, or a caller reports that it is of no use. Returns the reason.
    async fn until_broken(&mut self, mut driver: Driver, number: u64, cancel: CancelToken) -> String {
        loop {
            tokio::select! {
                why = driver.ended() => return why,
                broke = self.broken.recv() => match broke {
                    Some(Broke { number: other, .. }) if other < number => {}
                    Some(Broke { cancel: true, .. }) => {
                        // PgBouncer finds the statement by the connection, which so has to last.
                        self.server.cancel(cancel).await;
                        return "no answer in time".to_owned();
                    }
                    _ => return "the connection broke".to_owned(),
                },
            }
        }
    }

    fn slot(&self) -> &Slot {
        &self.slots[self.at]
    }

    fn set(&self, state: State) {
        *self.slot().state() = state;
        self.changed.send_replace(());
    }
}
