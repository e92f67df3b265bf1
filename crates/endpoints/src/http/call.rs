//! What every route needs of its request: who asks for which job, under which prefix, in which trace.

use std::sync::Arc;

use async_endpoints_core::{
    JobId, JobView, StoreError,
    job::{Digest, TraceContext},
    store::JobLookup,
};
use axum::{
    RequestPartsExt,
    body::Body,
    extract::{OriginalUri, RawPathParams, Request},
    http::{HeaderMap, StatusCode, Uri, request::Parts},
    response::Response,
};

use super::{access::Sees, document::JobDocument, headers, job, problem::Problem, socket::Peer};
use crate::{AsyncEndpoints, store_call::STORE_TIMEOUT};

pub(super) struct Call {
    pub(super) endpoints: AsyncEndpoints,
    pub(super) head: Arc<Parts>,
    /// What the paths of jobs begin with: the prefix that these routes are mounted under.
    pub(super) base: String,
    pub(super) trace: Option<TraceContext>,
    pub(super) sees: Sees,
    /// Parameters of the path.
    pub(super) path: Result<Vec<(String, String)>, Problem>,
}

impl Call {
    pub(super) async fn of(endpoints: &AsyncEndpoints, request: Request) -> (Self, Body) {
        let (mut head, body) = request.into_parts();
        let call = Self {
            base: endpoints.face().base_path.clone().unwrap_or_else(|| prefix(&head)),
            trace: headers::trace(&head.headers),
            sees: Sees::Own(None),
            path: path(&mut head).await,
            endpoints: endpoints.clone(),
            head: Arc::new(head),
        };
        (call, body)
    }

    /// The same once it is known who asks, by the application's rule.
    pub(super) fn identified(mut self) -> Self {
        self.sees = Sees::of(self.endpoints.face().owner.as_ref(), &self.head);
        self
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    pub(super) fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// The id of a job in the path; what is no id is no job. The last one, as the prefix may have one of that name.
    pub(super) fn id(&self) -> Result<JobId, Problem> {
        let params = self.path.as_ref().map_err(|_| Problem::not_found())?;
        let id = params.iter().rev().find(|(name, _)| name == "id");
        id.and_then(|(_, text)| text.parse().ok()).ok_or_else(Problem::not_found)
    }

    /// A job that the caller may see. One that is somebody else's is answered as one that never was.
    pub(super) fn found(&self, lookup: JobLookup) -> Result<Box<JobView>, Problem> {
        match lookup {
            JobLookup::Found(job) if self.sees.sees(job.owner) => Ok(job),
            JobLookup::Gone { owner } => Err(self.gone(owner)),
            JobLookup::Found(_) | JobLookup::NotFound => Err(Problem::not_found()),
        }
    }

    /// Why a job that is past its retention is not told about.
    pub(super) fn gone(&self, owner: Option<Digest>) -> Problem {
        if self.sees.sees(owner) { Problem::expired() } else { Problem::not_found() }
    }

    /// Before something is done with a job: that it is the caller's. Whose it is never changes, so looking first is safe.
    pub(super) async fn own(&self, id: JobId) -> Result<(), Problem> {
        if self.sees != Sees::All {
            self.found(self.endpoints.job(id).await?)?;
        }
        Ok(())
    }

    /// A job as it is written down for this caller.
    pub(super) async fn document<'a>(&'a self, job: &'a JobView) -> JobDocument<'a> {
        JobDocument { job, waiting: self.endpoints.waiting(job).await, base: &self.base }
    }

    /// A job as the answer, replaced as the application likes.
    pub(super) async fn status(&self, job: &JobView, status: StatusCode) -> Response {
        let document = self.document(job).await;
        let ours = || job::answer(&document, status);
        let responses = &self.endpoints.face().responses;
        super::replaced(ours, |answer| responses.status(&self.head, Ok(&document), answer))
    }

    /// What comes of a wait; none if the client hung up before. One that closed its half of the connection may be gone
    /// for good or may still read: it gets its answer, but nothing is held for it.
    pub(super) async fn unless_gone<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let Some(peer) = self.head.extensions.get::<Peer>() else { return Some(wait.await) };
        tokio::select! {
            biased;
            done = wait => Some(done),
            () = peer.hung_up() => None,
        }
    }
}

/// What several store calls come to, in the time that a client waits for one.
pub(super) async fn in_time<T>(calls: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = |_| StoreError::Unavailable(format!("no answer within {STORE_TIMEOUT:?}"));
    tokio::time::timeout(STORE_TIMEOUT, calls).await.map_err(late)?
}

/// What the router took away from the path before it looked for the route.
fn prefix(head: &Parts) -> String {
    let original = head.extensions.get::<OriginalUri>().map(|OriginalUri(uri)| uri);
    original.and_then(|uri| uri.path().strip_suffix(Uri::path(&head.uri))).unwrap_or_default().to_owned()
}

async fn path(head: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    let params = head.extract::<RawPathParams>().await;
    let params = params.map_err(|rejection| Problem::invalid_path(rejection.body_text()))?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
