//! Records the actions of operators, and answers `GET /ops/audit`.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    call::Call,
    problem::{Problem, json},
    route::Route,
};
use crate::audit::{Action, AuditEntry, OK, Outcome};

#[derive(Serialize)]
struct Audit {
    entries: Vec<AuditEntry>,
}

pub(super) async fn audit(call: &Call) -> Result<Response, Problem> {
    let mut response = json("application/json", &Audit { entries: call.endpoints.audit().await? });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The action that an operator wants with a request; none for a read and for other callers.
pub(super) fn action(route: Route, call: &Call, body: &Bytes) -> Option<Action> {
    let name = route.action().filter(|_| call.is_operator())?;
    let mut values = serde_json::from_slice(body).unwrap_or_default();
    let target = target(route, call, &mut values);
    Some(Action { who: call.granted.who.to_string(), name, target, values })
}

/// The id or name in the path or, where the path has none, in the body, from which it is removed. For a test of the senders,
/// their names.
fn target(route: Route, call: &Call, values: &mut Map<String, Value>) -> Option<String> {
    if route == Route::TestAlerts {
        return call.endpoints.alert_senders();
    }
    // The path below which the routes are mounted may have parameters of its own.
    let param = ["id", "name"].into_iter().find(|name| route.path().contains(&format!("{{{name}}}")));
    match (param, route.target_field()) {
        (Some(param), _) => call.path_param(param).map(str::to_owned),
        (None, Some(field)) => values.remove(field)?.as_str().map(str::to_owned),
        (None, None) => None,
    }
}

/// Records a refused change. Refusals of callers that are no operators are not recorded.
pub(super) fn record_refusal(route: Route, call: &Call, refusal: &Problem) {
    if let Some(action) = action(route, call, &Bytes::new()) {
        call.endpoints.trail().record_refusal(action, refusal.code());
    }
}

/// The id of what an action made: an extension of the response.
#[derive(Clone)]
pub(super) struct Made(pub(super) String);

/// The outcome of an action, as the audit trail names it.
pub(super) fn outcome(answered: &Result<Response, Problem>) -> Outcome {
    match answered {
        Ok(response) => {
            let made = response.extensions().get::<Made>().map(|Made(id)| id.clone());
            Outcome { target: made, ..OK.into() }
        }
        Err(problem) => problem.code().into(),
    }
}
