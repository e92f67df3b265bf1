//! Declared endpoints: a method and a path that accept jobs of one type.

use std::{
    any::TypeId, borrow::Cow, convert::Infallible, fmt, future::Future, marker::PhantomData, ops::RangeInclusive,
    time::Duration,
};

use async_endpoints_core::Priority;
use axum::{
    extract::Request,
    http::Method,
    response::IntoResponse,
    routing::{MethodRouter, Route},
};
use serde::de::DeserializeOwned;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    choices::Choices,
    submission::{Check, Submission},
};
use crate::{
    job_type::{JobType, Rules},
    json,
};

/// A method and a path that accept jobs of one type. Several endpoints may accept the same type.
///
/// ```
/// # use async_endpoints::{Endpoint, JobType};
/// const RESIZE: JobType<String, u32> = JobType::new("Resize");
/// let endpoint = Endpoint::post("/api/images/{album}", RESIZE);
/// ```
pub struct Endpoint<Req, Res> {
    pub(crate) declared: DeclaredEndpoint,
    types: PhantomData<fn(Req) -> Res>,
}

/// An endpoint without its type parameters.
pub(crate) struct DeclaredEndpoint {
    pub(crate) method: Method,
    pub(crate) path: Cow<'static, str>,
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    pub(super) check: Check,
    pub(crate) choices: Choices,
    /// The request type is `()`: any JSON body is accepted, and none is stored.
    pub(super) bodiless: bool,
    /// Layers of the application, innermost first.
    pub(super) layers: Vec<Box<dyn Fn(MethodRouter) -> MethodRouter + Send + Sync>>,
    pub(crate) doc: EndpointDoc,
    pub(crate) schemas: Option<Schemas>,
}

/// What the OpenAPI document says about an endpoint beside its types.
#[derive(Debug, Default)]
pub(crate) struct EndpointDoc {
    pub(super) summary: Option<Cow<'static, str>>,
    pub(super) description: Option<Cow<'static, str>>,
    pub(super) tags: Vec<Cow<'static, str>>,
    pub(crate) operation_id: Option<Cow<'static, str>>,
}

/// JSON Schemas of an endpoint's types, and the named schemas that they refer to.
#[derive(Debug)]
pub(crate) struct Schemas {
    pub(super) request: serde_json::Value,
    pub(super) result: serde_json::Value,
    pub(crate) named: Vec<(String, serde_json::Value)>,
}

impl<Req: DeserializeOwned + Send + 'static, Res> Endpoint<Req, Res> {
    /// Accepts jobs by `POST`. The path has axum's syntax: `/{name}` is a parameter.
    pub fn post(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self {
        Self::new(Method::POST, path.into(), job)
    }

    /// Accepts jobs by `PUT`.
    pub fn put(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self {
        Self::new(Method::PUT, path.into(), job)
    }

    /// Accepts jobs by `PATCH`.
    pub fn patch(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self {
        Self::new(Method::PATCH, path.into(), job)
    }

    /// Accepts jobs by `DELETE`.
    pub fn delete(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self {
        Self::new(Method::DELETE, path.into(), job)
    }

    fn new(method: Method, path: Cow<'static, str>, job: JobType<Req, Res>) -> Self {
        let bodiless = TypeId::of::<Req>() == TypeId::of::<()>();
        let declared = DeclaredEndpoint {
            method,
            path,
            name: job.name(),
            rules: job.rules,
            check: Check::Shape(if bodiless {
                json::check_syntax
            } else {
                |body| json::read_with_path::<Req>(body).map(drop)
            }),
            choices: Choices::default(),
            bodiless,
            layers: Vec::new(),
            doc: EndpointDoc::default(),
            schemas: None,
        };
        Self { declared, types: PhantomData }
    }

    /// Validates each request before it is stored. The validator receives a [`Submission`] and either returns it, perhaps
    /// with another priority or a delay, or returns an error response; then nothing is stored. A repeat with the same
    /// idempotency key is validated again.
    ///
    /// ```
    /// use async_endpoints::{Endpoint, JobType, Priority, Problem, Submission, axum::http::StatusCode};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Stay { nights: u32 }
    ///
    /// const BOOK: JobType<Stay, ()> = JobType::new("Book");
    ///
    /// async fn check(stay: Submission<Stay>) -> Result<Submission<Stay>, Problem> {
    ///     match stay.request().nights {
    ///         0 => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "NO_NIGHTS", "A stay has nights")),
    ///         1..=7 => Ok(stay),
    ///         _ => Ok(stay.priority(Priority::LOWEST)),
    ///     }
    /// }
    ///
    /// let endpoint = Endpoint::post("/api/stays", BOOK).validate(check);
    /// ```
    #[must_use]
    pub fn validate<F, Fut, E>(mut self, check: F) -> Self
    where
        F: Fn(Submission<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Submission<Req>, E>> + Send,
        E: IntoResponse + 'static,
    {
        self.declared.check = Check::validator(self.declared.bodiless, check);
        self
    }

    /// Lets callers delay their jobs by at most `longest`, in place of the delay of the job type. `X-Async-Delay: 90` is in
    /// seconds; `X-Async-Not-Before: 2026-12-01T06:00:00Z` is a time, by the clock of this process. By default both are
    /// refused. A delay that the validator sets replaces the caller's.
    #[must_use]
    pub fn allow_delay(mut self, longest: Duration) -> Self {
        self.declared.choices.delay = Some(longest);
        self
    }

    /// Lets callers set the priority of their jobs within a range, with `X-Async-Priority: 7`. By default the header is
    /// refused. A priority that the validator sets replaces the caller's.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{Endpoint, JobType, Priority};
    /// # const RESIZE: JobType<String, u32> = JobType::new("Resize");
    /// let endpoint = Endpoint::post("/api/images", RESIZE)
    ///     .allow_delay(Duration::from_secs(24 * 60 * 60))
    ///     .allow_priority(Priority::LOWEST..=Priority::new(7));
    /// ```
    #[must_use]
    pub fn allow_priority(mut self, range: RangeInclusive<Priority>) -> Self {
        self.declared.choices.priority = Some(range);
        self
    }

    /// Wraps the endpoint in a layer that works with axum, for authentication or rate limits for example. The layer added
    /// last is outermost.
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.declared.layers.push(Box::new(move |method| method.layer(layer.clone())));
        self
    }

    /// The summary in `/openapi.json`. Defaults to "Submits a NAME job".
    #[must_use]
    pub fn summary(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.declared.doc.summary = Some(text.into());
        self
    }

    /// The description in `/openapi.json`, which may be Markdown. Defaults to none.
    #[must_use]
    pub fn description(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.declared.doc.description = Some(text.into());
        self
    }

    /// Adds a tag in `/openapi.json`. Without tags the endpoint has the tag `endpoints`.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Cow<'static, str>>) -> Self {
        self.declared.doc.tags.push(tag.into());
        self
    }

    /// The name of the operation in `/openapi.json`, from which client generators make the name of a method. Defaults to the
    /// HTTP method and the name of the job type, such as `postOrder`. Each name occurs once.
    ///
    /// ```
    /// # use async_endpoints::{Endpoint, JobType};
    /// # const RESIZE: JobType<String, u32> = JobType::new("Resize");
    /// let endpoint = Endpoint::post("/api/images", RESIZE)
    ///     .operation_id("resizeImage")
    ///     .tag("images")
    ///     .summary("Resizes an image")
    ///     .description("The result is the number of bytes.");
    /// ```
    #[must_use]
    pub fn operation_id(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.declared.doc.operation_id = Some(name.into());
        self
    }

    /// Adds the schemas of request and result to `/openapi.json`.
    #[cfg(feature = "openapi")]
    #[must_use]
    pub fn documented(mut self) -> Self
    where
        Req: utoipa::ToSchema,
        Res: utoipa::ToSchema,
    {
        self.declared.schemas = Some(schemas::of::<Req, Res>());
        self
    }
}

#[cfg(feature = "openapi")]
mod schemas {
    use serde_json::Value;
    use utoipa::ToSchema;

    use super::Schemas;

    pub(super) fn of<Req: ToSchema, Res: ToSchema>() -> Schemas {
        let mut named = Vec::new();
        Req::schemas(&mut named);
        Res::schemas(&mut named);
        let mut named = named.into_iter().map(|(name, schema)| (name, json(schema))).collect();
        Schemas { request: refer::<Req>(&mut named), result: refer::<Res>(&mut named), named }
    }

    /// The schema of a type; a reference by name for structs and enums, so that generated clients have a type of that name.
    fn refer<T: ToSchema>(named: &mut Vec<(String, Value)>) -> Value {
        let schema = json(T::schema());
        let is_named = ["properties", "oneOf", "anyOf", "allOf", "enum"].iter().any(|key| schema.get(key).is_some());
        // `Option<T>` has no name of its own.
        if !is_named || schema["oneOf"].as_array().is_some_and(|of| of.iter().any(|option| option["type"] == "null")) {
            return schema;
        }
        let reference = serde_json::json!({ "$ref": format!("#/components/schemas/{}", T::name()) });
        named.push((T::name().into_owned(), schema));
        reference
    }

    fn json(schema: impl serde::Serialize) -> Value {
        serde_json::to_value(schema).unwrap_or(Value::Bool(true))
    }
}

impl<Req, Res> fmt::Debug for Endpoint<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.declared.fmt(f)
    }
}

impl fmt::Debug for DeclaredEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, name, rules, .. } = self;
        f.debug_struct("Endpoint")
            .field("method", method)
            .field("path", path)
            .field("name", name)
            .field("rules", rules)
            .finish_non_exhaustive()
    }
}
