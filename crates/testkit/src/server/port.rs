//! Free ports that stay free while their server is down.

use std::net::TcpListener;

use rand::Rng;

/// Below the range of ephemeral ports (from 32768 on Linux). An outgoing connection could take an ephemeral port while its
/// server is down, even a connection to that port, which then connects to itself.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// A port that was free at the time of the check.
pub(super) fn free() -> u16 {
    let mut rng = rand::rng();
    let mut ports = std::iter::repeat_with(|| rng.random_range(RANGE)).take(1000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
