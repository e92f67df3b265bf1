//! A connection that is made again after it broke, driven by the runtime on which its keeper runs. Knows nothing of commands.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Cmd, Value, aio::MultiplexedConnection};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    backoff::Backoff,
    fail::{Fail, OpenError},
    server::Server,
};

/// The time limits of connecting and of an answer.
const CONNECT: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// The interval of pings, which find a broken connection before a call needs it.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a call waits for a new connection, from when the last one broke.
const RECONNECT: Duration = Duration::from_secs(1);
/// Commands queued for the connection's task. Callers wait while the queue is full.
const PIPELINE: usize = 1024;

/// Sends commands over the current connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    state: watch::Receiver<State>,
    broke: mpsc::UnboundedSender<u64>,
}

#[derive(Clone)]
enum State {
    Connected { conn: MultiplexedConnection, number: u64 },
    Disconnected { why: Arc<str>, since: Instant },
}

/// Makes the connections.
pub(crate) struct Keeper {
    server: Arc<Server>,
    state: watch::Sender<State>,
    broken: mpsc::UnboundedReceiver<u64>,
}

/// A link and its keeper.
pub(crate) fn new(server: Arc<Server>) -> (Link, Keeper) {
    let unconnected = State::Disconnected { why: "not connected yet".into(), since: Instant::now() };
    let (sender, state) = watch::channel(unconnected);
    let (broke, broken) = mpsc::unbounded_channel();
    (Link { state, broke }, Keeper { server, state: sender, broken })
}

impl Link {
    /// Sends a command and returns its answer. Takes at most 4 seconds.
    pub(crate) async fn send(&self, cmd: &Cmd) -> Result<Value, Fail> {
        let (mut conn, number) = self.connection().await?;
        let answer = conn.send_packed_command(cmd).await.and_then(Value::extract_error).map_err(Fail::from);
        self.note(number, answer)
    }

    /// Sends commands together and returns their answers in order.
    pub(crate) async fn send_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, Fail> {
        let (mut conn, number) = self.connection().await?;
        let answers = conn.send_packed_commands(commands, 0, commands.len()).await;
        let answers = answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        self.note(number, answers.map_err(Fail::from))
    }

    /// The current connection.
    pub(crate) async fn conn(&self) -> Result<MultiplexedConnection, Fail> {
        self.connection().await.map(|(conn, _)| conn)
    }

    /// Reports a broken connection to the keeper.
    fn note<T>(&self, number: u64, answer: Result<T, Fail>) -> Result<T, Fail> {
        if answer.as_ref().is_err_and(Fail::ends_connection) {
            // The keeper may have ended.
            let _ = self.broke.send(number);
        }
        answer
    }

    /// The current connection and its number. Waits a moment if the connection broke just now.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), Fail> {
        let mut state = self.state.clone();
        let until = match &*state.borrow() {
            State::Connected { conn, number } => return Ok((conn.clone(), *number)),
            State::Disconnected { since, .. } => *since + RECONNECT,
        };
        let connected = state.wait_for(|state| matches!(state, State::Connected { .. }));
        match tokio::time::timeout_at(until.into(), connected).await.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(State::Connected { conn, number })) => Ok((conn, number)),
            Ok(_) => Err(Fail::Disconnected("the store's task has ended".to_owned())),
            Err(_) => Err(Fail::Disconnected(self.why())),
        }
    }

    fn why(&self) -> String {
        match &*self.state.borrow() {
            State::Disconnected { why, .. } => why.to_string(),
            State::Connected { .. } => "reconnected just now".to_owned(),
        }
    }
}

impl Keeper {
    /// Connects, and reconnects after each break, without end. Sends the result of the first attempt to `first`; ends if
    /// that attempt failed and `first` is given.
    pub(crate) async fn run(mut self, mut first: Option<oneshot::Sender<Result<(), OpenError>>>) {
        let (mut number, mut backoff) = (0, Backoff::new());
        loop {
            let served = match self.connect().await {
                Ok(conn) => {
                    number += 1;
                    let began = Instant::now();
                    self.state.send_replace(State::Connected { conn: conn.clone(), number });
                    drop(first.take().map(|first| first.send(Ok(()))));
                    let why = self.until_broken(conn, number).await;
                    self.state.send_replace(State::Disconnected { why: why.into(), since: Instant::now() });
                    began.elapsed()
                }
                Err(error) => {
                    let why = error.to_string().into();
                    self.state.send_modify(|state| {
                        let since = match state {
                            State::Disconnected { since, .. } => *since,
                            State::Connected { .. } => Instant::now(),
                        };
                        *state = State::Disconnected { why, since };
                    });
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

    async fn connect(&self) -> Result<MultiplexedConnection, OpenError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_pipeline_buffer_size(PIPELINE);
        let making = async {
            let connected = self.server.client.get_multiplexed_async_connection_with_config(&config).await;
            let mut conn = connected.map_err(|error| self.server.refused(&error))?;
            self.server.check(&mut conn).await?;
            Ok(conn)
        };
        // The limit also covers a server that accepts the connection and then does not answer.
        let late = |_| Err(OpenError::Unavailable(format!("{}: no answer within {CONNECT:?}", self.server.address)));
        tokio::time::timeout(CONNECT, making).await.unwrap_or_else(late)
    }

    /// Waits until a caller reports that the connection broke, or a ping fails. Returns the reason.
    async fn until_broken(&mut self, mut conn: MultiplexedConnection, number: u64) -> String {
        let ping = redis::cmd("PING");
        conn.set_response_timeout(2 * PING_EVERY);
        loop {
            tokio::select! {
                broken = self.broken.recv() => match broken {
                    Some(other) if other < number => {}
                    _ => return "the connection broke".to_owned(),
                },
                () = tokio::time::sleep(PING_EVERY) => {
                    let answer = conn.send_packed_command(&ping).await.and_then(Value::extract_error);
                    if let Err(error) = answer && Fail::from(error.clone()).ends_connection() {
                        return error.to_string();
                    }
                }
            }
        }
    }
}
