//! What an application declares: a method and a path that accept jobs of one type. Must not know how.

use std::{any::TypeId, borrow::Cow, convert::Infallible, fmt, future::Future, marker::PhantomData};

use axum::{
    extract::Request,
    http::Method,
    response::IntoResponse,
    routing::{MethodRouter, Route},
};
use serde::de::DeserializeOwned;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    job_type::{JobType, Rules},
    json,
    submission::{Check, Submission},
};

/// A method and a path that accept jobs of one type. Several endpoints may accept the same type.
///
/// ```
/// # use async_endpoints::{Endpoint, JobType};
/// const RESIZE: JobType<String, u32> = JobType::new("Resize");
/// let endpoint = Endpoint::post("/api/images/{album}", RESIZE);
/// ```
pub struct Endpoint<Req, Res> {
    pub(crate) declared: Declared,
    types: PhantomData<fn(Req) -> Res>,
}

/// An endpoint without its types.
pub(crate) struct Declared {
    pub(crate) method: Method,
    pub(crate) path: Cow<'static, str>,
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    pub(crate) check: Check,
    /// The type's request is `()`: whatever body comes, nothing is kept of it.
    pub(crate) bodiless: bool,
    /// The application's own, innermost first.
    pub(crate) layers: Vec<Box<dyn Fn(MethodRouter) -> MethodRouter + Send + Sync>>,
    pub(crate) summary: Option<Cow<'static, str>>,
    pub(crate) schemas: Option<Schemas>,
}

/// What a document says of an endpoint's types: JSON Schemas, and the named ones that they refer to.
#[derive(Debug)]
pub(crate) struct Schemas {
    pub(crate) request: serde_json::Value,
    pub(crate) result: serde_json::Value,
    pub(crate) named: Vec<(String, serde_json::Value)>,
}

impl<Req: DeserializeOwned + Send + 'static, Res> Endpoint<Req, Res> {
    /// Accepts jobs by `POST`. The path is axum's: `/{name}` is a parameter.
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
        let declared = Declared {
            method,
            path,
            name: job.name(),
            rules: job.rules,
            check: Check::Shape(if bodiless {
                json::is_any
            } else {
                |body| json::read_with_path::<Req>(body).map(drop)
            }),
            bodiless,
            layers: Vec::new(),
            summary: None,
            schemas: None,
        };
        Self { declared, types: PhantomData }
    }

    /// Looks at each request before it is stored. It is given the whole [`Submission`] and hands it back, perhaps with
    /// another priority or a delay; or it answers itself, and nothing is stored. A repeat under an idempotency key is
    /// looked at again.
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
        self.declared.check = Check::validated(self.declared.bodiless, check);
        self
    }

    /// Wraps the endpoint in a layer: authentication, rate limits, whatever is made for axum. The last one is outermost.
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

    /// What it does, in a few words, for `/openapi.json`. Default: that it submits a job of its type.
    #[must_use]
    pub fn summary(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.declared.summary = Some(text.into());
        self
    }

    /// Tells the schemas of request and result in `/openapi.json`.
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

    /// A type of the application's making goes by its name, so that clients generated from the document have it.
    fn refer<T: ToSchema>(named: &mut Vec<(String, Value)>) -> Value {
        let schema = json(T::schema());
        let is_made = ["properties", "oneOf", "anyOf", "allOf", "enum"].iter().any(|word| schema.get(word).is_some());
        // An optional one is no type of its own, and has no name.
        if !is_made || schema["oneOf"].as_array().is_some_and(|of| of.iter().any(|one| one["type"] == "null")) {
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

impl fmt::Debug for Declared {
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
