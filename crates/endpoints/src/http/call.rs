//! A request in the form that all routes need: caller, job id, prefix.

use std::sync::Arc;

use async_endpoints_core::{JobId, JobView, job::Digest, store::JobLookup};
use axum::{
    RequestPartsExt,
    body::Body,
    extract::{OriginalUri, RawPathParams, Request},
    http::{HeaderMap, StatusCode, Uri, request::Parts},
    response::Response,
};

use super::{
    codes,
    config::HttpConfig,
    document::JobDocument,
    grant::{AccessLevel, Granted},
    job,
    owners::Visibility,
    problem::Problem,
};
use crate::AsyncEndpoints;

pub(super) struct Call {
    pub(super) endpoints: AsyncEndpoints,
    pub(super) config: Arc<HttpConfig>,
    pub(super) head: Arc<Parts>,
    /// The prefix of the library's routes in `Location` and links.
    pub(super) base: String,
    /// The path of the job list, after that prefix.
    jobs: String,
    pub(super) visibility: Visibility,
    /// What the access policy grants to the caller.
    pub(super) granted: Granted,
    /// Path parameters.
    pub(super) path: Result<Vec<(String, String)>, Problem>,
}

impl Call {
    pub(super) async fn of(endpoints: &AsyncEndpoints, config: Arc<HttpConfig>, request: Request) -> (Self, Body) {
        let (mut head, body) = request.into_parts();
        let base = config.base_path.clone().unwrap_or_else(|| prefix(&head));
        let call = Self {
            jobs: format!("{base}{}", config.jobs_path),
            base,
            visibility: Visibility::Own(None),
            granted: Granted::default(),
            path: path(&mut head).await,
            endpoints: endpoints.clone(),
            config,
            head: Arc::new(head),
        };
        (call, body)
    }

    /// Applies the application's owner rule and access policy. Panics if one of them does.
    pub(super) fn identified(mut self) -> Self {
        self.visibility = Visibility::of(self.config.owner.as_ref(), &self.head, self.endpoints.options().owner_labels);
        self.granted = self.config.access.grant(&self.head);
        self
    }

    /// Whether the caller is an operator. It sees all jobs, their owners, and the sources of errors.
    pub(super) fn is_operator(&self) -> bool {
        self.granted.level >= AccessLevel::View
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    pub(super) fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// The path of the job list, with the prefix of the library's routes.
    pub(super) fn jobs_path(&self) -> &str {
        &self.jobs
    }

    /// A path parameter. The last one of this name counts, since a mount prefix may have one too.
    pub(super) fn path_param(&self, name: &str) -> Option<&str> {
        let params = self.path.as_deref().unwrap_or_default();
        params.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The job id in the path. A malformed id is answered like an unknown one.
    pub(super) fn id(&self) -> Result<JobId, Problem> {
        Ok(self.path_param("id").and_then(|text| text.parse().ok()).ok_or(codes::JOB_NOT_FOUND)?)
    }

    /// Whether the caller may see jobs of this owner.
    pub(super) fn sees(&self, owner: Option<Digest>) -> bool {
        self.is_operator() || self.visibility.includes(owner)
    }

    /// A job that the caller may see. Jobs of other owners are answered like unknown ones.
    pub(super) fn found(&self, lookup: JobLookup) -> Result<Box<JobView>, Problem> {
        match lookup {
            JobLookup::Found(job) if self.sees(job.owner) => Ok(job),
            JobLookup::Gone { owner } => Err(self.gone(owner)),
            JobLookup::Found(_) | JobLookup::NotFound => Err(codes::JOB_NOT_FOUND.into()),
        }
    }

    /// The problem of an expired job.
    pub(super) fn gone(&self, owner: Option<Digest>) -> Problem {
        if self.sees(owner) { codes::JOB_EXPIRED.into() } else { codes::JOB_NOT_FOUND.into() }
    }

    /// Fails if the caller may not change a job. A job's owner never changes, so the check may come before an action.
    pub(super) async fn check_changeable(&self, id: JobId) -> Result<(), Problem> {
        if self.granted.level < AccessLevel::Operate && self.visibility != Visibility::All {
            let job = self.found(self.endpoints.job(id).await?)?;
            if !self.visibility.includes(job.owner) {
                return Err(self.refusal(AccessLevel::Operate));
            }
        }
        Ok(())
    }

    /// The problem of a caller that lacks a level.
    pub(super) fn refusal(&self, needed: AccessLevel) -> Problem {
        self.config.access.refusal(&self.granted, needed)
    }

    /// A job in the form that clients read.
    pub(super) async fn document<'a>(&'a self, job: &'a JobView) -> JobDocument<'a> {
        let waiting = self.endpoints.waiting(job).await;
        let expected_wait = self.endpoints.expected_wait(job);
        JobDocument { job, waiting, expected_wait, jobs: &self.jobs, for_operator: self.is_operator() }
    }

    /// A response with a job, after the application's hook.
    pub(super) async fn job_response(&self, job: &JobView, status: StatusCode) -> Response {
        let document = self.document(job).await;
        let response = || job::answer(&document, status);
        let hooks = &self.config.responses;
        hooks.apply(response, |hooks, response| hooks.status(&self.head, Ok(&document), response)).await
    }
}

/// The part of the path that a router removed before it found the route.
pub(crate) fn prefix(head: &Parts) -> String {
    let original = head.extensions.get::<OriginalUri>().map(|OriginalUri(uri)| uri);
    original.and_then(|uri| uri.path().strip_suffix(Uri::path(&head.uri))).unwrap_or_default().to_owned()
}

pub(super) async fn path(head: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    let params = head.extract::<RawPathParams>().await;
    let params = params.map_err(|rejection| codes::INVALID_PATH.with_detail(rejection.body_text()))?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
