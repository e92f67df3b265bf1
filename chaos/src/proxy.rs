//! A TCP proxy on 127.0.0.1 that can cut, stall or break the connections between a process and a server. It does not
//! interpret the forwarded bytes.

use std::{future::pending, io};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::watch,
    task::AbortHandle,
};

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Forwards everything.
    Open,
    /// Closes all connections, and new ones at once.
    Cut,
    /// Holds back all bytes in both directions, and delivers them later.
    Stalled,
    /// Accepts connections and discards what they send. They are never answered or closed, not even in a later state.
    HalfOpen,
}

/// A proxy to one port. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    accepting: AbortHandle,
}

/// The state of the proxy. Each connection compares these counts with their values when it was accepted.
#[derive(Clone, Copy, Debug)]
struct State {
    target: u16,
    link: LinkState,
    /// Connections from before the last cut are closed.
    cuts: u64,
    /// Connections from before the last half-open state stay unanswered.
    half_opened: u64,
    /// Connections from before the last loss lose their next answer.
    losses: u64,
}

impl Proxy {
    /// Listens on a free port, and forwards to `target`.
    pub async fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (state, seen) = watch::channel(State { target, link: LinkState::Open, cuts: 0, half_opened: 0, losses: 0 });
        let accepting = tokio::spawn(accept(listener, seen)).abort_handle();
        Ok(Self { port, state, accepting })
    }

    /// The port of the proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the state of the link.
    pub fn set(&self, link: LinkState) {
        self.state.send_modify(|state| {
            state.link = link;
            state.cuts += u64::from(link == LinkState::Cut);
            state.half_opened += u64::from(link == LinkState::HalfOpen);
        });
    }

    /// Drops the next answer on each existing connection and closes the connection. The server has carried out the
    /// request, and the client cannot tell.
    pub fn lose_answers(&self) {
        self.state.send_modify(|state| state.losses += 1);
    }

    /// Forwards new connections to another port, and closes existing ones.
    pub fn redirect(&self, target: u16) {
        self.state.send_modify(|state| {
            state.target = target;
            state.cuts += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(LinkState::Cut);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    loop {
        // For example out of descriptors, which is temporary.
        let Ok((client, _)) = listener.accept().await else { continue };
        let (link, start) = (state.clone(), *state.borrow());
        tokio::spawn(async move {
            let mut cut = link.clone();
            select! {
                // Checked first, so that held bytes are not delivered after a cut.
                biased;
                _ = cut.wait_for(|now| now.cuts > start.cuts) => {}
                // Both ends see how the connection ended.
                _ = forward(client, start, link) => {}
            }
        });
    }
}

/// Forwards until one end closes the connection.
async fn forward(mut client: TcpStream, start: State, mut state: watch::Receiver<State>) -> io::Result<()> {
    match start.link {
        LinkState::Cut => return Ok(()),
        LinkState::HalfOpen => return discard(&mut client).await,
        LinkState::Stalled => drop(state.wait_for(|now| now.link != LinkState::Stalled).await),
        LinkState::Open => {}
    }
    let server = TcpStream::connect(("127.0.0.1", start.target)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    select! {
        ended = requests(from_client, to_server, start, state.clone()) => ended,
        ended = answers(from_server, to_client, start, state) => ended,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    start: State,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let now = flowing(&mut state).await;
        match read {
            0 => return Ok(()),
            _ if now.half_opened > start.half_opened => {}
            _ => to.write_all(&buffer[..read]).await?,
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    start: State,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let now = flowing(&mut state).await;
        match read {
            // A closed server connection is hidden from the client too.
            _ if now.half_opened > start.half_opened => return pending().await,
            Ok(0) => return Ok(()),
            Ok(_) if now.losses > start.losses => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).await?,
            Err(error) => return Err(error),
        }
    }
}

/// Waits while the link is stalled, then returns the state.
async fn flowing(state: &mut watch::Receiver<State>) -> State {
    let held = state.wait_for(|now| now.link != LinkState::Stalled).await.map(|now| *now);
    held.unwrap_or_else(|_| *state.borrow())
}

/// Discards the client's bytes until it closes the connection.
async fn discard(client: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
