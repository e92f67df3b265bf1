//! Errors of the application: `DomainError` in handlers, validators, metrics and the OpenAPI document.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Mutex, time::Duration};

use async_endpoints::{
    AttemptInfo, Bytes, DomainError, Endpoint, JobContext, JobError, JobStatus, JobType, Middleware, Next, Problem,
    Submission, async_trait, axum::http::StatusCode,
};
use serde_json::{Value, json};
use support::Service;

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{0} is sold out")]
    SoldOut(String),
    #[error("the bank is closed for {0:?}")]
    BankClosed(Duration),
    #[error("cannot read the price list")]
    NoPrices(#[from] std::io::Error),
}

impl DomainError for OrderError {
    const CODES: &'static [&'static str] = &["SOLD_OUT", "BANK_CLOSED", "NO_PRICES"];

    fn job_error(&self) -> JobError {
        match self {
            Self::SoldOut(_) => JobError::permanent("SOLD_OUT", self.to_string()).status(409).with_title("Sold out"),
            Self::BankClosed(pause) => JobError::retry_after(*pause, "BANK_CLOSED", "The bank is closed.")
                .status(503)
                .with_title("Bank closed"),
            Self::NoPrices(_) => JobError::permanent("NO_PRICES", "There are no prices."),
        }
    }
}

const ORDER: JobType<String, ()> = JobType::new("Order").errors::<OrderError>();
const BLOCKING: JobType<String, ()> = JobType::new("Blocking").errors::<OrderError>();
const PLAIN: JobType<String, ()> = JobType::new("Plain");

/// Fails with the error that the request names.
fn fail(with: &str) -> Result<(), JobError> {
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
    match with {
        "sold out" => Err(OrderError::SoldOut("Tea".to_owned()))?,
        "closed" => Err(OrderError::BankClosed(Duration::from_millis(1)))?,
        "no prices" => Err(OrderError::NoPrices(missing()))?,
        "boxed" => Err(Box::<dyn std::error::Error + Send + Sync>::from(OrderError::SoldOut("Tea".to_owned())))?,
        "own code" => {
            Err(JobError::permanent("NO_TEA", "There is no tea.").with_source(OrderError::SoldOut("Tea".to_owned())))
        }
        "canceled" => Err(JobError::canceled()),
        _ => Err(missing())?,
    }
}

async fn order(ctx: JobContext<String>) -> Result<(), JobError> {
    fail(ctx.request())
}

/// Refuses like the handler fails.
async fn check(order: Submission<String>) -> Result<Submission<String>, Problem> {
    match order.request().as_str() {
        "refuse sold out" => Err(OrderError::SoldOut("Tea".to_owned()))?,
        "refuse closed" => Err(OrderError::BankClosed(Duration::from_millis(1500)))?,
        "refuse fields" => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_ORDER", "The order is invalid")
            .with_member("article", "Tea")
            .with_member("status", 200)
            .with_error("/a b/ä", "expected tea")
            .with_error("", "expected an order")),
        _ => Ok(order),
    }
}

async fn service() -> Service {
    Service::start(|builder| {
        builder
            .endpoint(Endpoint::post("/orders", ORDER).validate(check))
            .endpoint(Endpoint::post("/plain", PLAIN))
            .handler(ORDER, order)
            .handler(PLAIN, order)
            .blocking_handler(BLOCKING, |ctx: JobContext<String>| fail(ctx.request()))
    })
    .await
}

async fn error_of(service: &Service, path: &str, request: &str) -> Value {
    let id = service.submit(path, json!(request)).await;
    service.ended(id).await["error"].clone()
}

#[tokio::test]
async fn question_mark_gives_the_error_its_own_code() {
    let service = service().await;
    let sold_out = error_of(&service, "/orders", "sold out").await;
    let expected = json!({
        "type": "urn:async-endpoints:problem:SOLD_OUT", "title": "Sold out", "status": 409, "detail": "Tea is sold out",
        "code": "SOLD_OUT", "attempt": 1, "retryable": false, "traceId": sold_out["traceId"], "sources": ["Tea is sold out"],
    });
    assert_eq!(sold_out, expected);
    let closed = error_of(&service, "/orders", "closed").await;
    assert_eq!(
        (&closed["code"], &closed["status"], &closed["attempt"]),
        (&json!("BANK_CLOSED"), &json!(503), &json!(4))
    );
    let no_prices = error_of(&service, "/orders", "no prices").await;
    assert_eq!(no_prices["sources"], json!(["cannot read the price list", "no such file"]));
    assert_eq!((&no_prices["title"], &no_prices["status"]), (&json!("The job failed"), &json!(500)));
    assert_eq!(error_of(&service, "/orders", "boxed").await["code"], "SOLD_OUT");
    let id = service.submit("/orders", json!("sold out")).await;
    service.ended(id).await;
    let result = service.client.get(service.url(&format!("/jobs/{id}/result"))).send().await.unwrap();
    assert_eq!(result.status(), StatusCode::CONFLICT);
    service.stop().await;
}

#[tokio::test]
async fn other_errors_keep_their_codes() {
    let service = service().await;
    let code = async |path: &str, request: &str| error_of(&service, path, request).await["code"].clone();
    assert_eq!(code("/orders", "own code").await, "NO_TEA");
    assert_eq!(code("/orders", "other").await, "HANDLER_ERROR");
    assert_eq!(code("/orders", "canceled").await, "JOB_CANCELED");
    assert_eq!(code("/plain", "sold out").await, "HANDLER_ERROR", "the type does not declare the error");
    service.stop().await;
}

#[tokio::test]
async fn blocking_handler_maps_errors() {
    let service = service().await;
    let id = service.endpoints.submit(BLOCKING, "sold out".to_owned()).await.unwrap().job.id;
    assert_eq!(service.ended(id).await["error"]["code"], "SOLD_OUT");
    service.stop().await;
}

/// Keeps the codes that handlers return.
#[derive(Default)]
struct Codes(Mutex<Vec<String>>);

#[async_trait]
impl Middleware for &'static Codes {
    async fn run(&self, _: &AttemptInfo, next: Next<'_>) -> Result<Bytes, JobError> {
        let result = next.run().await;
        self.0.lock().unwrap().extend(result.as_ref().err().map(|error| error.code().to_owned()));
        result
    }
}

#[tokio::test]
async fn middleware_sees_the_mapped_error() {
    static CODES: Codes = Codes(Mutex::new(Vec::new()));
    let endpoints = support::builder(&support::store()).middleware(&CODES).handler(ORDER, order).build().unwrap();
    let id = endpoints.submit(ORDER, "sold out".to_owned()).await.unwrap().job.id;
    endpoints.run_until_idle().await.unwrap();
    assert_eq!(support::found(&endpoints, id).await.status, JobStatus::Failed);
    assert_eq!(*CODES.0.lock().unwrap(), ["SOLD_OUT"]);
}

#[tokio::test]
async fn handler_test_compares_the_source() {
    let error = order(JobContext::for_test("sold out".to_owned())).await.unwrap_err();
    let source = error.source().unwrap().downcast_ref();
    assert!(matches!(source, Some(OrderError::SoldOut(article)) if article == "Tea"), "{error}");
}

#[tokio::test]
async fn validator_refuses_with_the_error() {
    let service = service().await;
    let refused = async |request: &str| {
        let response = service.post("/orders", json!(request)).await;
        let retry_after = response.headers().get("retry-after").map(|after| after.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry_after, response.json::<Value>().await.unwrap())
    };
    let (status, retry_after, problem) = refused("refuse sold out").await;
    assert_eq!((status, retry_after), (409, None));
    let expected = json!({
        "type": "urn:async-endpoints:problem:SOLD_OUT", "title": "Sold out", "status": 409, "detail": "Tea is sold out",
        "code": "SOLD_OUT", "traceId": problem["traceId"],
    });
    assert_eq!(problem, expected);
    let (status, retry_after, problem) = refused("refuse closed").await;
    assert_eq!((status, retry_after.as_deref()), (503, Some("2")));
    assert_eq!((&problem["code"], &problem["detail"]), (&json!("BANK_CLOSED"), &json!("The bank is closed.")));
    service.stop().await;
}

#[tokio::test]
async fn problem_names_invalid_fields() {
    let service = service().await;
    let refused = async |body: Value| service.post("/orders", body).await.json::<Value>().await.unwrap();
    let problem = refused(json!("refuse fields")).await;
    let errors = json!([
        { "pointer": "#/a%20b/%C3%A4", "detail": "expected tea" },
        { "pointer": "#", "detail": "expected an order" },
    ]);
    assert_eq!((&problem["errors"], &problem["article"], &problem["status"]), (&errors, &json!("Tea"), &json!(422)));
    let problem = refused(json!({"article": "Tea"})).await;
    let reason = "invalid type: map, expected a string";
    assert_eq!(problem["errors"], json!([{ "pointer": "#", "detail": reason }]));
    assert_eq!((&problem["code"], &problem["detail"]), (&json!("INVALID_REQUEST"), &json!(reason)));
    service.stop().await;
}

#[tokio::test]
async fn declared_codes_are_in_the_document() {
    let service = service().await;
    let document =
        service.client.get(service.url("/openapi.json")).send().await.unwrap().json::<Value>().await.unwrap();
    let job = |path: &str| {
        let schema =
            &document["paths"][path]["post"]["responses"]["202"]["content"]["application/json"]["schema"]["$ref"];
        document.pointer(&schema.as_str().unwrap()[1..]).unwrap()
    };
    let error = &job("/orders")["properties"]["error"]["oneOf"][0]["$ref"];
    let code = document.pointer(&format!("{}/properties/code", &error.as_str().unwrap()[1..])).unwrap();
    assert_eq!(code["examples"].as_array().unwrap()[..4], ["SOLD_OUT", "BANK_CLOSED", "NO_PRICES", "HANDLER_ERROR"]);
    assert!(code["description"].as_str().unwrap().contains("`SOLD_OUT`, `BANK_CLOSED`, `NO_PRICES`"), "{code}");
    assert_eq!(job("/plain")["properties"]["error"]["oneOf"][0]["$ref"], "#/components/schemas/AsyncJobError");
    service.stop().await;
}
