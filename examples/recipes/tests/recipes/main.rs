//! Tests each recipe as a program over real connections.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod calls;
mod files;
mod services;
mod support;
mod watch;
