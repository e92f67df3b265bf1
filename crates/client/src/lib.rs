//! A typed client for services that are built with [AsyncEndpoints]: submit a job, follow it, wait for its result, cancel it.
//!
//! ```no_run
//! use async_endpoints_client::Client;
//!
//! #[derive(serde::Serialize)]
//! struct Order {
//!     pages: u64,
//! }
//!
//! #[derive(serde::Deserialize)]
//! struct Printed {
//!     pages: u64,
//! }
//!
//! # #[tokio::main] async fn main() -> Result<(), async_endpoints_client::Error> {
//! let client = Client::new("http://127.0.0.1:8080")?;
//! let job = client.submit::<_, Printed>("/api/print", &Order { pages: 3 }).await?;
//! let printed = job.wait().await?;
//! println!("{} pages", printed.pages);
//! # Ok(()) }
//! ```
//!
//! | task | call |
//! |---|---|
//! | submit a job | [`Client::submit`], which returns a [`JobHandle`] |
//! | continue with a job that was submitted earlier | [`Client::job`] |
//! | wait for the result | [`JobHandle::wait`] |
//! | see each state and its progress | [`JobHandle::follow`], a stream of [`JobState`] |
//! | read the state or the result now | [`JobHandle::state`], [`JobHandle::result`] |
//! | learn why it waits, or why it failed | [`JobHandle::explain`] |
//! | cancel | [`JobHandle::cancel`] |
//! | set a token, headers, time limits | [`Client::builder`] |
//!
//! # Failed connections
//!
//! - A submission has one idempotency key, which each repeat of its request carries. A repeat finds the job of the first
//!   request, if that arrived. A job is therefore submitted once, also if an answer was lost.
//! - A request is repeated after a failed connection, a timeout, and the answers 429, 502, 503 and 504. [`Retries`] says for
//!   how long. The client never repeats a request before the time in `Retry-After`.
//! - [`JobHandle::follow`] reads server-sent events. It resumes a dropped stream at the last event. If there are no events,
//!   for example behind a proxy that collects responses, it uses long polls instead.
//!
//! # Errors
//!
//! All calls return [`Error`], which names the request and what went wrong. A job that failed or was canceled is
//! [`Error::Job`] with its problem object:
//!
//! ```no_run
//! use async_endpoints_client::{Error, JobHandle};
//!
//! # async fn print(job: JobHandle<u64>) -> Result<(), Error> {
//! match job.wait().await {
//!     Ok(pages) => println!("{pages} pages"),
//!     Err(Error::Job(failure)) if failure.problem.code == "NO_PAPER" => println!("add paper"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `tls` | no | `https:` by reqwest's rustls and the system's certificate authorities |
//!
//! Without `tls`, `https:` needs a [`reqwest::Client`] of your own, see [`ClientBuilder::http_client`].
//!
//! # Requirements
//!
//! Calls need a tokio runtime with I/O and time enabled. WASM is not supported: the timers are tokio's, and streams are read
//! in a way that reqwest does not offer there.
//!
//! [AsyncEndpoints]: https://docs.rs/async-endpoints

mod builder;
mod client;
mod connection;
mod error;
mod events;
mod explanation;
mod follow;
mod handle;
mod headers;
mod problem;
mod retries;
mod state;
mod submission;

pub use async_endpoints_core::{
    JobId, JobName, JobStatus, Priority, Timestamp,
    job::{AttemptOutcome, Progress, WorkerId},
};
pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, JobFailure};
pub use explanation::{Explanation, QueuePosition, Reason, ReasonCode, StartEstimate, WorkerCounts};
pub use follow::Follow;
pub use handle::{Cancellation, JobHandle};
pub use problem::Problem;
pub use reqwest;
pub use retries::Retries;
pub use state::{Attempt, JobState, Waiting, WaitingReason};
pub use submission::Submission;

/// Tests the examples of the page about clients.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/clients.md")]
struct ClientsPage;
