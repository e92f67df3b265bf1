//! Errors of the domain, and what callers choose for their jobs.
//!
//! - `ExportError` says once what callers see of each error: code, HTTP status, title, detail, and whether the job is retried.
//!   `?` does the rest in the handler and in the validator.
//! - The validator sets the idempotency key, so that a customer gets one export a day.
//! - Callers may choose a delay and a priority, within limits.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin errors
//! listening on http://127.0.0.1:8080
//! ```
//!
//! ```console
//! $ E=localhost:8080/exports
//! $ curl -s $E --json '{"customer": 7, "day": "2026-12-01"}' -H 'Prefer: wait=5' | jq -c '{status, result}'
//! {"status":"Completed","result":{"rows":120}}
//! $ curl -si $E --json '{"customer": 7, "day": "2026-12-01"}' | grep -iE '^HTTP|replayed'
//! HTTP/1.1 202 Accepted
//! idempotent-replayed: true
//! $ curl -s $E --json '{"customer": 9, "day": "2026-12-01"}' -H 'Prefer: wait=5' | jq -c '.error | {code, status, detail}'
//! {"code":"ARCHIVE_UNAVAILABLE","status":503,"detail":"The archive does not answer."}
//! $ curl -s $E --json '{"customer": 1, "day": "2026-12-01"}' | jq -c '{code, status, title, detail}'
//! {"code":"UNKNOWN_CUSTOMER","status":404,"title":"No such customer","detail":"there is no customer 1"}
//! $ curl -s $E --json '{"customer": 8, "day": "today"}' | jq -c '{code, customer, errors}'
//! {"code":"INVALID_EXPORT","customer":8,"errors":[{"detail":"expected a date such as 2026-12-01","pointer":"#/day"}]}
//! $ curl -s $E --json '{"customer": 8, "day": "2026-12-01"}' -H 'X-Async-Delay: 3600' | jq -c '{status, reason: .waiting.reason}'
//! {"status":"Scheduled","reason":"delayed"}
//! $ curl -s $E --json '{"customer": 8, "day": "2026-12-02"}' -H 'X-Async-Delay: 90000' | jq -c '{status, code, detail}'
//! {"status":400,"code":"INVALID_DELAY","detail":"X-Async-Delay \"90000\": expected a number of seconds from 0 to 86400."}
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_endpoints::{
    AsyncEndpoints, DomainError, Endpoint, JobContext, JobError, JobHandler, JobType, MemoryStore, Priority, Problem,
    Submission, axum::http::StatusCode,
};
use axum::Router;

#[derive(serde::Deserialize)]
struct Order {
    customer: u64,
    day: String,
}

#[derive(serde::Serialize)]
struct Export {
    rows: u32,
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("there is no customer {0}")]
    UnknownCustomer(u64),
    #[error("the archive cannot be read")]
    Archive(#[from] std::io::Error),
}

impl DomainError for ExportError {
    const CODES: &'static [&'static str] = &["UNKNOWN_CUSTOMER", "ARCHIVE_UNAVAILABLE"];

    fn job_error(&self) -> JobError {
        match self {
            Self::UnknownCustomer(_) => {
                JobError::permanent("UNKNOWN_CUSTOMER", self.to_string()).status(404).with_title("No such customer")
            }
            // The message of the source stays with operators.
            Self::Archive(_) => {
                let pause = Duration::from_millis(100);
                JobError::retry_after(pause, "ARCHIVE_UNAVAILABLE", "The archive does not answer.").status(503)
            }
        }
    }
}

const EXPORT: JobType<Order, Export> = JobType::new("Export").max_retries(1).errors::<ExportError>();

/// The customers with the number of their rows. The handler and the validator share it.
#[derive(Clone)]
struct Customers(Arc<HashMap<u64, u32>>);

impl Customers {
    fn rows(&self, customer: u64) -> Result<u32, ExportError> {
        self.0.get(&customer).copied().ok_or(ExportError::UnknownCustomer(customer))
    }
}

/// Fails as a file on a share that is away does.
fn read_archive(customer: u64) -> Result<(), ExportError> {
    if customer == 9 { Err(std::io::Error::other("connection reset by 10.0.0.7"))? } else { Ok(()) }
}

impl JobHandler<Order, Export> for Customers {
    async fn run(&self, ctx: JobContext<Order>) -> Result<Export, JobError> {
        let customer = ctx.request().customer;
        let rows = self.rows(customer)?; // UNKNOWN_CUSTOMER
        read_archive(customer)?; // ARCHIVE_UNAVAILABLE
        ctx.check_canceled()?; // JOB_CANCELED
        Ok(Export { rows })
    }
}

/// One export for each customer and day. An unknown customer is refused before a job is stored.
fn check(order: Submission<Order>, customers: &Customers) -> Result<Submission<Order>, Problem> {
    let Order { customer, day } = order.request();
    customers.rows(*customer)?;
    if day.len() != "2026-12-01".len() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_EXPORT", "The export is invalid");
        return Err(problem
            .with_error("/day", "expected a date such as 2026-12-01")
            .with_member("customer", *customer));
    }
    let key = format!("{customer}/{day}");
    Ok(order.idempotency_key(key))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let customers = Customers(Arc::new(HashMap::from([(7, 120), (8, 3), (9, 14)])));
    let known = customers.clone();
    let endpoint = Endpoint::post("/exports", EXPORT)
        .validate(move |order| std::future::ready(check(order, &known)))
        .allow_delay(Duration::from_secs(24 * 60 * 60))
        .allow_priority(Priority::LOWEST..=Priority::new(6));
    let endpoints =
        AsyncEndpoints::builder(MemoryStore::new()).endpoint(endpoint).handler(EXPORT, customers).build()?;
    let app = Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
