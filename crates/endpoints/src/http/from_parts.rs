//! Submissions from an axum handler of the application.

use axum::http::{HeaderName, request::Parts};
use futures_util::FutureExt;

use super::{call, headers, problem::Problem};
use crate::{caller::Caller, envelope::RequestParts, submit::Submit};

impl Submit<'_> {
    /// Submits the job for a request to a route of the application, as a declared endpoint would: the handler reads the
    /// captured headers, path and query parameters, the job belongs to the owner and the trace of the request, and
    /// `Idempotency-Key` and `X-Async-Request-Id` identify a repeat.
    ///
    /// The methods that follow this one replace what the request says.
    ///
    /// ```
    /// use async_endpoints::{
    ///     AsyncEndpoints, JobType, Problem,
    ///     axum::{extract::{Path, State}, http::{StatusCode, request::Parts}},
    /// };
    /// # const RESIZE: JobType<u32, ()> = JobType::new("Resize");
    ///
    /// async fn resize(
    ///     State(endpoints): State<AsyncEndpoints>,
    ///     parts: Parts,
    ///     Path(image): Path<u32>,
    /// ) -> Result<(StatusCode, String), Problem> {
    ///     let accepted = endpoints.submit(RESIZE, image).from_parts(&parts).await?;
    ///     Ok((StatusCode::ACCEPTED, format!("/jobs/{}", accepted.job.id)))
    /// }
    /// # let app: axum::Router<AsyncEndpoints> = axum::Router::new().route("/images/{image}/resize", axum::routing::post(resize));
    /// ```
    ///
    /// # Panics
    ///
    /// If the application's [owner rule](crate::Builder::owner) does.
    pub fn from_parts(mut self, parts: &Parts) -> Self {
        let options = self.endpoints.options();
        let mut head = parts.clone();
        let caller = Caller::of_parts(&mut head, options.enrich);
        self.parent = Some(self.endpoints.measured().layer().context(&head.headers, &caller));
        self.owner = self.endpoints.owner_of(&head);
        self.query = head.uri.query().unwrap_or_default().to_owned();
        match headers::idempotency_key(&head.headers) {
            Ok(key) => self.key = key.map(|key| key.as_str().to_owned()),
            Err(problem) => self.invalid = detail(&problem),
        }
        match headers::request_id(&head.headers) {
            Ok(id) => self.id = id,
            Err(problem) => self.invalid = detail(&problem),
        }
        let captured: Vec<HeaderName> = options.captured_headers.iter().filter_map(|name| name.parse().ok()).collect();
        // The router has matched the path, so nothing is awaited.
        let path = call::path(&mut head).now_or_never().and_then(Result::ok).unwrap_or_default();
        self.parts = RequestParts {
            caller,
            headers: headers::captured(&[], &head.headers, &captured),
            path,
            query: headers::query(&self.query),
        };
        self
    }
}

fn detail(problem: &Problem) -> Option<String> {
    problem.detail().map(str::to_owned)
}
