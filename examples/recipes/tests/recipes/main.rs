//! The recipes do what their first lines say: each as a program of its own, over real connections.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod services;
mod support;
mod watch;
