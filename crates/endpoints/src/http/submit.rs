//! `POST`, `PUT`, `PATCH` or `DELETE` on a declared path: accepts a job and answers 202.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_endpoints_core::{
    JobName,
    store::{IdempotencyKey, JobLookup, NewJob},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use sha2::{Digest, Sha256};

use super::{
    body,
    call::Call,
    codes,
    config::HttpConfig,
    endpoint::DeclaredEndpoint,
    headers, job,
    submission::{ReceivedRequest, Refusal},
};
use crate::{
    AsyncEndpoints,
    envelope::{self, RequestParts},
    job_type::Policy,
    new_job::{Accepted, Identity, fingerprint, new_job},
    telemetry::SubmissionResult,
};

/// A declared endpoint, with everything that its requests share.
pub(super) struct SubmitHandler {
    pub(super) endpoints: AsyncEndpoints,
    config: Arc<HttpConfig>,
    declared: Arc<DeclaredEndpoint>,
    name: JobName,
    policy: Policy,
    captured: Vec<HeaderName>,
}

impl SubmitHandler {
    pub(super) fn new(
        endpoints: &AsyncEndpoints,
        config: &Arc<HttpConfig>,
        declared: &Arc<DeclaredEndpoint>,
    ) -> Option<Self> {
        let options = endpoints.options();
        Some(Self {
            // `build` checked the name.
            name: endpoints.job_name(declared.name).ok()?,
            policy: declared.rules.resolve(options),
            captured: options.captured_headers.iter().filter_map(|name| name.parse().ok()).collect(),
            endpoints: endpoints.clone(),
            config: config.clone(),
            declared: declared.clone(),
        })
    }

    pub(super) async fn respond(&self, request: Request) -> Response {
        let (call, body) = Call::of(&self.endpoints, self.config.clone(), request).await;
        let head = call.head.clone();
        let hooks = &self.config.responses;
        // The application's validators, rules and response hooks may panic; the client still gets a response.
        let refused = match AssertUnwindSafe(self.accept(call, body)).catch_unwind().await {
            Ok(Ok(response)) => return response,
            Ok(Err(Refusal::Response(mut response))) => {
                response.headers_mut().append(header::VARY, HeaderValue::from_static("Prefer"));
                return *response;
            }
            Ok(Err(Refusal::Problem(problem))) => problem.traced(),
            Err(panic) => {
                // Functions of the application run before `insert`, so no job was stored.
                self.endpoints.count_refused(&self.name, SubmissionResult::Rejected, Some(codes::INTERNAL_ERROR.code));
                return hooks.panicked(&head, panic).await;
            }
        };
        let problem = || {
            let mut response = refused.clone().into_response();
            job::set_preference(&mut response, None);
            response
        };
        hooks.apply(problem, |hooks, response| hooks.submission_error(&head, &refused, response)).await
    }

    async fn accept(&self, call: Call, body: Body) -> Result<Response, Refusal> {
        let call = call.identified();
        let wait = headers::prefer_wait(call.headers());
        let job = self.new_job(&call, body).await.inspect_err(|refusal| self.count(refusal))?;
        let accepted = call.endpoints.accept(job).await?;
        Ok(accepted_response(&call, accepted, wait).await)
    }

    fn count(&self, refusal: &Refusal) {
        let code = match refusal {
            Refusal::Problem(problem) => Some(problem.code()),
            Refusal::Response(_) => None,
        };
        self.endpoints.count_refused(&self.name, submission_result(refusal), code);
    }

    /// Reads and checks the request, and makes the job.
    async fn new_job(&self, call: &Call, body: Body) -> Result<NewJob, Refusal> {
        // The body is read before any refusal: a client that is still writing does not read the response.
        let bytes = body::read(body, call.headers()).await?;
        let path = call.path.clone()?;
        let client_key = headers::idempotency_key(call.headers())?;
        let id = headers::request_id(call.headers())?;
        let chosen = self.declared.choices.read(call.headers(), SystemTime::now())?;
        let fingerprint = fingerprint(&self.name, &path, call.query(), &bytes);
        body::check_type(call.headers(), &bytes)?;
        let text = body::text(&bytes)?;
        let declared = &self.declared;
        let caller = call.head.extensions.get().cloned().unwrap_or_default();
        let parts = RequestParts { caller, headers: Vec::new(), path, query: headers::query(call.query()) };
        let received = ReceivedRequest { head: call.head.clone(), parts };
        let (overrides, mut parts) = declared.check.run(text, received).await?;
        parts.headers = headers::captured(&overrides.headers, call.headers(), &self.captured);
        let payload = envelope::write(if declared.bodiless { "null" } else { text }, &parts);
        let (key, fingerprint) = match &overrides.key {
            Some(key) => (validator_key(key), self::fingerprint(&self.name, &[], "", key.as_bytes())),
            None => (client_key, fingerprint),
        };
        let identity = Identity { key, id, owner: call.visibility.owner().cloned(), fingerprint };
        let policy = Policy {
            priority: overrides.priority.or(chosen.priority).unwrap_or(self.policy.priority),
            delay: overrides.delay.or(chosen.delay).unwrap_or(self.policy.delay),
            ..self.policy
        };
        Ok(new_job(call.endpoints.options(), self.name.clone(), &policy, identity, payload))
    }
}

/// A validator's key as stores keep it: its hash, unless the text is a valid key.
fn validator_key(text: &str) -> Option<IdempotencyKey> {
    let hash = || Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    IdempotencyKey::new(text).or_else(|| IdempotencyKey::new(&hash()))
}

/// The result in the metrics: a server error is a rejection, any other refusal is an invalid request.
fn submission_result(refusal: &Refusal) -> SubmissionResult {
    match refusal {
        Refusal::Problem(problem) if problem.status().is_server_error() => SubmissionResult::Rejected,
        Refusal::Problem(_) | Refusal::Response(_) => SubmissionResult::Invalid,
    }
}

/// 202 with the job; 200 if the client waits and the job ends in time.
async fn accepted_response(call: &Call, mut accepted: Accepted, wait: Option<u64>) -> Response {
    if let Some(seconds) = wait {
        // The job is accepted, so an error of the wait only ends the wait.
        let wait = call.endpoints.wait(accepted.job.id, Duration::from_secs(seconds));
        // Boxed, to keep the future of submissions without a wait small.
        if let Ok(JobLookup::Found(job)) = Box::pin(wait).await {
            accepted.job = *job;
        }
    }
    let ended = wait.filter(|_| accepted.job.status.is_terminal());
    let status = if ended.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let document = call.document(&accepted.job).await;
    let response = || {
        let mut response = job::accepted(&document, status, accepted.replayed);
        job::set_preference(&mut response, ended);
        response
    };
    let hooks = &call.config.responses;
    hooks.apply(response, |hooks, response| hooks.submitted(&call.head, &document, response)).await
}
