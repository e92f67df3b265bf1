//! `POST`, `PUT`, `PATCH` or `DELETE` on a declared path: accept a job and answer 202.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{JobName, job::TraceContext, store::Lookup};
use axum::{
    RequestExt,
    extract::{RawPathParams, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;

use super::{body, follow, headers, job, problem::Problem};
use crate::{
    AsyncEndpoints,
    endpoint::Endpoint,
    envelope::{self, RequestParts},
    job_type::Policy,
    submit::{Accepted, Draft, SubmitError, fingerprint},
};

const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
const JOB_ID: HeaderName = HeaderName::from_static("x-async-job-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A declared endpoint with all that each of its requests needs.
pub(super) struct Accepting {
    endpoints: AsyncEndpoints,
    name: JobName,
    policy: Policy,
    check: fn(&str) -> Result<(), String>,
    bodiless: bool,
    captured: Vec<HeaderName>,
}

impl Accepting {
    pub(super) fn new(endpoints: &AsyncEndpoints, endpoint: &Endpoint) -> Option<Self> {
        let options = endpoints.options();
        Some(Self {
            name: endpoints.job_name(endpoint.name).ok()?,
            policy: endpoint.rules.resolve(options),
            check: endpoint.check,
            bodiless: endpoint.bodiless,
            captured: options.captured_headers.iter().filter_map(|name| name.parse().ok()).collect(),
            endpoints: endpoints.clone(),
        })
    }
}

pub(super) async fn submit(accepting: Arc<Accepting>, request: Request) -> Response {
    let trace = headers::trace(request.headers());
    let wait = headers::prefer_wait(request.headers());
    match accept(&accepting, request, trace.clone()).await {
        Ok(accepted) => answer(&accepting.endpoints, accepted, wait).await,
        Err(problem) => {
            let mut refusal = problem.traced(trace.as_ref()).into_response();
            follow::prefer(&mut refusal, None);
            refusal
        }
    }
}

async fn accept(accepting: &Accepting, mut request: Request, trace: Option<TraceContext>) -> Result<Accepted, Problem> {
    let path = path(&mut request).await;
    let (head, body) = request.into_parts();
    // Before anything is refused: a client that still writes does not read the answer.
    let bytes = body::read(body).await?;
    if accepting.endpoints.is_shutting_down() {
        return Err(SubmitError::ShuttingDown.into());
    }
    let path = path?;
    let key = headers::idempotency_key(&head.headers)?;
    let id = headers::request_id(&head.headers)?;
    body::check_type(&head.headers, &bytes)?;
    let query = head.uri.query().unwrap_or_default();
    let fingerprint = fingerprint(&accepting.name, &path, query, &bytes);
    let sent = body::parse(&bytes)?;
    let request = if accepting.bodiless { RawValue::NULL } else { sent };
    (accepting.check)(request.get()).map_err(Problem::invalid_request)?;
    let parts = RequestParts {
        headers: headers::captured(&head.headers, &accepting.captured),
        path,
        query: headers::query(query),
    };
    let payload = envelope::write(request, &parts).map_err(|error| Problem::invalid_request(error.to_string()))?;
    let name = accepting.name.clone();
    let draft = Draft { id, name, policy: accepting.policy, payload, key, fingerprint, trace };
    Ok(accepting.endpoints.accept(draft).await?)
}

async fn path(request: &mut Request) -> Result<Vec<(String, String)>, Problem> {
    let params = request.extract_parts::<RawPathParams>().await;
    let params = params.map_err(|rejection| Problem::invalid_path(rejection.body_text()))?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// 202 with the job; 200 if the client would wait and the job ended meanwhile.
async fn answer(endpoints: &AsyncEndpoints, mut accepted: Accepted, wait: Option<u64>) -> Response {
    if let Some(seconds) = wait {
        // The job is accepted whatever becomes of this: a wait that fails is a wait that is over.
        if let Ok(Lookup::Found(job)) = endpoints.wait(accepted.job.id, Duration::from_secs(seconds)).await {
            accepted.job = *job;
        }
    }
    let ended = wait.filter(|_| accepted.job.status.is_terminal());
    let waiting = endpoints.waiting(&accepted.job).await;
    let mut response = job::answer(&accepted.job, waiting);
    if ended.is_none() {
        *response.status_mut() = StatusCode::ACCEPTED;
        // Also for a job that ended meanwhile: every 202 tells when to ask.
        response.headers_mut().entry(header::RETRY_AFTER).or_insert_with(|| 1.into());
    }
    follow::prefer(&mut response, ended);
    let headers = response.headers_mut();
    let id = accepted.job.id;
    for (name, value) in
        [(header::LOCATION, job::location(id)), (OPERATION_LOCATION, job::location(id)), (JOB_ID, id.to_string())]
    {
        headers.insert(name, HeaderValue::try_from(value).unwrap_or_else(|_| unreachable!("a path and a UUID")));
    }
    if accepted.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
