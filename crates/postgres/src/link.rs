//! A fixed set of connections that are made again after they broke, driven by one thread of the store. Statements have no
//! names, so that they work behind a pooler that changes the server's session between transactions. Knows nothing of jobs.

mod keeper;
mod listen;
mod notify;
mod slot;

pub(crate) use listen::{Listened, Notifications};

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_endpoints_core::{StoreError, store};
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot, watch},
    time::timeout_at,
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use self::{
    keeper::{CHECK, Keeper},
    slot::{Call, Connection, Slot, State},
};
use crate::{
    fail::{Fail, OpenError},
    server::Server,
};

/// The time limit of a call. Below the 4.5 s of callers, so that the store cancels a late statement before its caller drops the call.
pub(crate) const DEADLINE: Duration = Duration::from_millis(4400);
/// How long a call waits for a new connection, from when the last one broke.
const RECONNECT: Duration = Duration::from_secs(1);

/// Which connections a call prefers. Calls of one lane do not wait for those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Acceptance of jobs.
    Submit,
    /// Claims, settlements and reads.
    Work,
    /// Renewals, and what must not wait behind a slow call.
    Urgent,
}

/// The numbers of connections, besides one each for urgent calls, for receiving and for sending hints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) submit: usize,
    pub(crate) work: usize,
}

/// Sends statements over the connections. Cheap to clone. The connections end with the last clone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    server: Arc<Server>,
    slots: Arc<[Slot]>,
    /// Changes whenever a connection was made or broke.
    changes: watch::Receiver<()>,
    notify: mpsc::Sender<notify::Message>,
    runtime: Handle,
    /// Dropped with the link, which ends its thread.
    _life: oneshot::Sender<()>,
}

impl Link {
    /// Starts the thread, and waits for the first connection. Later the connections are made again by themselves.
    pub(crate) async fn open(server: Server, sizes: Sizes) -> Result<Self, OpenError> {
        let server = Arc::new(server);
        let (changed, changes) = watch::channel(());
        let lanes = [(Lane::Urgent, 1), (Lane::Work, sizes.work), (Lane::Submit, sizes.submit)];
        let lanes = lanes.iter().flat_map(|(lane, number)| std::iter::repeat_n(*lane, *number));
        let (slots, reports): (Vec<Slot>, Vec<_>) = lanes.map(Slot::new).unzip();
        let slots: Arc<[Slot]> = slots.into();
        let keepers = reports.into_iter().enumerate().map(|(at, reports)| Keeper {
            server: Arc::clone(&server),
            slots: Arc::clone(&slots),
            at,
            changed: changed.clone(),
            reports,
        });
        let keepers: Vec<Keeper> = keepers.collect();
        let (notify, messages) = notify::channel();
        let (first, made) = oneshot::channel();
        let (life, ended) = oneshot::channel::<()>();
        let notifier = Arc::clone(&server);
        let (mut others_may_start, slots_of_run) = (changes.clone(), Arc::clone(&slots));
        let run = async move {
            let mut keepers = keepers.into_iter();
            tokio::spawn(keepers.next().map(|keeper| keeper.run(Some(first))).expect("one urgent connection"));
            // A server that is refused is asked once.
            let others = async {
                if others_may_start.wait_for(|()| slots_of_run[0].is_connected()).await.is_ok() {
                    keepers.for_each(|keeper| drop(tokio::spawn(keeper.run(None))));
                    tokio::spawn(notify::run(notifier, messages));
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = ended => {}
                () = others => {}
            }
        };
        let failed = |error: std::io::Error| OpenError::Unavailable(format!("cannot start a thread: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new().name("postgres-store".to_owned());
        drop(thread.spawn(move || runtime.block_on(run)).map_err(failed)?);
        let link = Self(Arc::new(Inner { server, slots, changes, notify, runtime: handle, _life: life }));
        match made.await {
            Ok(made) => made.map(|()| link),
            Err(_) => Err(OpenError::Unavailable("the store's thread has ended".to_owned())),
        }
    }

    /// The server, for its address and its checks.
    pub(crate) fn server(&self) -> &Server {
        &self.0.server
    }

    /// Runs a statement and returns its rows. Takes at most 4.4 seconds. Repeats once what failed because of a concurrent
    /// transaction. All types of parameters and results must be PostgreSQL's own.
    ///
    /// A caller may drop the call, for example at a time limit of its own. The statement may still take effect.
    pub(crate) async fn query(
        &self,
        lane: Lane,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> store::Result<Vec<Row>> {
        self.try_query(lane, sql, params).await.map_err(|fail| self.error(fail))
    }

    /// The contract's error of a failed statement.
    pub(crate) fn error(&self, fail: Fail) -> StoreError {
        fail.into_error(&self.0.server.address)
    }

    /// Like [`query`](Self::query), while the store is opened: a missing right is permanent.
    pub(crate) async fn query_opening(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, OpenError> {
        let answer = self.try_query(Lane::Work, sql, params).await;
        answer.map_err(|fail| fail.into_open_error(&self.0.server.address))
    }

    /// Like [`query`](Self::query), with an error that says more.
    pub(crate) async fn try_query(
        &self,
        lane: Lane,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Fail> {
        let until = Instant::now() + DEADLINE;
        match self.run(lane, sql, params, until).await {
            Err(fail) if fail.is_conflict() => self.run(lane, sql, params, until).await,
            answer => answer,
        }
    }

    async fn run(
        &self,
        lane: Lane,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
        until: Instant,
    ) -> Result<Vec<Row>, Fail> {
        let (slot, connection) = self.connection(lane, until).await?;
        let call = Call::begin(slot, connection.number);
        let answer = match timeout_at(until.into(), connection.client.query_typed(sql, params)).await {
            Ok(answer) => answer.map_err(Fail::from),
            Err(_) => Err(Fail::Late),
        };
        call.end(&answer);
        answer
    }

    /// The least busy connection of the lane, or else of another lane. Waits a moment if all broke just now, or if those of the
    /// lane are being checked.
    async fn connection(&self, lane: Lane, until: Instant) -> Result<(&Slot, Connection), Fail> {
        let mut changes = self.0.changes.clone();
        // Checks that are under way have ended by then.
        let checked = (Instant::now() + CHECK + CHECK / 4).min(until);
        loop {
            changes.mark_unchanged();
            let connected = self.0.slots.iter().filter_map(|slot| match &*slot.state() {
                State::Connected(connection) => Some((slot, connection.clone())),
                State::Disconnected { .. } => None,
            });
            let rank =
                |slot: &Slot, connection: &Connection| (slot.lane != lane, connection.is_suspect, slot.running());
            if let Some((slot, connection)) = connected.min_by_key(|(slot, connection)| rank(slot, connection)) {
                if !connection.is_suspect {
                    return Ok((slot, connection));
                }
                match timeout_at(checked.into(), changes.changed()).await {
                    Ok(Ok(())) => continue,
                    _ if checked < until => return Ok((slot, connection)),
                    _ => return Err(Fail::Disconnected("no connection has answered in time".to_owned())),
                }
            }
            let (why, since) = self.outage();
            if timeout_at((since + RECONNECT).min(until).into(), changes.changed()).await.is_err() {
                return Err(Fail::Disconnected(why.to_string()));
            }
        }
    }

    /// Why there is no connection, and since when.
    fn outage(&self) -> (Arc<str>, Instant) {
        let states = self.0.slots.iter().map(|slot| slot.state().clone());
        let outages = states.filter_map(|state| match state {
            State::Disconnected { why, since } => Some((why, since)),
            State::Connected(_) => None,
        });
        let latest = outages.max_by_key(|(_, since)| *since);
        latest.unwrap_or_else(|| ("reconnected just now".into(), Instant::now()))
    }

    /// Runs a task on the thread of the connections. It ends with the link.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.runtime.spawn(task));
    }

    /// Listens on a channel until the receiver is dropped.
    pub(crate) fn listen(&self, channel: &str) -> Notifications {
        let (sender, receiver) = mpsc::unbounded_channel();
        let listener = listen::Listener {
            server: Arc::clone(&self.0.server),
            channel: channel.to_owned(),
            notify: self.0.notify.clone(),
            to: sender,
        };
        self.0.runtime.spawn(listener.run());
        receiver
    }

    /// Publishes a line on a channel soon, outside of any transaction. Lines may be lost; equal ones are sent once.
    pub(crate) fn notify(&self, channel: &str, line: String) {
        // A full queue means that there is no connection. Listeners poll meanwhile.
        let _ = self.0.notify.try_send((channel.into(), line));
    }
}

#[cfg(test)]
mod tests;
