//! Accept loop with connection limit, header deadline, write-stall guard and graceful drain.

mod stall;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{StatusCode, Version, header, uri::Authority},
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

use self::stall::StallGuard;
use crate::{options::Options, telemetry::events};

/// Pause after a failed accept, for example when the process has no free file descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// Idle time before the first TCP keepalive probe.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Length of the listener's accept queue.
const BACKLOG: i32 = 4096;

/// Serves until `stop` fires, then lets requests in flight finish until `abort` fires. Upgraded connections are not
/// waited for.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    options: &Options,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    // The application's listener usually has a short queue, in which a burst of clients would wait for seconds.
    let _ = SockRef::from(&listener).listen(BACKLOG);
    // Prepares the routes once instead of per request.
    let app: Router = app.with_state(());
    let header_read = options.header_read;
    let free = Arc::new(Semaphore::new(options.max_connections as usize));
    let connections = TaskTracker::new();
    loop {
        // Connections beyond the limit wait in the accept queue.
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
        let (app, stop, abort) = (app.clone(), stop.clone(), abort.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection(stream, peer, app, header_read, stop) => {}
                () = abort.cancelled() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Logs an accept error and pauses, unless the error concerns one client only.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        events::internal("connections cannot be accepted", error);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the request has one valid `Host`, or none in HTTP/1.0 (RFC 9112, 3.2).
fn has_valid_host(request: &hyper::Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let is_valid = |host: Authority| !host.as_str().contains('@');
            host.is_empty() || Authority::try_from(host.as_bytes()).is_ok_and(is_valid)
        }
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, header_read: Duration, stop: CancellationToken) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    // These options are optimizations, so errors are ignored.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = has_valid_host(&request).then(|| app.clone().call(request.map(Body::new)));
        async {
            match answering {
                Some(answering) => answering.await,
                None => Ok(StatusCode::BAD_REQUEST.into_response()),
            }
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read)
        .serve_connection(TokioIo::new(StallGuard::new(stream)), service)
        .with_upgrades();
    tokio::pin!(serving);
    // Errors of a connection concern its client only and are not logged.
    tokio::select! {
        _ = &mut serving => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
