//! A connection that comes back by itself, driven by the runtime that its keeper runs on. Must not know what is sent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Cmd, Value, aio::MultiplexedConnection};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{backoff::Backoff, fail::Fail, options::OpenError, server::Server};

/// How long a connection may take to be made, and an answer to come.
const CONNECT: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// How often a connection is tried out, so that a broken one is found before somebody needs it.
const LOOK: Duration = Duration::from_secs(1);
/// How long a caller waits for a connection that just broke.
const PATIENCE: Duration = Duration::from_secs(1);
/// Calls on their way to the connection's task before callers wait.
const PIPELINE: usize = 1024;

/// A way to the server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    door: watch::Receiver<Door>,
    broke: mpsc::UnboundedSender<u64>,
}

#[derive(Clone)]
enum Door {
    Open { conn: MultiplexedConnection, number: u64 },
    Shut { why: Arc<str>, since: Instant },
}

/// The part that makes the connections.
pub(crate) struct Keeper {
    server: Arc<Server>,
    door: watch::Sender<Door>,
    broken: mpsc::UnboundedReceiver<u64>,
}

/// A link, and who keeps it open.
pub(crate) fn new(server: Arc<Server>) -> (Link, Keeper) {
    let shut = Door::Shut { why: "it was not connected yet".into(), since: Instant::now() };
    let (door, opened) = watch::channel(shut);
    let (broke, broken) = mpsc::unbounded_channel();
    (Link { door: opened, broke }, Keeper { server, door, broken })
}

impl Link {
    /// Sends a command and waits for its answer, a few seconds at most.
    pub(crate) async fn send(&self, cmd: &Cmd) -> Result<Value, Fail> {
        let (mut conn, number) = self.open().await?;
        let answer = conn.send_packed_command(cmd).await.and_then(Value::extract_error).map_err(Fail::from);
        self.heard(number, answer)
    }

    /// Sends several at once; their answers, in order.
    pub(crate) async fn send_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, Fail> {
        let (mut conn, number) = self.open().await?;
        let answers = conn.send_packed_commands(commands, 0, commands.len()).await;
        let answers = answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        self.heard(number, answers.map_err(Fail::from))
    }

    /// The connection itself, for a conversation.
    pub(crate) async fn conn(&self) -> Result<MultiplexedConnection, Fail> {
        self.open().await.map(|(conn, _)| conn)
    }

    fn heard<T>(&self, number: u64, answer: Result<T, Fail>) -> Result<T, Fail> {
        if answer.as_ref().is_err_and(Fail::ends_connection) {
            // A keeper that is gone needs not be told.
            let _ = self.broke.send(number);
        }
        answer
    }

    /// The connection, waited for a moment if it has just broken.
    async fn open(&self) -> Result<(MultiplexedConnection, u64), Fail> {
        let mut door = self.door.clone();
        let until = match &*door.borrow() {
            Door::Open { conn, number } => return Ok((conn.clone(), *number)),
            Door::Shut { since, .. } => *since + PATIENCE,
        };
        let open = door.wait_for(|door| matches!(door, Door::Open { .. }));
        let waited = tokio::time::timeout_at(until.into(), open).await.map(|open| open.map(|door| door.clone()));
        match waited {
            Ok(Ok(Door::Open { conn, number })) => Ok((conn, number)),
            Ok(_) => Err(Fail::Down("its keeper is gone".to_owned())),
            Err(_) => Err(Fail::Down(self.why())),
        }
    }

    fn why(&self) -> String {
        match &*self.door.borrow() {
            Door::Shut { why, .. } => why.to_string(),
            Door::Open { .. } => "it was away and has just come back".to_owned(),
        }
    }
}

impl Keeper {
    /// Keeps the link open for as long as it is polled. Tells how the first try went to whoever wants to know, and ends then
    /// if that failed.
    pub(crate) async fn run(mut self, mut first: Option<oneshot::Sender<Result<(), OpenError>>>) {
        let (mut number, mut backoff) = (0, Backoff::new());
        loop {
            let served = match self.connect().await {
                Ok(conn) => {
                    number += 1;
                    let began = Instant::now();
                    self.door.send_replace(Door::Open { conn: conn.clone(), number });
                    drop(first.take().map(|first| first.send(Ok(()))));
                    let why = self.until_broken(conn, number).await;
                    self.door.send_replace(Door::Shut { why: why.into(), since: Instant::now() });
                    began.elapsed()
                }
                Err(error) => {
                    let why = error.to_string().into();
                    self.door.send_modify(|door| {
                        let since = match door {
                            Door::Shut { since, .. } => *since,
                            Door::Open { .. } => Instant::now(),
                        };
                        *door = Door::Shut { why, since };
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
        // A server that accepts and then says nothing: asking it who it is would take all the time of an answer.
        let late = |_| Err(OpenError::Unavailable(format!("{}: nothing came in {CONNECT:?}", self.server.address)));
        tokio::time::timeout(CONNECT, making).await.unwrap_or_else(late)
    }

    /// Waits for somebody to say that it broke, and tries it out now and then.
    async fn until_broken(&mut self, mut conn: MultiplexedConnection, number: u64) -> String {
        let ping = redis::cmd("PING");
        conn.set_response_timeout(2 * LOOK);
        loop {
            tokio::select! {
                broken = self.broken.recv() => match broken {
                    Some(which) if which < number => {}
                    _ => return "the connection broke".to_owned(),
                },
                () = tokio::time::sleep(LOOK) => {
                    let answer = conn.send_packed_command(&ping).await.and_then(Value::extract_error);
                    if let Err(error) = answer && Fail::from(error.clone()).ends_connection() {
                        return error.to_string();
                    }
                }
            }
        }
    }
}
