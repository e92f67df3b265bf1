//! Asks the server to cancel a statement.

use std::io;

use tokio::{
    io::{DuplexStream, copy, duplex, split},
    net::TcpStream,
};
use tokio_postgres::{
    CancelToken,
    config::{Config, Host},
    tls::MakeTlsConnect,
};

use crate::tls::Tls;

/// Sends the request, and waits until the server closes the connection. The driver's own call closes it at once, and PgBouncer forgets
/// a request whose connection is closed.
pub(crate) async fn cancel(host: &Config, token: &CancelToken, tls: &Tls) -> io::Result<()> {
    let port = host.get_ports().first().copied().unwrap_or(5432);
    let (name, socket) = match (host.get_hosts().first(), host.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), None) => (name.as_str(), TcpStream::connect((name.as_str(), port)).await?),
        (Some(Host::Tcp(name)), Some(address)) => (name.as_str(), TcpStream::connect((*address, port)).await?),
        (None, Some(address)) => ("", TcpStream::connect((*address, port)).await?),
        // Through a Unix socket, PgBouncer may still forget it.
        _ => return token.cancel_query(tls.connector()).await.map_err(io::Error::other),
    };
    let tls = MakeTlsConnect::<DuplexStream>::make_tls_connect(&mut tls.connector(), name).map_err(io::Error::other)?;
    let (driver, ours) = duplex(1024);
    let ((mut from_driver, mut to_driver), (mut from_server, mut to_server)) = (split(ours), socket.into_split());
    let send = async { token.cancel_query_raw(driver, tls).await.map_err(io::Error::other) };
    // The first copy ends with the request, and leaves the connection open. The second ends when the server closes it.
    tokio::try_join!(send, copy(&mut from_driver, &mut to_server), copy(&mut from_server, &mut to_driver))?;
    Ok(())
}
