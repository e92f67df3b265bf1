//! Reads stored requests for operators.

use async_endpoints_core::{JobId, StoreError, store::JobLookup};

use super::AsyncEndpoints;
use crate::{
    request::{self, RequestLookup},
    store_call::within,
};

impl AsyncEndpoints {
    /// Returns the stored request of a job, after [`Builder::redact_requests`](crate::Builder::redact_requests).
    ///
    /// Stores delete the request of a job that completed. Those of failed and canceled jobs are kept as long as the job.
    ///
    /// # Errors
    ///
    /// The store is unavailable, does not answer within 4.5 s, or the stored request cannot be read.
    pub async fn request(&self, id: JobId) -> Result<RequestLookup, StoreError> {
        if !self.options().expose_requests {
            return Ok(RequestLookup::NotExposed);
        }
        let store = &self.0.store;
        let read = within::<_, StoreError>(async { Ok((store.get(id).await?, store.payload(id).await?)) });
        let (lookup, payload) = read.await?;
        let (JobLookup::Found(job), Some(payload)) = (lookup, payload) else { return Ok(RequestLookup::NotKept) };
        let request = request::read(job.name, &payload, self.0.redaction.as_ref()).map_err(StoreError::Unreadable)?;
        Ok(RequestLookup::Found(Box::new(request)))
    }
}
