//! Handlers: the forms that an application can write, and the erased form that workers call.
//! Must not know stores, workers or HTTP.

use std::{error::Error, future::Future, marker::PhantomData, sync::Arc};

use async_endpoints_telemetry::Scope;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    context::{AttemptInfo, JobContext},
    domain::DomainErrors,
    envelope,
    error::{Builtin, Classification, JobError},
    json, panics,
};

/// The handler of a job type: an `async fn(JobContext<Req>) -> Result<Res, JobError>`, or a struct that owns its
/// dependencies.
///
/// ```
/// # use async_endpoints::{JobContext, JobError, JobHandler};
/// struct Greeter { greeting: String }
///
/// impl JobHandler<String, String> for Greeter {
///     async fn run(&self, ctx: JobContext<String>) -> Result<String, JobError> {
///         Ok(format!("{}, {}!", self.greeting, ctx.request()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler that takes `{Req}` and returns `{Res}`",
    label = "not a handler of this job type",
    note = "a handler is an `async fn(JobContext<{Req}>) -> Result<{Res}, JobError>`, a closure that returns such a future, or a struct that implements `JobHandler<{Req}, {Res}>`",
    note = "a handler is called for each attempt, so a closure must be `Fn`: `.handler_with(JOB, value, async |ctx, value| …)` clones a value for each attempt instead of capturing it",
    note = "a handler takes no extractors of axum, since it may run after the request, in another process: `ctx.request()` has the body, `ctx.header(…)`, `ctx.path_param(…)` and `ctx.query_param(…)` the rest, and `.handler_with(JOB, state, …)` passes state"
)]
pub trait JobHandler<Req, Res>: Send + Sync + 'static {
    /// Runs one attempt. The future may be dropped at any await after its token has fired.
    fn run(&self, ctx: JobContext<Req>) -> impl Future<Output = Result<Res, JobError>> + Send;

    /// Classifies errors that were returned with `?` as permanent or retryable.
    ///
    /// ```
    /// # use async_endpoints::{Classification, JobContext, JobError, JobHandler};
    /// async fn parse(ctx: JobContext<String>) -> Result<u32, JobError> { Ok(ctx.request().parse()?) }
    ///
    /// let handler = parse.classify(|error| match error.is::<std::num::ParseIntError>() {
    ///     true => Classification::Permanent,
    ///     false => Classification::Retryable,
    /// });
    /// ```
    fn classify<C>(self, classify: C) -> Classified<Self, C>
    where
        Self: Sized,
        C: Fn(&(dyn Error + 'static)) -> Classification + Send + Sync + 'static,
    {
        Classified { handler: self, classify }
    }
}

impl<F, Fut, Req, Res> JobHandler<Req, Res> for F
where
    F: Fn(JobContext<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Res, JobError>> + Send,
{
    fn run(&self, ctx: JobContext<Req>) -> impl Future<Output = Result<Res, JobError>> + Send {
        self(ctx)
    }
}

/// A handler that the application shares, with a route or a test for example.
impl<H, Req, Res> JobHandler<Req, Res> for Arc<H>
where
    H: JobHandler<Req, Res>,
{
    fn run(&self, ctx: JobContext<Req>) -> impl Future<Output = Result<Res, JobError>> + Send {
        H::run(self, ctx)
    }
}

/// A handler that classifies its errors; made by [`JobHandler::classify`].
#[derive(Debug)]
pub struct Classified<H, C> {
    handler: H,
    classify: C,
}

impl<H, C, Req, Res> JobHandler<Req, Res> for Classified<H, C>
where
    H: JobHandler<Req, Res>,
    C: Fn(&(dyn Error + 'static)) -> Classification + Send + Sync + 'static,
    Req: Send + 'static,
{
    async fn run(&self, ctx: JobContext<Req>) -> Result<Res, JobError> {
        self.handler.run(ctx).await.map_err(|mut error| {
            if let Some(source) = error.source.as_deref() {
                let classification = (self.classify)(source);
                error.classify(classification);
            }
            error
        })
    }
}

/// Keeps the attempt's slot in use. A handler on a thread of its own may outlive its attempt.
pub(crate) type SlotHold = Arc<dyn std::any::Any + Send + Sync>;

/// A handler's result as JSON, or its error.
pub(crate) type HandlerResult = Result<Bytes, JobError>;

pub(crate) type HandlerFuture = BoxFuture<'static, HandlerResult>;

/// A handler without its types, as workers call it.
pub(crate) trait ErasedHandler: Send + Sync {
    fn call(self: Arc<Self>, info: Arc<AttemptInfo>, payload: Bytes, hold: SlotHold) -> HandlerFuture;
}

pub(crate) struct Erased<H, Req, Res> {
    handler: H,
    types: PhantomData<fn(Req) -> Res>,
}

impl<H, Req, Res> Erased<H, Req, Res> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler, types: PhantomData }
    }
}

impl<H, Req, Res> ErasedHandler for Erased<H, Req, Res>
where
    H: JobHandler<Req, Res>,
    Req: DeserializeOwned + Send + 'static,
    Res: Serialize + Send + 'static,
{
    fn call(self: Arc<Self>, info: Arc<AttemptInfo>, payload: Bytes, _hold: SlotHold) -> HandlerFuture {
        Box::pin(async move {
            let ctx = open(info, &payload)?;
            drop(payload);
            write(&self.handler.run(ctx).await?)
        })
    }
}

/// A blocking function. Each attempt runs on a thread of its own.
///
/// The runtime's blocking pool is not used, since a function that does not return would delay the end of the runtime.
pub(crate) struct Blocking<F, Req, Res> {
    function: F,
    types: PhantomData<fn(Req) -> Res>,
}

impl<F, Req, Res> Blocking<F, Req, Res> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<F, Req, Res> ErasedHandler for Blocking<F, Req, Res>
where
    F: Fn(JobContext<Req>) -> Result<Res, JobError> + Send + Sync + 'static,
    Req: DeserializeOwned + Send + 'static,
    Res: Serialize + Send + 'static,
{
    fn call(self: Arc<Self>, info: Arc<AttemptInfo>, payload: Bytes, hold: SlotHold) -> HandlerFuture {
        Box::pin(async move {
            let name = format!("job {}", info.job_name());
            let run = move || {
                let ctx = open(info, &payload)?;
                drop(payload);
                write(&(self.function)(ctx)?)
            };
            on_thread(name, run, hold).await?
        })
    }
}

/// A handler of a job type that declares its error type.
pub(crate) struct Mapped {
    pub(crate) handler: Arc<dyn ErasedHandler>,
    pub(crate) errors: DomainErrors,
}

impl ErasedHandler for Mapped {
    fn call(self: Arc<Self>, info: Arc<AttemptInfo>, payload: Bytes, hold: SlotHold) -> HandlerFuture {
        let run = self.handler.clone().call(info, payload, hold);
        Box::pin(async move { run.await.map_err(|error| self.errors.apply(error)) })
    }
}

/// Runs a function on a thread of its own, in the runtime's context and in the scope of the caller. A panic of the function
/// resumes in the caller. Dropping the future does not stop the thread, which drops `hold` when it ends.
async fn on_thread<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
    hold: SlotHold,
) -> std::io::Result<T> {
    let (send, receive) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let scope = Scope::current();
    std::thread::Builder::new().name(name).spawn(move || {
        let _context = runtime.enter();
        let ended = panics::catch(|| scope.in_scope(run));
        drop(scope);
        drop(hold);
        drop(send.send(ended));
    })?;
    match receive.await {
        Ok(Ok(ended)) => Ok(ended),
        Ok(Err(panic)) => panic.resume(),
        Err(_) => unreachable!("the thread always sends"),
    }
}

fn open<Req: DeserializeOwned>(info: Arc<AttemptInfo>, payload: &[u8]) -> Result<JobContext<Req>, JobError> {
    let (body, parts) = envelope::read(payload).map_err(unreadable)?;
    let request = json::read(body).map_err(|error| unreadable(error.to_string()))?;
    Ok(JobContext::new(request, info, parts))
}

/// A retryable error: during a rolling deployment a newer worker may be able to read the payload.
fn unreadable(detail: String) -> JobError {
    let record = Builtin::PayloadUnreadable.record(None);
    JobError::retryable(record.code, detail)
}

fn write<Res: Serialize>(result: &Res) -> HandlerResult {
    // Without spare capacity, since the store may keep the result for its whole retention.
    let exact = |json: Vec<u8>| Bytes::from(json.into_boxed_slice());
    serde_json::to_vec(result).map(exact).map_err(|error| {
        let record = Builtin::ResultUnserializable.record(None);
        JobError::permanent(record.code, error.to_string())
    })
}
