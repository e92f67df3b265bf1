//! What lies between a process and a server: a TCP proxy on 127.0.0.1 that forwards, until it is told to do worse. Owns
//! connections; must not know what is said on them, nor by whom.

use std::{future::pending, io};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    select,
    sync::watch,
    task::AbortHandle,
};

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Everything passes.
    Open,
    /// Connections were closed, and new ones are closed at once.
    Cut,
    /// Whatever is sent is held, in both directions, and delivered later.
    Stalled,
    /// Connections are accepted and stay, and nothing is ever answered on them: no end, no reset, not even later. What
    /// is sent there is gone.
    HalfOpen,
}

/// A way to one port. It ends with this.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    accepting: AbortHandle,
}

/// What was said to the proxy so far. Each connection compares the counts with those it was born under.
#[derive(Clone, Copy, Debug)]
struct State {
    target: u16,
    way: Way,
    /// Connections born under fewer cuts are closed.
    cuts: u64,
    /// Connections born under fewer deaths answer nothing any more.
    deaths: u64,
    /// Connections born under fewer losses lose their next answer.
    losses: u64,
}

impl Proxy {
    /// Listens on a free port, and forwards to `target`.
    pub async fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (state, seen) = watch::channel(State { target, way: Way::Open, cuts: 0, deaths: 0, losses: 0 });
        let accepting = tokio::spawn(accept(listener, seen)).abort_handle();
        Ok(Self { port, state, accepting })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on the way is like that.
    pub fn set(&self, way: Way) {
        self.state.send_modify(|state| {
            state.way = way;
            state.cuts += u64::from(way == Way::Cut);
            state.deaths += u64::from(way == Way::HalfOpen);
        });
    }

    /// Each connection that there is loses its next answer, and is closed instead: the request has been carried out, and
    /// whoever sent it cannot know.
    pub fn lose_answers(&self) {
        self.state.send_modify(|state| state.losses += 1);
    }

    /// From now on it leads elsewhere. Connections to where it led before are closed.
    pub fn turn_to(&self, target: u16) {
        self.state.send_modify(|state| {
            state.target = target;
            state.cuts += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // Nobody is left to say otherwise.
        self.set(Way::Cut);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    loop {
        // Out of descriptors, for example: others may be closed meanwhile.
        let Ok((client, _)) = listener.accept().await else { continue };
        let (way, born) = (state.clone(), *state.borrow());
        tokio::spawn(async move {
            let mut cut = way.clone();
            select! {
                // First: what was held when a cut comes is not delivered.
                biased;
                _ = cut.wait_for(|now| now.cuts > born.cuts) => {}
                // How it ended is seen by both ends.
                _ = forward(client, born, way) => {}
            }
        });
    }
}

/// Until one end closes.
async fn forward(mut client: TcpStream, born: State, mut state: watch::Receiver<State>) -> io::Result<()> {
    match born.way {
        Way::Cut => return Ok(()),
        Way::HalfOpen => return swallow(&mut client).await,
        Way::Stalled => drop(state.wait_for(|now| now.way != Way::Stalled).await),
        Way::Open => {}
    }
    let server = TcpStream::connect(("127.0.0.1", born.target)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    select! {
        ended = requests(from_client, to_server, born, state.clone()) => ended,
        ended = answers(from_server, to_client, born, state) => ended,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    born: State,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let now = flowing(&mut state).await;
        match read {
            0 => return Ok(()),
            _ if now.deaths > born.deaths => {}
            _ => to.write_all(&buffer[..read]).await?,
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    born: State,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let now = flowing(&mut state).await;
        match read {
            // Nor is the client told that the server closed.
            _ if now.deaths > born.deaths => return pending().await,
            Ok(0) => return Ok(()),
            Ok(_) if now.losses > born.losses => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).await?,
            Err(error) => return Err(error),
        }
    }
}

/// The state, once nothing is held.
async fn flowing(state: &mut watch::Receiver<State>) -> State {
    let held = state.wait_for(|now| now.way != Way::Stalled).await.map(|now| *now);
    held.unwrap_or_else(|_| *state.borrow())
}

/// Reads for as long as the client sends, and answers nothing.
async fn swallow(client: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
