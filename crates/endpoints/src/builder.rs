//! The builder of [`AsyncEndpoints`]. Detects configuration errors before any task runs.

mod check;
mod error;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use async_endpoints_core::{JobName, Store};
use axum::{http::request::Parts, response::Response};
use serde::{Serialize, de::DeserializeOwned};

pub use self::error::BuildError;
#[cfg(feature = "dashboard")]
use crate::dashboard;
use crate::{
    alerts::{Alerts, Plan},
    context::JobContext,
    endpoints::{Assembly, AsyncEndpoints},
    error::JobError,
    handler::{Blocking, Erased, ErasedHandler, JobHandler, Mapped},
    health::{Check, HealthReport},
    http::{self, Access, Endpoint, Hooks, HttpConfig, Owner, Responses},
    job_type::{JobType, Policy, Rules},
    middleware::Middleware,
    options::Options,
    request::{RedactionRule, StoredRequest},
    telemetry::{Measured, Telemetry, events},
    worker::RegisteredType,
};

/// Collects endpoints, handlers and settings. Created by [`AsyncEndpoints::builder`].
#[must_use = "call `build` to create the endpoints"]
pub struct Builder {
    store: Arc<dyn Store>,
    options: Options,
    http: HttpConfig,
    handlers: Vec<(&'static str, Rules, Arc<dyn ErasedHandler>)>,
    /// Types whose jobs other processes run.
    elsewhere: Vec<(&'static str, Rules)>,
    middlewares: Vec<Arc<dyn Middleware>>,
    telemetry: Option<Telemetry>,
    health: Vec<(String, Check)>,
    alerts: Option<Alerts>,
    redaction: Option<RedactionRule>,
}

impl AsyncEndpoints {
    /// Starts a builder with the store that keeps the jobs.
    pub fn builder(store: impl Store) -> Builder {
        Builder {
            store: Arc::new(store),
            options: Options::default(),
            http: HttpConfig::default(),
            handlers: Vec::new(),
            elsewhere: Vec::new(),
            middlewares: Vec::new(),
            telemetry: None,
            health: Vec::new(),
            alerts: None,
            redaction: None,
        }
    }
}

impl Builder {
    /// Replaces the default settings.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Adds an endpoint, which accepts jobs over HTTP.
    pub fn endpoint<Req, Res>(mut self, endpoint: Endpoint<Req, Res>) -> Self {
        self.http.endpoints.push(Arc::new(endpoint.declared));
        self
    }

    /// Sets the access policy of the operator routes. Defaults to [`Access::closed`]:
    /// without a policy, operator routes refuse all requests.
    pub fn access(mut self, access: Access) -> Self {
        self.http.access = access;
        self
    }

    /// Sets the rule that maps a request to its owner. Jobs of other owners answer 404 on every route, except for operators.
    /// Owners can list, cancel and retry their own jobs; [`AsyncEndpoints::jobs`] does the same in code.
    ///
    /// The [access policy](Self::access) decides which callers are operators. They see the jobs of all owners. With
    /// [`Access::open`], every caller is an operator, and the rule hides nothing.
    ///
    /// Without a rule, every caller that knows a job's id can read it. The rule can read the extensions that the
    /// application's authentication layer has set.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore, axum::http::request::Parts};
    /// # #[derive(Clone)] struct User { id: String }
    /// let builder = AsyncEndpoints::builder(MemoryStore::new())
    ///     .owner(|request: &Parts| request.extensions.get::<User>().map(|user| user.id.clone()));
    /// ```
    pub fn owner<O: Into<Owner>>(mut self, rule: impl Fn(&Parts) -> O + Send + Sync + 'static) -> Self {
        self.http.owner = Some(Arc::new(move |request| rule(request).into()));
        self
    }

    /// Sets the path of the job routes, in place of `/jobs`: the list is at this path, a job at `{path}/{id}`, its result at
    /// `{path}/{id}/result`. `Location`, the links of a job and `/openapi.json` follow.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore};
    /// let builder = AsyncEndpoints::builder(MemoryStore::new()).jobs_path("/api/status");
    /// ```
    pub fn jobs_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.http.jobs_path = path.into();
        self
    }

    /// Sets the rule that changes a stored request before an operator sees it in `GET /jobs/{id}/request` or
    /// [`AsyncEndpoints::request`]. Requests are shown only with [`Options::expose_requests`].
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore, Options};
    /// let options = Options { expose_requests: true, ..Options::default() };
    /// let builder = AsyncEndpoints::builder(MemoryStore::new()).options(options).redact_requests(|request| {
    ///     if let Some(card) = request.body.get_mut("card") {
    ///         *card = "[redacted]".into();
    ///     }
    ///     request.headers.retain(|(name, _)| name == "user-agent");
    /// });
    /// ```
    pub fn redact_requests(mut self, rule: impl Fn(&mut StoredRequest) + Send + Sync + 'static) -> Self {
        self.redaction = Some(Arc::new(rule));
        self
    }

    /// Sets hooks that replace or extend responses.
    pub fn responses(mut self, responses: impl Responses) -> Self {
        self.http.responses = Hooks::new(responses);
        self
    }

    /// Adds the handler of a job type. This process then runs jobs of the type.
    pub fn handler<Req, Res, H>(self, job: JobType<Req, Res>, handler: H) -> Self
    where
        // The compiler shows the next line, and no `on_unimplemented` text, if a function or closure does not fit.
        H: JobHandler<Req, Res>, // `Fn(JobContext<Req>)`: no extractors, not `FnOnce`. For captured values: `handler_with`
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
    {
        self.erased(job, Arc::new(Erased::new(handler)))
    }

    /// Adds a handler that is a function of the context and of a state, which is cloned for each attempt.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobType, MemoryStore};
    ///
    /// # struct Printer; impl Printer { async fn print(&self, pages: u32) -> Result<u32, std::io::Error> { Ok(pages) } }
    /// const PRINT: JobType<u32, u32> = JobType::new("Print");
    ///
    /// async fn print(ctx: JobContext<u32>, printer: Arc<Printer>) -> Result<u32, JobError> {
    ///     Ok(printer.print(*ctx.request()).await?)
    /// }
    ///
    /// let builder = AsyncEndpoints::builder(MemoryStore::new()).handler_with(PRINT, Arc::new(Printer), print);
    /// ```
    pub fn handler_with<Req, Res, S, F, Fut>(self, job: JobType<Req, Res>, state: S, handler: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(JobContext<Req>, S) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, JobError>> + Send,
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
    {
        self.handler(job, move |ctx| handler(ctx, state.clone()))
    }

    /// Adds a blocking handler. Each attempt runs on a thread of its own.
    ///
    /// The library cannot stop such a thread, so the function should check
    /// [`cancellation`](crate::AttemptInfo::cancellation) regularly. A thread that continues after its attempt has ended
    /// keeps its slot, which counts as leaked.
    pub fn blocking_handler<Req, Res, F>(self, job: JobType<Req, Res>, function: F) -> Self
    where
        F: Fn(JobContext<Req>) -> Result<Res, JobError> + Send + Sync + 'static,
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
    {
        self.erased(job, Arc::new(Blocking::new(function)))
    }

    /// Declares that other processes run the jobs of a type. A process that only accepts jobs calls this in place of
    /// [`handler`](Self::handler). Without either, the build logs a warning for an endpoint of the type: its jobs could wait
    /// forever.
    pub fn handled_elsewhere<Req, Res>(mut self, job: JobType<Req, Res>) -> Self {
        self.elsewhere.push((job.name(), job.rules));
        self
    }

    /// Adds a middleware around every attempt. The first one added is the outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middlewares.push(Arc::new(middleware));
        self
    }

    /// Measures and traces jobs, store calls and requests. Without telemetry, traces still have ids, which log lines and
    /// stored jobs contain.
    ///
    /// A [`Telemetry`] measures one set of endpoints at a time, since two sets would overwrite each other's gauges.
    #[cfg(feature = "telemetry")]
    pub fn telemetry(mut self, telemetry: &Telemetry) -> Self {
        self.telemetry = Some(telemetry.clone());
        self
    }

    /// Adds a health check. A name of a [built-in check](crate::health) replaces that check.
    ///
    /// `/health` reports all checks, `/health/ready` those with the tag `ready`. A closure is a check too:
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore, health::{BoxError, CheckResult}};
    /// # async fn connections() -> Result<u32, BoxError> { Ok(3) }
    /// let builder = AsyncEndpoints::builder(MemoryStore::new())
    ///     .health_check("pool", async || Ok::<_, BoxError>(CheckResult::healthy().with("connections", connections().await?)));
    /// ```
    pub fn health_check(mut self, name: impl Into<String>, check: impl Into<Check>) -> Self {
        self.health.push((name.into(), check.into()));
        self
    }

    /// Evaluates alert rules and sends notifications while these endpoints [serve](AsyncEndpoints::serve) or
    /// [run](AsyncEndpoints::run). One process of the fleet does it at a time.
    pub fn alerts(mut self, alerts: Alerts) -> Self {
        self.alerts = Some(alerts);
        self
    }

    /// Replaces the body of the health routes. Defaults to JSON. The report has no checks for callers without access.
    pub fn health_response(mut self, write: impl Fn(&HealthReport) -> Response + Send + Sync + 'static) -> Self {
        self.http.health_response = Some(Box::new(write));
        self
    }

    /// Checks the configuration and creates the endpoints.
    pub fn build(self) -> Result<AsyncEndpoints, BuildError> {
        self.options.check(str::to_owned)?;
        let types = self.types()?;
        check::check_health_names(&self.health)?;
        check::check_paths(&self.http.endpoints, &self.http.jobs_path)?;
        check::check_choices(&self.http.endpoints)?;
        check::check_operations(&self.http.endpoints)?;
        check::check_schemas(&self.http.endpoints)?;
        self.warn_of_missing_handlers();
        let mut registered: Vec<RegisteredType> = Vec::new();
        for (name, rules, handler) in self.handlers {
            let name = JobName::new(name)?;
            if registered.iter().any(|of_type| of_type.name == name) {
                return Err(BuildError::TwoHandlers(name));
            }
            registered.push(RegisteredType { name, policy: rules.resolve(&self.options), handler });
        }
        let alerts = self.alerts.map(Plan::new).transpose()?;
        let config = Arc::new(HttpConfig { base_path: self.options.base_path.clone(), ..self.http });
        let (rule, keeps_names) = (config.owner.clone(), self.options.owner_labels);
        let owner = Box::new(move |request: &Parts| http::owner_of(rule.as_ref(), request, keeps_names));
        #[cfg(feature = "dashboard")]
        let dashboard = {
            let config = config.clone();
            Box::new(move |endpoints: &AsyncEndpoints| dashboard::routes(endpoints, &config))
        };
        let routes = Box::new(move |endpoints: &AsyncEndpoints, group| http::routes(endpoints, &config, group));
        let telemetry = self.telemetry.unwrap_or_else(Telemetry::disabled);
        let declared = types.iter().map(|(name, policy)| (name, policy.error_codes));
        let measured =
            Measured::new(telemetry, self.store.kind(), &self.options, declared).ok_or(BuildError::TelemetryTaken)?;
        let parts = Assembly {
            types,
            routes,
            #[cfg(feature = "dashboard")]
            dashboard,
            owner,
            registered,
            middlewares: self.middlewares,
            measured,
            health: self.health,
            alerts,
            redaction: self.redaction,
        };
        Ok(AsyncEndpoints::assemble(self.store, self.options, parts))
    }

    fn erased<Req, Res>(mut self, job: JobType<Req, Res>, handler: Arc<dyn ErasedHandler>) -> Self {
        let handler: Arc<dyn ErasedHandler> = match job.rules.errors {
            Some(errors) => Arc::new(Mapped { handler, errors }),
            None => handler,
        };
        self.handlers.push((job.name(), job.rules, handler));
        self
    }

    /// Logs the endpoints whose jobs no process is known to run, one line per job type.
    fn warn_of_missing_handlers(&self) {
        let handled = self.handlers.iter().map(|(name, ..)| *name).chain(self.elsewhere.iter().map(|(name, _)| *name));
        let mut known: HashSet<&str> = handled.collect();
        for endpoint in self.http.endpoints.iter().filter(|endpoint| known.insert(endpoint.name)) {
            events::no_handler(endpoint.name, endpoint.method.as_str(), &endpoint.path);
        }
    }

    /// Returns the job types by name. Endpoints and handlers of one name must have the same rules.
    fn types(&self) -> Result<Vec<(JobName, Policy)>, BuildError> {
        let endpoints = self.http.endpoints.iter().map(|endpoint| (endpoint.name, &endpoint.rules));
        let handlers = self.handlers.iter().map(|(name, rules, _)| (*name, rules));
        let elsewhere = self.elsewhere.iter().map(|(name, rules)| (*name, rules));
        let mut known: BTreeMap<JobName, &Rules> = BTreeMap::new();
        for (name, rules) in endpoints.chain(handlers).chain(elsewhere) {
            let name = JobName::new(name)?;
            if let Some((rule, first, second)) = known.entry(name.clone()).or_insert(rules).difference(rules) {
                return Err(BuildError::TwoTypes { name, rule, first, second });
            }
            check::check_rules(&name, rules)?;
        }
        Ok(known.into_iter().map(|(name, rules)| (name, rules.resolve(&self.options))).collect())
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let handlers: Vec<_> = self.handlers.iter().map(|(name, ..)| name).collect();
        f.debug_struct("Builder")
            .field("endpoints", &self.http.endpoints)
            .field("handlers", &handlers)
            .finish_non_exhaustive()
    }
}
