//! Free ports for servers that may restart.

use std::net::TcpListener;

use rand::Rng;

/// Below the ephemeral ports (from 32768 on Linux). The system could assign an ephemeral port to an outgoing connection
/// while its server is down, even to a client that connects to this port, which would then connect to itself.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Returns a port that was free when checked.
pub fn free() -> u16 {
    let mut rng = rand::rng();
    let mut ports = std::iter::repeat_with(|| rng.random_range(RANGE)).take(1000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}
