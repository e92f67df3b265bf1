//! A submitted job.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use async_endpoints_core::JobId;
use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderValue},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{
    connection::{Call, Connection, below},
    error::Error,
    explanation::Explanation,
    state::JobState,
};

/// How long the service is asked to hold a request. Most proxies allow 30 s and more.
const HOLD: Duration = Duration::from_secs(20);
/// The shortest time between two waits. A service with too many waiting clients, or that shuts down, answers at once.
const PACE: Duration = Duration::from_secs(1);

/// A submitted job. `Res` is the type of the handler's result. Dropping the handle does not change the job.
pub struct JobHandle<Res> {
    pub(crate) connection: Arc<Connection>,
    id: JobId,
    url: Url,
    replayed: bool,
    result: PhantomData<fn() -> Res>,
}

/// What [`JobHandle::cancel`] led to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The job had not started and is Canceled.
    Canceled,
    /// The job runs, and its handler is asked to stop. [`JobHandle::wait`] shows how the job ends.
    Requested,
    /// The job had already ended.
    AlreadyEnded,
}

/// How long a read of the job is held.
#[derive(Copy, Clone)]
pub(crate) enum Hold {
    No,
    /// Until the version differs from this one.
    UntilChanged(u64),
    UntilEnded,
}

impl<Res> JobHandle<Res> {
    pub(crate) fn new(connection: Arc<Connection>, id: JobId, url: Url, replayed: bool) -> Self {
        Self { connection, id, url, replayed, result: PhantomData }
    }

    /// The job's id. [`Client::job`](crate::Client::job) makes a handle of it, also in another process.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The address of the job.
    pub fn status_url(&self) -> &Url {
        &self.url
    }

    /// Whether the submission found the job of an earlier request with the same idempotency key, be it an earlier submission
    /// or an earlier try of this one.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// The address of a route below the job's.
    pub(crate) fn route(&self, name: &str) -> Url {
        below(&self.url, name)
    }

    /// Asks the service why the job is in its state: why it waits and until when, where it runs, why it ended as it did.
    ///
    /// # Errors
    ///
    /// See [`Error`]. An unknown job is [`Error::Refused`] with `JOB_NOT_FOUND`, an expired one with `JOB_EXPIRED`.
    ///
    /// ```no_run
    /// use async_endpoints_client::{Error, JobHandle, ReasonCode};
    ///
    /// # async fn show(job: JobHandle<u64>) -> Result<(), Error> {
    /// let explanation = job.explain().await?;
    /// println!("{}", explanation.verdict);
    /// if explanation.reasons.iter().any(|reason| reason.code == ReasonCode::NoWorker) {
    ///     println!("start a worker");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn explain(&self) -> Result<Explanation, Error> {
        let answer = self.connection.send(Call::new(Method::GET, self.route("explain"))).await?;
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|error| answer.unexpected(&error)),
            _ => Err(answer.refused()),
        }
    }

    /// Cancels the job. The handler of a running job gets a signal to stop, and may still complete.
    ///
    /// # Errors
    ///
    /// See [`Error`]. If the answer to a cancellation was lost, its repeat may find that the job has ended.
    pub async fn cancel(&self) -> Result<Cancellation, Error> {
        let answer = self.connection.send(Call::new(Method::POST, self.route("cancel"))).await?;
        match answer.status {
            StatusCode::OK => Ok(Cancellation::Canceled),
            StatusCode::ACCEPTED => Ok(Cancellation::Requested),
            StatusCode::CONFLICT => Ok(Cancellation::AlreadyEnded),
            _ => Err(answer.refused()),
        }
    }
}

impl<Res: DeserializeOwned> JobHandle<Res> {
    /// Reads the job as it is now.
    ///
    /// # Errors
    ///
    /// See [`Error`]. An unknown job is [`Error::Refused`] with `JOB_NOT_FOUND`, an expired one with `JOB_EXPIRED`.
    pub async fn state(&self) -> Result<JobState<Res>, Error> {
        loop {
            if let Some(state) = self.read(Hold::No).await? {
                return Ok(state);
            }
        }
    }

    /// The result, or `None` if the job has not ended.
    ///
    /// # Errors
    ///
    /// [`Error::Job`] if the job failed or was canceled, otherwise see [`Error`].
    pub async fn result(&self) -> Result<Option<Res>, Error> {
        Ok(self.state().await?.into_result().transpose()?)
    }

    /// Waits until the job has ended, and returns its result. Waits without a limit: `tokio::time::timeout` sets one. Cancel
    /// safe.
    ///
    /// # Errors
    ///
    /// [`Error::Job`] if the job failed or was canceled, otherwise see [`Error`].
    pub async fn wait(&self) -> Result<Res, Error> {
        loop {
            if let Some(result) = self.read(Hold::UntilEnded).await?.and_then(JobState::into_result) {
                return Ok(result?);
            }
        }
    }

    /// Reads the job once. `None` if it has not changed.
    pub(crate) async fn read(&self, hold: Hold) -> Result<Option<JobState<Res>>, Error> {
        let mut call = Call::new(Method::GET, self.url.clone());
        if !matches!(hold, Hold::No) {
            call.url.query_pairs_mut().append_pair("wait", &HOLD.as_secs().to_string());
            call.hold = HOLD;
        }
        if let Hold::UntilChanged(version) = hold {
            let tag = HeaderValue::try_from(format!("\"{version}\""));
            call.headers.extend(tag.map(|tag| (header::IF_NONE_MATCH, tag)));
        }
        let began = Instant::now();
        let answer = self.connection.send(call).await?;
        let state = match answer.status {
            StatusCode::NOT_MODIFIED => None,
            StatusCode::OK => Some(JobState::parse(&answer.body).map_err(|error| answer.unexpected(&error))?),
            _ => return Err(answer.refused()),
        };
        let is_held = match hold {
            Hold::No => true,
            Hold::UntilChanged(_) => state.is_some(),
            Hold::UntilEnded => state.as_ref().is_some_and(|state| state.status.is_terminal()),
        };
        if !is_held {
            sleep(PACE.saturating_sub(began.elapsed())).await;
        }
        Ok(state)
    }
}

impl<Res> Clone for JobHandle<Res> {
    fn clone(&self) -> Self {
        Self::new(self.connection.clone(), self.id, self.url.clone(), self.replayed)
    }
}

impl<Res> fmt::Debug for JobHandle<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, url, replayed, .. } = self;
        f.debug_struct("JobHandle").field("id", id).field("url", &url.as_str()).field("replayed", replayed).finish()
    }
}
