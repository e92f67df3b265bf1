//! `GET /openapi.json`: the OpenAPI 3.1 document. The job routes are in the file `openapi.json`; problem responses come from
//! the table in `codes`, and declared endpoints are added. Names of the library's schemas start with `Async`, so that an application
//! can have a `Job` of its own.

mod endpoints;

use std::sync::{LazyLock, atomic::Ordering};

use axum::{http::StatusCode, response::Response};
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    codes::{self, ProblemKind},
    health,
    problem::{Problem, json as response, type_uri},
    route::{Audience, Route},
};
use crate::{Options, error::Builtin};

const ROUTES: &str = include_str!("openapi.json");

/// Problem responses by their name in the document, with the kinds of each. The first kind is the example.
const PROBLEMS: [(&str, &[ProblemKind]); 33] = {
    use codes::*;
    [
        (
            "BadRequest",
            &[
                INVALID_JSON,
                INVALID_BODY,
                INVALID_PATH,
                INVALID_IDEMPOTENCY_KEY,
                INVALID_REQUEST_ID,
                INVALID_DELAY,
                INVALID_PRIORITY,
            ],
        ),
        ("BadBody", &[INVALID_JSON, INVALID_BODY, INVALID_QUERY]),
        ("BadQuery", &[INVALID_QUERY]),
        ("Unauthorized", &[UNAUTHORIZED]),
        ("Forbidden", &[FORBIDDEN, CROSS_SITE_REQUEST]),
        ("RequestForbidden", &[REQUEST_NOT_EXPOSED, FORBIDDEN]),
        ("NotFound", &[JOB_NOT_FOUND]),
        ("RequestNotFound", &[JOB_NOT_FOUND, REQUEST_NOT_KEPT]),
        ("BulkNotFound", &[BULK_NOT_FOUND]),
        ("BulkNotStarted", &[BULK_NOT_STARTED]),
        ("PreviewExpired", &[PREVIEW_EXPIRED]),
        ("RouteNotFound", &[ROUTE_NOT_FOUND]),
        ("SilenceNotFound", &[SILENCE_NOT_FOUND]),
        ("TypeNotFound", &[TYPE_NOT_FOUND]),
        ("MethodNotAllowed", &[METHOD_NOT_ALLOWED]),
        ("NotAcceptable", &[NOT_ACCEPTABLE]),
        ("BodyTimeout", &[BODY_TIMEOUT]),
        ("Ended", &[JOB_ENDED]),
        ("NotEnded", &[JOB_NOT_ENDED]),
        ("NotRetryable", &[JOB_NOT_RETRYABLE]),
        ("TooManyBulks", &[TOO_MANY_BULKS]),
        ("TooManySilences", &[TOO_MANY_SILENCES]),
        ("Expired", &[JOB_EXPIRED]),
        ("TooLarge", &[BODY_TOO_LARGE]),
        ("UnsupportedMediaType", &[UNSUPPORTED_MEDIA_TYPE]),
        ("Unprocessable", &[INVALID_REQUEST, IDEMPOTENCY_CONFLICT]),
        ("InvalidBulk", &[INVALID_BULK]),
        ("InvalidSilence", &[INVALID_SILENCE]),
        ("InvalidPause", &[INVALID_PAUSE]),
        ("InvalidLimit", &[INVALID_LIMIT]),
        ("Internal", &[INTERNAL_ERROR, JOB_UNREADABLE]),
        ("Unavailable", &[STORE_UNAVAILABLE, SHUTTING_DOWN, TOO_MANY_STREAMS]),
        ("SubmitUnavailable", &[STORE_UNAVAILABLE, QUEUE_FULL, SHUTTING_DOWN]),
    ]
};

/// Problem responses of a submission.
const SUBMIT_PROBLEMS: [&str; 8] = [
    "BadRequest",
    "BodyTimeout",
    "Expired",
    "TooLarge",
    "UnsupportedMediaType",
    "Unprocessable",
    "Internal",
    "SubmitUnavailable",
];

/// The part of the document that is the same for all applications.
static LIBRARY: LazyLock<Option<Value>> = LazyLock::new(|| library().ok());

/// Whether an operation of the library has this id.
pub(crate) fn is_own_operation(id: &str) -> bool {
    let mut document = LIBRARY.clone().unwrap_or_default();
    health::describe(&mut document);
    let paths = document["paths"].as_object().into_iter().flat_map(Map::values);
    paths.filter_map(Value::as_object).flat_map(Map::values).any(|operation| operation["operationId"] == id)
}

pub(super) fn document(call: &Call) -> Result<Response, Problem> {
    let config = &call.config;
    let mut document = LIBRARY.clone().ok_or(codes::INTERNAL_ERROR)?;
    document["servers"] = json!([{ "url": if call.base.is_empty() { "/" } else { &call.base } }]);
    move_jobs(&mut document, &config.jobs_path);
    if config.has_submit_routes.load(Ordering::Relaxed) {
        let own = config.endpoints.iter().filter_map(|declared| declared.doc.operation_id.as_deref());
        let mut ids = own.map(str::to_owned).collect();
        config.endpoints.iter().for_each(|declared| endpoints::add(&mut document, declared, &mut ids));
    }
    if config.has_monitoring_routes.load(Ordering::Relaxed) {
        health::describe(&mut document);
    }
    if let Some(paths) = document["paths"].as_object_mut() {
        let has_monitoring_routes = config.has_monitoring_routes.load(Ordering::Relaxed);
        let left_out = |route: &Route| !has_monitoring_routes || !route.exists(&call.endpoints);
        Route::MONITORING.iter().filter(|route| left_out(route)).for_each(|route| drop(paths.remove(route.path())));
    }
    if config.access.takes_token() {
        document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
        for route in Route::JOBS.into_iter().chain(Route::MONITORING) {
            let security = match route.audience(call.endpoints.options()) {
                Audience::Callers => continue,
                // Owners use the route without the token.
                Audience::Owners if config.owner.is_some() => json!([{ "token": [] }, {}]),
                Audience::Owners | Audience::Operators => json!([{ "token": [] }]),
            };
            if let Some(operations) = document["paths"].get_mut(&*route.path_below(&config.jobs_path)) {
                operations[route.method().as_str().to_ascii_lowercase()]["security"] = security;
            }
        }
    }
    Ok(response("application/json", &document))
}

fn library() -> serde_json::Result<Value> {
    let mut document: Value = serde_json::from_str(ROUTES)?;
    document["info"] = json!({
        "title": "Asynchronous endpoints",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "A submission is answered with a job at once. The job can be followed until it has ended.",
    });
    for (name, kinds) in PROBLEMS {
        document["components"]["responses"][name] = problem(name, kinds);
    }
    for route in Route::JOBS.into_iter().chain(Route::MONITORING) {
        let pointer = format!("/paths/{}/{}/responses", route.path().replace('/', "~1"), route.method());
        let responses = document.pointer_mut(&pointer.to_ascii_lowercase()).and_then(Value::as_object_mut);
        if let Some(responses) = responses.filter(|_| route.refuses_queries(&Options::default())) {
            let refusal = json!({ "$ref": "#/components/responses/BadQuery" });
            responses.entry("400").or_insert(refusal);
        }
    }
    let codes = Builtin::ALL.map(Builtin::code);
    document["components"]["schemas"]["AsyncJobError"]["properties"]["code"]["examples"] = json!(codes);
    Ok(document)
}

/// Moves the job routes to the application's own path.
fn move_jobs(document: &mut Value, jobs_path: &str) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (from, to) in Route::JOBS.map(|route| (route.path(), route.path_below(jobs_path))) {
        if let Some(operations) = paths.remove(from) {
            paths.insert(to.into_owned(), operations);
        }
    }
}

fn problem(name: &str, kinds: &[ProblemKind]) -> Value {
    let lines: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}", kind.code, kind.doc)).collect();
    let example = kinds.first().map(|kind| {
        json!({
            "type": type_uri(kind.code),
            "title": kind.title,
            "status": kind.status.as_u16(),
            "detail": kind.doc,
            "code": kind.code,
            "traceId": "0af7651916cd43dd8448eb211c80319c",
        })
    });
    let status = kinds.first().map(|kind| kind.status);
    let mut headers = Map::new();
    headers.extend((status == Some(StatusCode::UNAUTHORIZED)).then(|| header("WWW-Authenticate")));
    headers.extend((status == Some(StatusCode::SERVICE_UNAVAILABLE)).then(|| header("Retry-After")));
    headers.extend(SUBMIT_PROBLEMS.contains(&name).then(|| header("Vary")));
    let schema = json!({ "$ref": "#/components/schemas/AsyncProblem" });
    json!({
        "description": lines.join("\n\n"),
        "headers": headers,
        "content": { "application/problem+json": { "schema": schema, "example": example } },
    })
}

/// A header and the reference to its description.
fn header(name: &str) -> (String, Value) {
    let component = match name {
        "X-Async-Job-Id" => "JobId".to_owned(),
        "Idempotent-Replayed" => "Replayed".to_owned(),
        "WWW-Authenticate" => "Challenge".to_owned(),
        name => name.replace('-', ""),
    };
    (name.to_owned(), json!({ "$ref": format!("#/components/headers/{component}") }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn document_lists_job_and_operator_routes() {
        let document = library().expect("JSON");
        let methods = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        let documented: BTreeSet<_> = document["paths"].as_object().expect("paths").iter().flat_map(methods).collect();
        let undocumented = [Route::Metrics, Route::JobMetrics, Route::Health, Route::Ready, Route::Live];
        let operators = Route::MONITORING.into_iter().filter(|route| !undocumented.contains(route));
        let expected = Route::JOBS.into_iter().chain(operators);
        assert_eq!(documented, expected.map(|route| (route.method().to_string(), route.path().to_owned())).collect());
    }

    #[test]
    fn document_has_every_problem_code() {
        let document = library().expect("JSON");
        let responses = document["components"]["responses"].to_string();
        for kind in codes::ALL {
            assert!(responses.contains(&format!("`{}`", kind.code)), "{} is missing in PROBLEMS", kind.code);
        }
    }

    #[test]
    fn problem_responses_have_one_status() {
        for (name, kinds) in PROBLEMS {
            assert!(kinds.iter().all(|kind| kind.status == kinds[0].status), "{name}");
        }
    }

    #[test]
    fn every_reference_resolves() {
        let document = library().expect("JSON");
        fn check(document: &Value, value: &Value) {
            if let Some(target) = value["$ref"].as_str() {
                assert!(document.pointer(&target[1..]).is_some(), "{target}");
            }
            match value {
                Value::Object(members) => members.values().for_each(|member| check(document, member)),
                Value::Array(items) => items.iter().for_each(|item| check(document, item)),
                _ => {}
            }
        }
        check(&document, &document);
    }
}
