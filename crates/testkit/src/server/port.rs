//! Ports that nobody has, and that stay free while their server is down.

use std::net::TcpListener;

use rand::Rng;

/// Below the ports that systems give to outgoing connections (from 32768 on Linux): one of those could be taken by any
/// client while its server is down, even by a client that knocks at that very port, and so connects to itself.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// One that was free a moment ago.
pub(super) fn free() -> u16 {
    let mut rng = rand::rng();
    let mut ports = std::iter::repeat_with(|| rng.random_range(RANGE)).take(1000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
