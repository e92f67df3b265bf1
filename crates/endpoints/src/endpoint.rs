//! What an application declares: a method and a path that accept jobs of one type. Must not know how.

use std::{any::TypeId, borrow::Cow};

use axum::http::Method;
use serde::de::DeserializeOwned;

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
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) method: Method,
    pub(crate) path: Cow<'static, str>,
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    /// Whether a body, as JSON text, has the shape of the type's request.
    pub(crate) check: fn(&str) -> Result<(), String>,
    /// The type's request is `()`: whatever body comes, nothing is kept of it.
    pub(crate) bodiless: bool,
}

impl Endpoint {
    /// Accepts jobs by `POST`. The path is axum's: `/{name}` is a parameter.
    pub fn post<Req, Res>(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self
    where
        Req: DeserializeOwned + 'static,
    {
        Self::new(Method::POST, path.into(), job)
    }

    /// Accepts jobs by `PUT`.
    pub fn put<Req, Res>(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self
    where
        Req: DeserializeOwned + 'static,
    {
        Self::new(Method::PUT, path.into(), job)
    }

    /// Accepts jobs by `PATCH`.
    pub fn patch<Req, Res>(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self
    where
        Req: DeserializeOwned + 'static,
    {
        Self::new(Method::PATCH, path.into(), job)
    }

    /// Accepts jobs by `DELETE`.
    pub fn delete<Req, Res>(path: impl Into<Cow<'static, str>>, job: JobType<Req, Res>) -> Self
    where
        Req: DeserializeOwned + 'static,
    {
        Self::new(Method::DELETE, path.into(), job)
    }

    fn new<Req, Res>(method: Method, path: Cow<'static, str>, job: JobType<Req, Res>) -> Self
    where
        Req: DeserializeOwned + 'static,
    {
        let bodiless = TypeId::of::<Req>() == TypeId::of::<()>();
        let check: fn(&str) -> Result<(), String> =
            if bodiless { |_| Ok(()) } else { |body| json::read_with_path::<Req>(body).map(drop) };
        Self { method, path, name: job.name(), rules: job.rules, check, bodiless }
    }
}
