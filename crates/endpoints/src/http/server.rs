//! Connections, from the first to the last.

use std::{io, time::Duration};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long open connections may take to end once everything else has.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until `stop` fires, then lets requests in flight end, briefly.
pub(crate) async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) -> io::Result<()> {
    let stopped = stop.clone();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await });
    tokio::select! {
        served = serving => served,
        () = async { stop.cancelled().await; tokio::time::sleep(LAST_ANSWERS).await } => Ok(()),
    }
}

/// SIGTERM or Ctrl-C.
pub(crate) async fn stop_signal() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
