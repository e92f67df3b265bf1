//! `GET /openapi.json`: what all routes are, as an OpenAPI 3.1 document. The routes of jobs are written down in
//! `openapi.json`; the declared endpoints are added from what the application says of them. Our schemas begin with `Async`,
//! so that an application may have a `Job` of its own.

use std::{
    collections::HashSet,
    sync::{LazyLock, atomic::Ordering},
};

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    problem::{Problem, json as answer},
};
use crate::{endpoint::Declared, submission::Check};

const ROUTES: &str = include_str!("openapi.json");

pub(super) fn document(call: &Call) -> Result<Response, Problem> {
    static READ: LazyLock<Option<Value>> = LazyLock::new(|| serde_json::from_str(ROUTES).ok());
    let face = call.endpoints.face();
    let mut document = READ.clone().ok_or_else(Problem::internal)?;
    document["info"] = json!({
        "title": "Asynchronous endpoints",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "A submission is answered with a job at once; the job is followed until it has ended.",
    });
    document["servers"] = json!([{ "url": if call.base.is_empty() { "/" } else { &call.base } }]);
    if face.accepts.load(Ordering::Relaxed) {
        let mut ids = HashSet::new();
        call.endpoints.endpoints().iter().for_each(|declared| add(&mut document, declared, &mut ids));
    }
    if face.access.takes_token() {
        document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
        for (path, method) in [("/jobs", "get"), ("/jobs/{id}/retry", "post")] {
            document["paths"][path][method]["security"] = json!([{ "token": [] }]);
        }
    }
    Ok(answer("application/json", &document))
}

fn add(document: &mut Value, declared: &Declared, ids: &mut HashSet<String>) {
    let (path, params) = path(&declared.path);
    let method = declared.method.as_str().to_ascii_lowercase();
    let mut operation = operation(declared, params);
    operation["operationId"] = unique(&format!("{method}{}", declared.name), ids).into();
    document["paths"][path][&method] = operation;
    let Some(schemas) = &declared.schemas else { return };
    if let Some(known) = document["components"]["schemas"].as_object_mut() {
        // Written out rather than put together with `allOf`, which generators of clients do not all understand.
        let mut job = known.get("AsyncJob").cloned().unwrap_or_default();
        job["properties"]["result"] = json!({ "oneOf": [schemas.result, { "type": "null" }] });
        known.insert(own_job(declared), job);
        for (name, schema) in &schemas.named {
            known.entry(name).or_insert_with(|| schema.clone());
        }
    }
}

/// Several endpoints may accept the same type; generated clients want a name for each.
fn unique(id: &str, ids: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{id}{n}"));
    let free = std::iter::once(id.to_owned()).chain(numbered).find(|id| !ids.contains(id)).unwrap_or_default();
    ids.insert(free.clone());
    free
}

fn operation(declared: &Declared, mut params: Vec<Value>) -> Value {
    let name = declared.name;
    let shared = ["Prefer", "IdempotencyKey", "RequestId"];
    params.extend(shared.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })));
    let mut operation = json!({
        "tags": ["endpoints"],
        "summary": declared.summary.as_deref().map_or_else(|| format!("Submits a {name} job"), str::to_owned),
        "parameters": params,
        "responses": responses(declared),
    });
    if !declared.bodiless {
        let schema = declared.schemas.as_ref().map_or_else(|| json!({}), |schemas| schemas.request.clone());
        operation["requestBody"] =
            json!({ "required": !takes_null(declared), "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// A body that is not there counts as `null`.
fn takes_null(declared: &Declared) -> bool {
    matches!(&declared.check, Check::Shape(fits) if fits("null").is_ok())
}

fn responses(declared: &Declared) -> Value {
    let shared = [
        ("400", "BadRequest"),
        ("408", "BodyTimeout"),
        ("410", "Expired"),
        ("413", "TooLarge"),
        ("415", "UnsupportedMediaType"),
        ("422", "Unprocessable"),
        ("500", "Internal"),
        ("503", "Unavailable"),
    ];
    let mut responses: Map<String, Value> = shared
        .iter()
        .map(|(status, name)| ((*status).to_owned(), json!({ "$ref": format!("#/components/responses/{name}") })))
        .collect();
    let accepted = ["Location", "Operation-Location", "X-Async-Job-Id", "ETag", "Vary", "Idempotent-Replayed"];
    responses.insert(
        "202".into(),
        job("The job was accepted, or had been before.", &accepted, Some("Retry-After"), declared),
    );
    responses
        .insert("200".into(), job("The job ended within the wait.", &accepted, Some("Preference-Applied"), declared));
    if matches!(declared.check, Check::Validated(_)) || !declared.layers.is_empty() {
        responses.insert("default".into(), json!({ "description": "What the application answers in place of a job." }));
    }
    Value::Object(responses)
}

/// A job of this type as an answer, with these headers.
fn job(description: &str, headers: &[&str], more: Option<&str>, declared: &Declared) -> Value {
    let headers: Map<String, Value> =
        headers.iter().copied().chain(more).map(|name| (name.to_owned(), header(name))).collect();
    let schema = match &declared.schemas {
        None => "AsyncJob".to_owned(),
        Some(_) => own_job(declared),
    };
    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
    json!({ "description": description, "headers": headers, "content": { "application/json": { "schema": schema } } })
}

/// What a job of this type is called as a schema: the general one with a result of its own.
fn own_job(declared: &Declared) -> String {
    format!("AsyncJob.{}", declared.name)
}

/// A header under its name on the wire, which is also its name in `openapi.json` but for dashes.
fn header(name: &str) -> Value {
    let component = match name {
        "X-Async-Job-Id" => "JobId".to_owned(),
        "Idempotent-Replayed" => "Replayed".to_owned(),
        name => name.replace('-', ""),
    };
    json!({ "$ref": format!("#/components/headers/{component}") })
}

/// axum's path as OpenAPI writes it, and its parameters.
fn path(path: &str) -> (String, Vec<Value>) {
    let mut params = Vec::new();
    let segments = path.split('/').map(|segment| {
        let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return segment.to_owned();
        };
        let name = name.trim_start_matches('*');
        params.push(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }),
        );
        format!("{{{name}}}")
    });
    let path = segments.collect::<Vec<_>>().join("/");
    (path, params)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::Operation, *};

    #[test]
    fn every_route_of_jobs_is_written_down_and_nothing_else() {
        let routes: Value = serde_json::from_str(ROUTES).expect("JSON");
        let methods = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        let written: BTreeSet<_> = routes["paths"].as_object().expect("paths").iter().flat_map(methods).collect();
        assert_eq!(written, Operation::ALL.map(|own| (own.method().to_string(), own.path().to_owned())).into());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(ROUTES).expect("JSON");
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

    #[test]
    fn wildcards_are_plain_parameters() {
        let (path, params) = path("/files/{album}/{*rest}");
        assert_eq!(path, "/files/{album}/{rest}");
        assert_eq!((params[0]["name"].as_str(), params[1]["name"].as_str()), (Some("album"), Some("rest")));
    }
}
