//! Faults and settings of a real server: the errors that callers get, that no job is lost, and that the store recovers.

// The lint does not know helpers of tests.
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
