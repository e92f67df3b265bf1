//! A fixed set of connections that are made again after they broke, driven by one thread of the store. Statements have no
//! names, so that they work behind a pooler that changes the server's session between transactions. Knows nothing of jobs.

mod keeper;
mod listen;
mod notify;

pub(crate) use listen::{Listened, Notifications};

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_endpoints_core::store;
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot, watch},
    time::timeout_at,
};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use self::keeper::Keeper;
use crate::{
    fail::{Fail, OpenError},
    server::Server,
};

/// The time limit of a call. Calls end within 5 seconds.
pub(crate) const DEADLINE: Duration = Duration::from_millis(4500);
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

/// The place of one connection.
struct Slot {
    lane: Lane,
    state: Mutex<State>,
    running: AtomicUsize,
    broke: mpsc::UnboundedSender<Broke>,
}

#[derive(Clone)]
enum State {
    Connected { client: Arc<Client>, number: u64 },
    Disconnected { why: Arc<str>, since: Instant },
}

/// Reports that the connection of this number is of no use any more.
struct Broke {
    number: u64,
    /// The server may still run a statement.
    cancel: bool,
}

/// Counts a call that runs on a connection.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Starts the thread, and waits for the first connection. Later the connections are made again by themselves.
    pub(crate) async fn open(server: Server, sizes: Sizes) -> Result<Self, OpenError> {
        let server = Arc::new(server);
        let (changed, changes) = watch::channel(());
        let lanes = [(Lane::Urgent, 1), (Lane::Work, sizes.work), (Lane::Submit, sizes.submit)];
        let lanes = lanes.iter().flat_map(|(lane, number)| std::iter::repeat_n(*lane, *number));
        let (slots, broken): (Vec<Slot>, Vec<_>) = lanes.map(Slot::new).unzip();
        let slots: Arc<[Slot]> = slots.into();
        let keepers = broken.into_iter().enumerate().map(|(at, broken)| Keeper {
            server: Arc::clone(&server),
            slots: Arc::clone(&slots),
            at,
            changed: changed.clone(),
            broken,
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

    /// Runs a statement and returns its rows. Takes at most 4.5 seconds. Repeats once what failed because of a concurrent
    /// transaction. All types of parameters and results must be PostgreSQL's own.
    pub(crate) async fn query(
        &self,
        lane: Lane,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> store::Result<Vec<Row>> {
        self.try_query(lane, sql, params).await.map_err(|fail| fail.into_error(&self.0.server.address))
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

    async fn try_query(&self, lane: Lane, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Fail> {
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
        let (slot, client, number) = self.connection(lane, until).await?;
        slot.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(&slot.running);
        let answer = match timeout_at(until.into(), client.query_typed(sql, params)).await {
            Ok(answer) => answer.map_err(Fail::from),
            Err(_) => Err(Fail::Late),
        };
        drop(running);
        if let Err(fail) = &answer
            && fail.ends_connection()
        {
            slot.leave(number);
            // The keeper may have ended.
            let _ = slot.broke.send(Broke { number, cancel: matches!(fail, Fail::Late) });
        }
        answer
    }

    /// The least busy connection of the lane, or else of another lane. Waits a moment if all broke just now.
    async fn connection(&self, lane: Lane, until: Instant) -> Result<(&Slot, Arc<Client>, u64), Fail> {
        let mut changes = self.0.changes.clone();
        loop {
            changes.mark_unchanged();
            let connected = self.0.slots.iter().filter_map(|slot| match &*slot.state() {
                State::Connected { client, number } => Some((slot, Arc::clone(client), *number)),
                State::Disconnected { .. } => None,
            });
            let busy = |slot: &Slot| (slot.lane != lane, slot.running.load(Ordering::Relaxed));
            if let Some(found) = connected.min_by_key(|(slot, ..)| busy(slot)) {
                return Ok(found);
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
            State::Connected { .. } => None,
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

impl Slot {
    fn new(lane: Lane) -> (Self, mpsc::UnboundedReceiver<Broke>) {
        let (broke, broken) = mpsc::unbounded_channel();
        let state = State::Disconnected { why: "not connected yet".into(), since: Instant::now() };
        (Self { lane, state: Mutex::new(state), running: AtomicUsize::new(0), broke }, broken)
    }

    /// Takes the connection of this number from later calls.
    fn leave(&self, number: u64) {
        let mut state = self.state();
        if matches!(&*state, State::Connected { number: current, .. } if *current == number) {
            *state = State::Disconnected { why: "the connection broke".into(), since: Instant::now() };
        }
    }

    fn is_connected(&self) -> bool {
        matches!(*self.state(), State::Connected { .. })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
