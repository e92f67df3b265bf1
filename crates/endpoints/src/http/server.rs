//! Connections, from the first to the last.

use std::io;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `stop` fires, then lets requests in flight end, until `over` fires.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
    over: CancellationToken,
) -> io::Result<()> {
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        served = serving => served,
        () = over.cancelled() => Ok(()),
    }
}
