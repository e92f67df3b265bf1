//! Connections, from the first to the last, on a net where not everybody is polite.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{StatusCode, Version, header},
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

use super::socket::{Peer, Socket};
use crate::{Options, telemetry::events};

/// After an accept that failed, because there are no more files for example, before the next.
const PAUSE: Duration = Duration::from_secs(1);
/// A client that is silent for that long is asked whether it is still there, by the system.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Between two looks whether a client is still there.
const LOOK: Duration = Duration::from_secs(30);

/// How many connections there may be, and how long each may take to say what it wants.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: u32,
    pub(crate) header_read: Duration,
}

impl Limits {
    pub(crate) fn of(options: &Options) -> Self {
        Self { connections: options.max_connections, header_read: options.header_read }
    }
}

/// Serves until `stop` fires, then lets requests in flight end, until `over` fires. Connections that were upgraded are
/// whoever upgraded them's own from then on.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    stop: CancellationToken,
    over: CancellationToken,
) {
    // Whoever made the listener may have left it the system's short queue: a crowd that comes at once would wait seconds.
    let _ = SockRef::from(&listener).listen(BACKLOG);
    // Its routes are made ready once, not for every request.
    let app: Router = app.with_state(());
    let free = Arc::new(Semaphore::new(limits.connections as usize));
    let connections = TaskTracker::new();
    loop {
        // Beyond the limit they wait in the system's queue.
        let accepted = async { (free.clone().acquire_owned().await, listener.accept().await) };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let (app, stop, over) = (app.clone(), stop.clone(), over.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection(stream, peer, app, limits, stop) => {}
                () = over.cancelled() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// A client that went before it was accepted is nobody's trouble; anything else is, and may last.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        events::internal("connections cannot be accepted", error);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, limits: Limits, stop: CancellationToken) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    // Of no use on what is no TCP, and no reason to refuse anybody.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
    let (socket, client) = Socket::new(stream);
    let watched = client.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(client.clone());
        // HTTP/1.1 has no request without it (RFC 9112, 3.2).
        let hostless = request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST);
        let answering = (!hostless).then(|| app.clone().call(request.map(Body::new)));
        async {
            match answering {
                Some(answering) => answering.await,
                None => Ok(StatusCode::BAD_REQUEST.into_response()),
            }
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        // A client may close its half once it has asked, and still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(serving);
    // Connections end in many ways; what went wrong with one is its client's matter.
    let served = async {
        tokio::select! {
            _ = &mut serving => return,
            () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    };
    tokio::select! {
        () = served => {}
        () = deserted(&watched) => {}
    }
}

/// Until the client has been gone for a while. hyper does not look while a request is being answered, and an
/// application's own handler or stream may have nothing to write for hours.
async fn deserted(client: &Peer) {
    let mut before = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = client.has_hung_up();
        if now && before {
            return;
        }
        before = now;
    }
}
