//! `POST`, `PUT`, `PATCH` or `DELETE` on a declared path: accept a job and answer 202.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_endpoints_core::{JobName, store::JobLookup};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::{body, call::Call, follow, headers, job, problem::Problem};
use crate::{
    AsyncEndpoints,
    endpoint::Declared,
    envelope::{self, RequestParts},
    job_type::Policy,
    submission::{Check, Refusal, Sent, Wishes},
    submit::{Accepted, Draft, SubmitError, fingerprint},
    telemetry::Submission,
};

/// A declared endpoint with all that each of its requests needs.
pub(super) struct Accepting {
    endpoints: AsyncEndpoints,
    /// Its place among the endpoints.
    place: usize,
    name: JobName,
    policy: Policy,
    captured: Vec<HeaderName>,
}

impl Accepting {
    pub(super) fn new(endpoints: &AsyncEndpoints, place: usize) -> Option<Self> {
        let (options, declared) = (endpoints.options(), endpoints.endpoints().get(place)?);
        Some(Self {
            place,
            // The name was checked when the endpoints were built.
            name: endpoints.job_name(declared.name).ok()?,
            policy: declared.rules.resolve(options),
            captured: options.captured_headers.iter().filter_map(|name| name.parse().ok()).collect(),
            endpoints: endpoints.clone(),
        })
    }

    pub(super) fn endpoints(&self) -> &AsyncEndpoints {
        &self.endpoints
    }

    fn declared(&self) -> &Declared {
        &self.endpoints.endpoints()[self.place]
    }
}

pub(super) async fn submit(accepting: &Accepting, request: Request) -> Response {
    let (call, body) = Call::of(&accepting.endpoints, request).await;
    let (head, trace) = (call.head.clone(), call.trace.clone());
    // The application's validators, rules and replaced answers may panic; its clients still get an answer.
    let refused = match AssertUnwindSafe(answer(accepting, call, body)).catch_unwind().await {
        Ok(Ok(response)) => return response,
        Ok(Err(Refused::Answer(mut response))) => {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("Prefer"));
            return *response;
        }
        Ok(Err(Refused::Problem(problem))) => problem.traced(trace.as_ref()),
        Err(panic) => {
            // What is the application's runs before the store is asked, or is caught where it runs.
            accepting.endpoints.refused(&accepting.name, Submission::Rejected);
            return super::panicked(&accepting.endpoints, &head, &*panic, trace.as_ref());
        }
    };
    let ours = || {
        let mut response = refused.clone().into_response();
        follow::prefer(&mut response, None);
        response
    };
    let responses = &accepting.endpoints.face().responses;
    super::replaced(ours, |answer| responses.submission_error(&head, &refused, answer))
}

/// What is answered instead of a job.
enum Refused {
    Problem(Problem),
    /// The validator's own.
    Answer(Box<Response>),
}

impl<E: Into<Problem>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

async fn answer(accepting: &Accepting, call: Call, body: Body) -> Result<Response, Refused> {
    let mut call = call.identified();
    let wait = headers::prefer_wait(call.headers());
    let draft = draft(accepting, &mut call, body).await.inspect_err(|refused| {
        call.endpoints.refused(&accepting.name, refused.kind());
    })?;
    let accepted = call.endpoints.accept(draft).await?;
    Ok(accepted_answer(&call, accepted, wait).await)
}

/// What is to be accepted, if the request can be.
async fn draft(accepting: &Accepting, call: &mut Call, body: Body) -> Result<Draft, Refused> {
    // Before anything is refused: a client that still writes does not read the answer.
    let bytes = body::read(body, call.headers()).await?;
    if call.endpoints.is_shutting_down() {
        return Err(SubmitError::ShuttingDown.into());
    }
    let path = std::mem::replace(&mut call.path, Ok(Vec::new()))?;
    let key = headers::idempotency_key(call.headers())?;
    let id = headers::request_id(call.headers())?;
    body::check_type(call.headers(), &bytes)?;
    let fingerprint = fingerprint(&accepting.name, &path, call.query(), &bytes);
    let sent = body::text(&bytes)?;
    let declared = accepting.declared();
    let parts = RequestParts { headers: Vec::new(), path, query: headers::query(call.query()) };
    let (wishes, mut parts) = check(declared, sent, &call.head, parts).await?;
    parts.headers = headers::captured(&wishes.headers, call.headers(), &accepting.captured);
    let payload = envelope::write(if declared.bodiless { "null" } else { sent }, &parts);
    let policy = Policy {
        priority: wishes.priority.unwrap_or(accepting.policy.priority),
        delay: wishes.delay.unwrap_or(accepting.policy.delay),
        ..accepting.policy
    };
    let (name, owner, trace) = (accepting.name.clone(), call.sees.owner(), call.trace.clone());
    Ok(Draft { id, name, policy, payload, key, fingerprint, owner, trace })
}

impl Refused {
    /// How it is counted: what this process cannot take now it has rejected, all else was wrong with the request.
    fn kind(&self) -> Submission {
        match self {
            Self::Problem(problem) if problem.status().is_server_error() => Submission::Rejected,
            Self::Problem(_) | Self::Answer(_) => Submission::Invalid,
        }
    }
}

/// Whether the body fits the type, and what the validator would have otherwise.
async fn check(
    declared: &Declared,
    text: &str,
    head: &Arc<Parts>,
    parts: RequestParts,
) -> Result<(Wishes, RequestParts), Refused> {
    let validate = match &declared.check {
        Check::Shape(fits) => {
            fits(text).map_err(|detail| body::misfit(text, detail))?;
            return Ok((Wishes::default(), parts));
        }
        Check::Validated(validate) => validate,
    };
    let sent = Sent { head: head.clone(), parts };
    let (wishes, sent) = validate(text, sent).await.map_err(|refusal| match refusal {
        Refusal::Shape(detail) => Refused::Problem(body::misfit(text, detail)),
        Refusal::Problem(problem) => Refused::Problem(problem),
        Refusal::Answer(response) => Refused::Answer(Box::new(response)),
    })?;
    Ok((wishes, sent.parts))
}

/// 202 with the job; 200 if the client would wait and the job ended meanwhile.
async fn accepted_answer(call: &Call, mut accepted: Accepted, wait: Option<u64>) -> Response {
    if let Some(seconds) = wait {
        // The job is accepted whatever becomes of this: a wait that fails is a wait that is over.
        let wait = call.endpoints.wait(accepted.job.id, Duration::from_secs(seconds));
        // Apart, so that those who do not wait do not carry it.
        if let Some(Ok(JobLookup::Found(job))) = Box::pin(call.unless_gone(wait)).await {
            accepted.job = *job;
        }
    }
    let ended = wait.filter(|_| accepted.job.status.is_terminal());
    let status = if ended.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let document = call.document(&accepted.job).await;
    let ours = || {
        let mut response = job::accepted(&document, status, accepted.replayed);
        follow::prefer(&mut response, ended);
        response
    };
    let responses = &call.endpoints.face().responses;
    super::replaced(ours, |answer| responses.submitted(&call.head, &document, answer))
}
