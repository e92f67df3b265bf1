//! Follow-up jobs: what a handler submits.

use std::{
    future::IntoFuture,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_endpoints_core::{JobName, Priority, job::Digest, store::NewJob};
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{AttemptInfo, JobContext};
use crate::{
    caller::Caller,
    envelope::{self, RequestParts},
    job_type::{JobType, Policy},
    json,
    new_job::{self, Accepted, Acceptor, Identity, SubmitError, fingerprint},
    options::Options,
    sync::Mutex,
};

impl<Req> JobContext<Req> {
    /// Submits a follow-up job. Set its options on the returned [`FollowUp`], then await it.
    ///
    /// A repeated attempt submits the same follow-up job once: its idempotency key is made of this job's id, and of type and
    /// request of the follow-up job. If the request differs from attempt to attempt, or if the same request is submitted
    /// several times on purpose, name the [step](FollowUp::step).
    ///
    /// The follow-up job has the owner of this job and the request id of its log lines, and its trace is that of this
    /// attempt. It has no captured headers and no parameters. It is accepted during a drain, too.
    ///
    /// An operator's retry makes a new job, whose attempts submit follow-up jobs of their own.
    ///
    /// ```
    /// use async_endpoints::{FollowUps, JobContext, JobError, JobType};
    ///
    /// const MAIL: JobType<String, ()> = JobType::new("Mail");
    ///
    /// async fn order(ctx: JobContext<u32>) -> Result<(), JobError> {
    ///     ctx.submit(MAIL, format!("{} pieces are on their way.", ctx.request())).await?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let follow_ups = FollowUps::default();
    /// order(JobContext::for_test(3).with_follow_ups(&follow_ups)).await.unwrap();
    /// assert_eq!(follow_ups.of(MAIL), ["3 pieces are on their way."]);
    /// # }
    /// ```
    pub fn submit<R: Serialize, S>(&self, job: JobType<R, S>, request: R) -> FollowUp<'_> {
        FollowUp {
            info: &self.info,
            caller: &self.parts.caller,
            name: job.name(),
            policy: job.rules.resolve(self.info.acceptor.options()),
            body: serde_json::value::to_raw_value(&request),
            step: None,
        }
    }

    /// Collects the submissions of a handler, in a test. A context for tests stores no jobs: without this, it accepts the
    /// submissions and forgets them.
    #[must_use]
    pub fn with_follow_ups(mut self, follow_ups: &FollowUps) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.info) {
            info.acceptor = Arc::new(follow_ups.clone());
        }
        self
    }
}

/// The submission of a follow-up job: set its options, then await it.
#[must_use = "the job is submitted when this is awaited"]
#[derive(Debug)]
pub struct FollowUp<'a> {
    info: &'a AttemptInfo,
    caller: &'a Caller,
    name: &'static str,
    policy: Policy,
    body: serde_json::Result<Box<RawValue>>,
    step: Option<String>,
}

impl FollowUp<'_> {
    /// Names the step. A repeated attempt finds the job of the step, also with another request.
    ///
    /// A name is unique among the follow-up jobs of one type. A second step of the same name is a repeat as well: it returns
    /// the first job, with [`Accepted::replayed`] set.
    pub fn step(mut self, name: impl Into<String>) -> Self {
        self.step = Some(name.into());
        self
    }

    /// Sets the job's priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.policy.priority = priority;
        self
    }

    /// Sets the job's delay: it starts no earlier than this time after it was accepted.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.policy.delay = delay;
        self
    }

    fn new_job(self) -> Result<NewJob, SubmitError> {
        let parent = self.info.id;
        let name = JobName::new(self.name).map_err(|error| SubmitError::Invalid(error.to_string()))?;
        let body = new_job::body(self.body)?;
        // The fingerprint of a named step has no request, so that a repeat with another request is no conflict.
        let fingerprint = match self.step {
            Some(step) => Digest(Sha256::new().chain_update(parent.0.as_bytes()).chain_update(step).finalize().into()),
            None => fingerprint(&name, &[], "", body.get().as_bytes()),
        };
        let key = Some(new_job::idempotency_key(&format!("{parent}:{fingerprint}"))?);
        let identity = Identity { id: None, key, owner: self.info.owner.clone(), fingerprint };
        let parts = RequestParts { caller: self.caller.clone(), ..RequestParts::default() };
        let payload = envelope::write(body.get(), &parts);
        Ok(new_job::new_job(self.info.acceptor.options(), name, &self.policy, identity, payload))
    }
}

impl<'a> IntoFuture for FollowUp<'a> {
    type Output = Result<Accepted, SubmitError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let info = self.info;
        match self.new_job() {
            // In the attempt's scope, also from a task that has none: the job's trace is that of the attempt.
            Ok(job) => Box::pin(info.scope.run(info.acceptor.accept(job))),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

/// The jobs that handlers under test submitted. Clones share one list.
///
/// It recognizes repeats as a store does. Two attempts of one job show that the job submits each step once:
///
/// ```
/// # use async_endpoints::{FollowUps, JobContext, JobError, JobId, JobType};
/// # const MAIL: JobType<String, ()> = JobType::new("Mail");
/// async fn order(ctx: JobContext<()>) -> Result<(), JobError> {
///     ctx.submit(MAIL, format!("attempt {}", ctx.attempt())).step("receipt").await?;
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let (id, follow_ups) = (JobId::random(), FollowUps::default());
/// for attempt in [1, 2] {
///     let ctx = JobContext::for_test(()).with_job_id(id).with_attempt(attempt, false);
///     order(ctx.with_follow_ups(&follow_ups)).await.unwrap();
/// }
/// assert_eq!(follow_ups.of(MAIL), ["attempt 1"]);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct FollowUps(Arc<Collected>);

#[derive(Debug, Default)]
struct Collected {
    options: Options,
    jobs: Mutex<Vec<NewJob>>,
}

impl FollowUps {
    /// The requests of the submitted jobs of a type, in the order of submission.
    ///
    /// # Panics
    ///
    /// If a request cannot be read as `Req`.
    pub fn of<Req: DeserializeOwned, Res>(&self, job: JobType<Req, Res>) -> Vec<Req> {
        let jobs = self.0.jobs.lock();
        let of_type = jobs.iter().filter(|submitted| submitted.name.as_str() == job.name());
        of_type.map(|submitted| request(submitted)).collect()
    }

    /// The number of submitted jobs of all types.
    pub fn len(&self) -> usize {
        self.0.jobs.lock().len()
    }

    /// Whether no job was submitted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&self, job: NewJob) -> Result<Accepted, SubmitError> {
        let now = SystemTime::now().into();
        let mut jobs = self.0.jobs.lock();
        let is_repeat = |known: &&NewJob| match &job.key {
            Some(_) => (&known.key, &known.name, known.owner) == (&job.key, &job.name, job.owner),
            None => known.id == job.id,
        };
        match jobs.iter().find(is_repeat) {
            Some(known) if (known.owner, known.fingerprint) == (job.owner, job.fingerprint) => {
                Ok(Accepted { job: known.view(now, 1, Some(0)), replayed: true })
            }
            Some(_) => Err(SubmitError::Conflict),
            None => {
                let view = job.view(now, 1, Some(0));
                jobs.push(job);
                Ok(Accepted { job: view, replayed: false })
            }
        }
    }
}

impl Acceptor for FollowUps {
    fn options(&self) -> &Options {
        &self.0.options
    }

    fn accept(&self, job: NewJob) -> BoxFuture<'_, Result<Accepted, SubmitError>> {
        Box::pin(std::future::ready(self.add(job)))
    }
}

fn request<Req: DeserializeOwned>(job: &NewJob) -> Req {
    let body = envelope::read(&job.payload).map(|(body, _)| body);
    let read = body.and_then(|body| json::read(body).map_err(|error| error.to_string()));
    read.unwrap_or_else(|error| panic!("a job {} has another request: {error}", job.name))
}
