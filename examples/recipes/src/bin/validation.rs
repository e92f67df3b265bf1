//! Authentication, validation, owners and custom responses of submissions.
//!
//! - A layer on the endpoint authenticates the caller and puts a `User` into the request's extensions.
//! - The validator gets the whole submission. It rejects with a `Problem`, sets delay and priority, and passes the user to
//!   the handler in a header.
//! - The owner function maps a request to its user. The jobs of other users answer 404. The job routes have the same layer.
//! - `Responses` adds a header to accepted submissions and changes the body of rejections.
//! - All routes are nested under `/v1`, which `Location` and `links` include.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin validation
//! listening on http://127.0.0.1:8080
//! ```
//!
//! ```console
//! $ V=localhost:8080/v1 JSON='Content-Type: application/json'
//! $ ADA='Authorization: Bearer ada-secret' BOB='Authorization: Bearer bob-secret'
//! $ curl -si $V/print -H "$JSON" -H "$ADA" -H 'X-User-Id: mallory' -d '{"pages": 3}'
//! HTTP/1.1 202 Accepted
//! content-type: application/json
//! etag: "1"
//! retry-after: 1
//! vary: Prefer
//! location: /v1/jobs/01a20922-e365-7431-8e44-88e47753fbd1
//! operation-location: /v1/jobs/01a20922-e365-7431-8e44-88e47753fbd1
//! x-async-job-id: 01a20922-e365-7431-8e44-88e47753fbd1
//! x-processing-time: 2026-11-23T16:00:11.109439Z
//! …
//! $ curl -s $V/jobs/01a20922-e365-7431-8e44-88e47753fbd1 -H "$ADA" | jq -c '{status, priority, result}'
//! {"status":"Completed","priority":9,"result":{"pages":3,"user":"ada"}}
//! $ curl -s $V/jobs/01a20922-e365-7431-8e44-88e47753fbd1 -H "$BOB" | jq -c '{status, code}'
//! {"status":404,"code":"JOB_NOT_FOUND"}
//! $ curl -s $V/jobs/01a20922-e365-7431-8e44-88e47753fbd1 | jq -c '{status, code}'
//! {"status":401,"code":"UNAUTHORIZED"}
//! $ curl -s $V/print -H "$JSON" -H "$BOB" -d '{"pages": 100}' | jq -c '{status, priority, scheduledAt}'
//! {"status":"Scheduled","priority":4,"scheduledAt":"2026-11-23T17:00:11.177269Z"}
//! $ curl -s $V/print -H "$JSON" -H "$BOB" -d '{"pages": 501}'
//! {"error":"WRONG_PAGES","help":"https://example.com/help#WRONG_PAGES","message":"501 pages were ordered."}
//! $ curl -s $V/print -H "$JSON" -H "$BOB" -d '{"pages": "many"}'
//! {"error":"INVALID_REQUEST","help":"https://example.com/help#INVALID_REQUEST","message":"pages: invalid type: string \"many\", expected u32"}
//! ```

use std::time::{Duration, SystemTime};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobDocument, JobError, JobType, MemoryStore, Priority, Problem, Responses,
    Submission, Timestamp, async_trait,
};
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};

#[derive(serde::Deserialize)]
struct Order {
    pages: u32,
}

#[derive(serde::Serialize)]
struct Printed {
    pages: u32,
    user: Option<String>,
}

const PRINT: JobType<Order, Printed> = JobType::new("Print");

/// The caller. [`authenticate`] puts it into the request's extensions.
#[derive(Copy, Clone)]
struct User {
    id: &'static str,
    has_priority: bool,
}

/// Stands for a session or an identity provider.
fn user_of(token: &str) -> Option<User> {
    match token {
        "ada-secret" => Some(User { id: "ada", has_priority: true }),
        "bob-secret" => Some(User { id: "bob", has_priority: false }),
        _ => None,
    }
}

/// A layer that rejects requests without a valid token.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let Some(user) = bearer(request.headers()).and_then(user_of) else { return unauthorized() };
    request.extensions_mut().insert(user);
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn unauthorized() -> Response {
    Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "A token is needed")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        .into_response()
}

/// The validator. Takes the submission by value, and returns it with changes or rejects it.
async fn check(order: Submission<Order>) -> Result<Submission<Order>, Problem> {
    // There is no user if the layer is missing.
    let user = order.extensions().get::<User>().copied();
    let user = user.ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "NO_USER", "The request has no user"))?;
    let order = match order.request().pages {
        1..=99 => order,
        // Large prints wait.
        100..=500 => order.delay(Duration::from_secs(3600)),
        pages => return Err(wrong_pages(pages)),
    };
    let order = if user.has_priority { order.priority(Priority::HIGHEST) } else { order };
    // Replaces a header of that name from the client.
    Ok(order.with_header("x-user-id", user.id))
}

fn wrong_pages(pages: u32) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "WRONG_PAGES", "A print has 1 to 500 pages")
        .with_detail(format!("{pages} pages were ordered."))
}

async fn print(ctx: JobContext<Order>) -> Result<Printed, JobError> {
    Ok(Printed { pages: ctx.request().pages, user: ctx.header("x-user-id").map(str::to_owned) })
}

/// The application's responses.
struct Answers;

#[async_trait]
impl Responses for Answers {
    /// `answer` has `Location`, `X-Async-Job-Id` and the other headers already.
    async fn submitted(&self, _request: &Parts, _job: &JobDocument<'_>, mut answer: Response) -> Response {
        let now = Timestamp::from(SystemTime::now()).to_string();
        if let Ok(now) = HeaderValue::try_from(now) {
            answer.headers_mut().insert("x-processing-time", now);
        }
        answer
    }

    /// Changes the body of rejections, including those of the validator.
    async fn submission_error(&self, _request: &Parts, problem: &Problem, answer: Response) -> Response {
        let help = format!("https://example.com/help#{}", problem.code());
        let body = serde_json::json!({ "error": problem.code(), "message": problem.detail(), "help": help });
        // Keeps the status and headers such as `Retry-After`.
        let (mut head, _) = answer.into_parts();
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Response::from_parts(head, Body::from(body.to_string()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .endpoint(Endpoint::post("/print", PRINT).validate(check).layer(from_fn(authenticate)))
        .owner(|request| request.extensions.get::<User>().map(|user| user.id))
        .responses(Answers)
        .handler(PRINT, print)
        .build()?;
    let jobs = endpoints.job_routes().layer(from_fn(authenticate));
    let app = Router::new().nest("/v1", endpoints.submit_routes().merge(jobs));
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
