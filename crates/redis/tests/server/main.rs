//! A real server in trouble, and servers of all kinds: what callers see, that nothing is lost, and that it passes by itself.

// Helpers are no tests to this lint.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod life;
mod limits;
mod outage;
mod settings;
#[cfg(feature = "tls")]
mod tls;
