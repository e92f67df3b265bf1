//! Jobs that a transaction of the application creates. Knows no connection of the store: the application has its own.

use std::time::Duration;

use async_endpoints_core::{JobId, job::TraceContext, store::NewJob};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Error, GenericClient, types::Type};

use crate::value::clean;

/// The version of the head and of the answer.
const VERSION: u32 = 1;

/// The longest delay and retention: 1000 years.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// A job that a transaction of the application creates: the text and the two parameters of a statement, for any driver. The
/// job exists if and only if the transaction commits.
///
/// Execute the statement late in the transaction: until its end, other submissions with the same key or id wait.
#[derive(Clone, Debug)]
#[must_use = "the job is created when its statement is executed"]
pub struct PreparedJob {
    id: JobId,
    sql: String,
    head: Head,
    text: String,
    payload: Bytes,
}

/// What the function reads besides the payload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    v: u32,
    id: JobId,
    chosen: bool,
    name: String,
    priority: u8,
    max_retries: u32,
    max_losses: u32,
    retention_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_label: Option<String>,
    #[serde(flatten)]
    trace: Option<TraceContext>,
    wake: bool,
}

impl PreparedJob {
    /// Prepares a job for the schema `ae`.
    pub fn new(job: NewJob) -> Self {
        let head = Head {
            v: VERSION,
            id: job.id,
            chosen: job.id_chosen,
            name: job.name.to_string(),
            priority: job.terms.priority.get(),
            max_retries: job.terms.max_retries,
            max_losses: job.terms.max_losses,
            retention_seconds: seconds(job.terms.retention),
            delay_seconds: (!job.delay.is_zero()).then(|| seconds(job.delay)),
            queue_limit: job.queue_limit.map(|limit| limit.min(i64::MAX as u64)),
            key: job.key.map(|key| key.as_str().to_owned()),
            fingerprint: job.fingerprint.to_string(),
            owner: job.owner.map(|owner| owner.to_string()),
            owner_label: job.owner_label.as_deref().map(clean),
            trace: job.trace.map(|trace| TraceContext { tracestate: trace.tracestate.as_deref().map(clean), ..trace }),
            wake: true,
        };
        Self { id: job.id, sql: sql("ae"), text: text(&head), head, payload: job.payload }
    }

    /// Uses another schema than `ae`: that of [`Options::schema`](crate::Options::schema).
    pub fn schema(mut self, schema: &str) -> Self {
        self.sql = sql(schema);
        self
    }

    /// Leaves out the notification of workers, which then find the job within a second. A transaction that notifies holds a
    /// lock of the whole server while it commits, so that beyond some hundred of them in a second they wait for each other.
    pub fn without_wake(mut self) -> Self {
        self.head.wake = false;
        self.text = text(&self.head);
        self
    }

    /// The job's id. If the answer is [`Enqueued::Existing`], the id of the job is another one.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// The statement, with two parameters: [`head`](Self::head) as text, and [`payload`](Self::payload) as bytea. It returns
    /// one row with one column, `answer`, for [`Enqueued::parse`].
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The first parameter, of the type `text`.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.text
    }

    /// The second parameter, of the type `bytea`.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Executes the statement with a transaction or a client of tokio-postgres.
    ///
    /// ```no_run
    /// # use async_endpoints_postgres::{PreparedJob, Enqueued};
    /// # async fn order(client: &mut tokio_postgres::Client, job: PreparedJob) -> Result<(), Box<dyn std::error::Error>> {
    /// let transaction = client.transaction().await?;
    /// transaction.execute("INSERT INTO orders (item) VALUES ($1)", &[&"tea"]).await?;
    /// let answer = job.enqueue(&transaction).await?;
    /// transaction.commit().await?;
    /// assert_eq!(answer, Enqueued::Accepted(job.id()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The transaction is over after an error, as after every failed statement, so it cannot commit without its job:
    ///
    /// - 23505: the key or the id belongs to another request.
    /// - 53400: the queue limit of the job type is reached.
    /// - 40001: another transaction used the same key or id, and this one cannot see it in its isolation level. Repeat the
    ///   transaction.
    pub async fn enqueue(&self, client: &impl GenericClient) -> Result<Enqueued, Error> {
        let row =
            client.query_typed_one(&self.sql, &[(&self.text, Type::TEXT), (&self.payload(), Type::BYTEA)]).await?;
        Ok(Enqueued::parse(row.try_get(0)?))
    }
}

fn sql(schema: &str) -> String {
    // A quoted name is only a name.
    let schema = schema.replace('"', "\"\"");
    format!("SELECT \"{schema}\".enqueue_v1($1, $2) AS answer")
}

fn text(head: &Head) -> String {
    serde_json::to_string(head).unwrap_or_else(|_| unreachable!("numbers and strings can be written as JSON"))
}

/// Seconds, at most what the store can keep.
fn seconds(duration: Duration) -> f64 {
    duration.min(LONGEST).as_secs_f64()
}

/// The answer of a [`PreparedJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enqueued {
    /// The job is created if the transaction commits.
    Accepted(JobId),
    /// The same request was submitted before, as this job.
    Existing(JobId),
    /// An answer of a later version, or no answer of this function.
    Unknown,
}

impl Enqueued {
    /// Reads the text that the statement returns.
    #[must_use]
    pub fn parse(answer: &str) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            outcome: String,
            id: JobId,
        }
        let Ok(Answer { outcome, id }) = serde_json::from_str(answer) else { return Self::Unknown };
        match outcome.as_str() {
            "accepted" => Self::Accepted(id),
            "existing" => Self::Existing(id),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{
        JobName,
        job::{Digest, JobTerms},
    };

    use super::*;

    fn prepared() -> PreparedJob {
        let name = JobName::new("Print").expect("a name");
        let id = JobId::random();
        PreparedJob::new(NewJob::new(id, name, "{}".into(), JobTerms::default(), Digest([7; 32])))
    }

    #[test]
    fn head_has_the_values_of_the_job() {
        let job = prepared();
        let head: serde_json::Value = serde_json::from_str(job.head()).expect("JSON");
        let expected = serde_json::json!({
            "v": 1, "id": job.id(), "chosen": false, "name": "Print", "priority": head["priority"], "maxRetries": 3, "maxLosses": 5,
            "retentionSeconds": 86400.0, "fingerprint": "07".repeat(32), "wake": true,
        });
        assert_eq!(head, expected);
        assert_eq!(job.sql(), "SELECT \"ae\".enqueue_v1($1, $2) AS answer");
        assert_eq!(job.clone().schema("a\"b").sql(), "SELECT \"a\"\"b\".enqueue_v1($1, $2) AS answer");
        assert!(job.without_wake().head().contains("\"wake\":false"));
    }

    #[test]
    fn answers_are_read() {
        let id = JobId::random();
        let answer = |outcome: &str| Enqueued::parse(&format!(r#"{{"v":1,"outcome":"{outcome}","id":"{id}"}}"#));
        assert_eq!((answer("accepted"), answer("existing")), (Enqueued::Accepted(id), Enqueued::Existing(id)));
        assert_eq!(answer("later"), Enqueued::Unknown);
        assert_eq!(Enqueued::parse("no JSON"), Enqueued::Unknown);
    }
}
