//! The entry point: submits jobs, and finds submitted ones.

use std::sync::Arc;

use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use async_endpoints_core::JobId;

use crate::{connection::Connection, error::Error, handle::JobHandle, submission::Submission};

/// A client of one service. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) connection: Arc<Connection>,
}

impl Client {
    /// Submits a job: `POST` on a path below the base address, with the request as JSON. `Res` is the type of the handler's
    /// result. Await the returned value to send it:
    ///
    /// ```no_run
    /// # use async_endpoints_client::{Client, Error};
    /// # async fn print(client: Client) -> Result<(), Error> {
    /// let job = client.submit::<_, u64>("/api/print", &[1, 2, 3]).idempotency_key("order-7").await?;
    /// println!("{} is a repeat: {}", job.id(), job.is_replayed());
    /// # Ok(()) }
    /// ```
    pub fn submit<Req: Serialize + ?Sized, Res: DeserializeOwned>(&self, path: &str, request: &Req) -> Submission<Res> {
        let body = serde_json::to_vec(request).map_err(Error::Request);
        Submission::new(self.connection.clone(), Method::POST, path, body)
    }

    /// The handle of a job that was submitted earlier, by this program or another. Sends nothing, so the job may be unknown.
    ///
    /// ```no_run
    /// # use async_endpoints_client::{Client, Error};
    /// # async fn read(client: Client) -> Result<(), Error> {
    /// let job = client.job::<u64>("01a223eb-0ae5-7044-9df3-89e55d8e79bf".parse().expect("a UUID"));
    /// println!("{}", job.state().await?.status);
    /// # Ok(()) }
    /// ```
    pub fn job<Res: DeserializeOwned>(&self, id: JobId) -> JobHandle<Res> {
        let url = self.connection.url(&format!("/jobs/{id}"));
        JobHandle::new(self.connection.clone(), id, url, false)
    }
}
