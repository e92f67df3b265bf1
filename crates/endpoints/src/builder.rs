//! Puts the parts together and finds what does not fit before anything runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_endpoints_core::{JobName, Store, job::InvalidName};
use axum::http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::JobContext,
    endpoints::{Assembly, AsyncEndpoints},
    error::JobError,
    handler::{Blocking, Erased, ErasedHandler, JobHandler},
    http::{self, Access, Declared, Endpoint, HttpConfig, Owner, Responses, Route},
    job_type::{JobType, Policy, Rules},
    middleware::Middleware,
    options::{Options, OptionsError},
    telemetry::{Measured, Telemetry},
    worker::RegisteredType,
};

/// Why the parts do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A job type has a name that is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A setting cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A path is not one of axum's, or two endpoints would answer the same request.
    #[error("{method} {path} of {name} cannot be routed{}: {reason}", .other.as_ref().map(|name| format!(" beside that of {name}")).unwrap_or_default())]
    Path {
        /// The endpoint's method.
        method: String,
        /// Its path.
        path: String,
        /// Its job type.
        name: String,
        /// The job type of the endpoint in its way.
        other: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// One job type has two handlers.
    #[error("{0} has two handlers")]
    TwoHandlers(JobName),
    /// Another set of endpoints is measured by the same [`Telemetry`].
    #[error("a Telemetry measures one set of endpoints, and another has this one: make one for each")]
    TelemetryTaken,
    /// Two types of endpoints have the same name in the OpenAPI document.
    #[error("{0} is the name of two schemas: give one of the types another with #[schema(as = …)]")]
    TwoSchemas(String),
    /// One name stands for two job types with different rules.
    #[error("{name} is declared twice, with different rules: {first}, and {second}")]
    TwoTypes {
        /// The name.
        name: JobName,
        /// The rules of one.
        first: String,
        /// The rules of the other.
        second: String,
    },
}

/// Collects endpoints and handlers; made by [`AsyncEndpoints::builder`].
#[must_use = "nothing runs before it is built"]
pub struct Builder {
    store: Arc<dyn Store>,
    options: Options,
    http: HttpConfig,
    handlers: Vec<(&'static str, Rules, Arc<dyn ErasedHandler>)>,
    middlewares: Vec<Arc<dyn Middleware>>,
    telemetry: Option<Telemetry>,
}

impl AsyncEndpoints {
    /// Starts a builder with the store that keeps the jobs.
    pub fn builder(store: impl Store) -> Builder {
        Builder {
            store: Arc::new(store),
            options: Options::default(),
            http: HttpConfig::default(),
            handlers: Vec::new(),
            middlewares: Vec::new(),
            telemetry: None,
        }
    }
}

impl Builder {
    /// Replaces the default settings.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Accepts jobs over HTTP.
    pub fn endpoint<Req, Res>(mut self, endpoint: Endpoint<Req, Res>) -> Self {
        self.http.endpoints.push(endpoint.declared);
        self
    }

    /// Who may use the routes for operators. Default: [`Access::loopback`].
    pub fn access(mut self, access: Access) -> Self {
        self.http.access = access;
        self
    }

    /// Whose jobs a request makes and sees; a job of somebody else is answered as one that never was, on every route.
    /// Without a rule, who knows a job's id sees it.
    ///
    /// Authenticate before: the rule sees what the application's layers put into `extensions`.
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

    /// Replaces answers, or adds to them.
    pub fn responses(mut self, responses: impl Responses) -> Self {
        self.http.responses = Box::new(responses);
        self
    }

    /// Runs jobs of this type in this process.
    pub fn handler<Req, Res, H>(self, job: JobType<Req, Res>, handler: H) -> Self
    where
        H: JobHandler<Req, Res>,
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
    {
        self.erased(job, Arc::new(Erased::new(handler)))
    }

    /// Runs jobs of this type in this process, each attempt on a thread of its own that may block.
    ///
    /// Such a thread cannot be stopped from outside: look at [`cancellation`](crate::AttemptInfo::cancellation)
    /// now and then. One that goes on after its attempt was ended keeps its slot, which counts as leaked.
    pub fn blocking_handler<Req, Res, F>(self, job: JobType<Req, Res>, function: F) -> Self
    where
        F: Fn(JobContext<Req>) -> Result<Res, JobError> + Send + Sync + 'static,
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
    {
        self.erased(job, Arc::new(Blocking::new(function)))
    }

    /// Wraps every attempt; the first one added is outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middlewares.push(Arc::new(middleware));
        self
    }

    /// Measures jobs, the store and requests. Without it nothing is measured. One set of endpoints has it at a time: two
    /// would write over each other's gauges.
    pub fn telemetry(mut self, telemetry: &Telemetry) -> Self {
        self.telemetry = Some(telemetry.clone());
        self
    }

    /// Checks that everything fits together.
    pub fn build(self) -> Result<AsyncEndpoints, BuildError> {
        self.options.check(str::to_owned)?;
        let types = self.types()?;
        check_paths(&self.http.endpoints)?;
        check_schemas(&self.http.endpoints)?;
        let mut registered: Vec<RegisteredType> = Vec::new();
        for (name, rules, handler) in self.handlers {
            let name = JobName::new(name)?;
            if registered.iter().any(|of_type| of_type.name == name) {
                return Err(BuildError::TwoHandlers(name));
            }
            registered.push(RegisteredType { name, policy: rules.resolve(&self.options), handler });
        }
        let config = Arc::new(HttpConfig { base_path: self.options.base_path.clone(), ..self.http });
        let routes = Box::new(move |endpoints: &AsyncEndpoints, group| http::routes(endpoints, &config, group));
        let measured = match self.telemetry.filter(Telemetry::is_enabled) {
            Some(telemetry) => {
                let names = types.iter().map(|(name, _)| name);
                let measured = Measured::new(telemetry, self.store.kind(), names);
                Some(measured.ok_or(BuildError::TelemetryTaken)?)
            }
            None => None,
        };
        let parts = Assembly { types, routes, registered, middlewares: self.middlewares, measured };
        Ok(AsyncEndpoints::assemble(self.store, self.options, parts))
    }

    fn erased<Req, Res>(mut self, job: JobType<Req, Res>, handler: Arc<dyn ErasedHandler>) -> Self {
        self.handlers.push((job.name(), job.rules, handler));
        self
    }

    /// The job types by name. One name has one set of rules, or the two halves of a service would disagree.
    fn types(&self) -> Result<Vec<(JobName, Policy)>, BuildError> {
        let endpoints = self.http.endpoints.iter().map(|endpoint| (endpoint.name, &endpoint.rules));
        let handlers = self.handlers.iter().map(|(name, rules, _)| (*name, rules));
        let mut known: BTreeMap<JobName, &Rules> = BTreeMap::new();
        for (name, rules) in endpoints.chain(handlers) {
            let name = JobName::new(name)?;
            let (first, second) = (format!("{:?}", known.entry(name.clone()).or_insert(rules)), format!("{rules:?}"));
            if first != second {
                return Err(BuildError::TwoTypes { name, first, second });
            }
        }
        Ok(known.into_iter().map(|(name, rules)| (name, rules.resolve(&self.options))).collect())
    }
}

/// Types go by their names in the document, so one name has one schema.
fn check_schemas(endpoints: &[Declared]) -> Result<(), BuildError> {
    let mut known = HashMap::new();
    for (name, schema) in endpoints.iter().flat_map(|endpoint| &endpoint.schemas).flat_map(|schemas| &schemas.named) {
        if *known.entry(name).or_insert(schema) != schema {
            return Err(BuildError::TwoSchemas(name.clone()));
        }
    }
    Ok(())
}

/// axum panics at paths that it cannot route, so they are tried here first.
fn check_paths(endpoints: &[Declared]) -> Result<(), BuildError> {
    let mut routes: matchit::Router<()> = matchit::Router::new();
    for own in Route::JOBS.into_iter().chain(Route::MONITORING) {
        // They are merged into the same router, and do not conflict with each other.
        let _ = routes.insert(own.path(), ());
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let fail = |other: Option<&Declared>, reason: String| BuildError::Path {
            method: endpoint.method.to_string(),
            path: endpoint.path.to_string(),
            name: endpoint.name.to_owned(),
            other: other.map(|other| format!("{}, {} {}", other.name, other.method, other.path)),
            reason,
        };
        if !endpoint.path.starts_with('/') {
            return Err(fail(None, "a path begins with a slash".to_owned()));
        }
        if endpoint.path.split('/').any(|part| part.starts_with([':', '*'])) {
            return Err(fail(None, "a parameter is written {name}, the rest of a path {*name}".to_owned()));
        }
        let before = &endpoints[..i];
        if let Some(same) = before.iter().find(|e| e.path == endpoint.path && e.method == endpoint.method) {
            return Err(fail(Some(same), "both have the same method and path".to_owned()));
        }
        if before.iter().any(|e| e.path == endpoint.path) {
            continue;
        }
        if let Err(error) = routes.insert(endpoint.path.clone(), ()) {
            let other = match &error {
                matchit::InsertError::Conflict { with } => before.iter().find(|e| e.path == *with),
                _ => None,
            };
            return Err(fail(other, error.to_string()));
        }
    }
    Ok(())
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
