//! A connection that can be watched while it is served: whether its client still listens. Must not know HTTP.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// How long a client may leave what is written to it unread.
const STALL: Duration = Duration::from_secs(30);

/// A connection, as its server reads and writes it.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// Runs while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// The same connection, as the requests on it know it. Does not keep it open.
#[derive(Clone)]
pub(super) struct Peer(Weak<TcpStream>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> (Self, Peer) {
        let stream = Arc::new(stream);
        let peer = Peer(Arc::downgrade(&stream));
        (Self { stream, stalled: None }, peer)
    }
}

impl Peer {
    /// Until the client closed its half of the connection, or all of it: which of the two, nobody can tell before
    /// writing. Never, once the client has sent more than it was asked for.
    pub(super) async fn hung_up(&self) {
        if let Some(stream) = self.0.upgrade()
            && let Ok(1..) = stream.peek(&mut [0]).await
        {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the client closed its half of the connection, or all of it, as far as that can be seen now.
    pub(super) fn has_hung_up(&self) -> bool {
        let Some(stream) = self.0.upgrade() else { return true };
        let peeked = stream.peek(&mut [0]).now_or_never();
        matches!(peeked, Some(Ok(0) | Err(_)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl Socket {
    fn poll_try_write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        while let Poll::Ready(ready) = self.stream.poll_write_ready(cx) {
            ready?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.stalled = None;
                    return Poll::Ready(written);
                }
            }
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}
