//! The operations of declared endpoints in the OpenAPI document.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{PROBLEMS, SUBMIT_PROBLEMS, header};
use crate::http::{
    endpoint::{DeclaredEndpoint, EndpointDoc},
    submission::Check,
};

/// Adds the operation of an endpoint, and its schemas.
pub(super) fn add(document: &mut Value, declared: &DeclaredEndpoint, ids: &mut HashSet<String>) {
    let (path, params) = path(&declared.path);
    let method = declared.method.as_str().to_ascii_lowercase();
    let mut operation = operation(declared, params);
    operation["operationId"] = match &declared.doc.operation_id {
        Some(own) => json!(own),
        None => unique(&format!("{method}{}", declared.name), ids).into(),
    };
    document["paths"][path][&method] = operation;
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        add_schemas(schemas, declared);
    }
}

fn add_schemas(known: &mut Map<String, Value>, declared: &DeclaredEndpoint) {
    let codes = declared.rules.error_codes;
    if !has_own_job(declared) {
        return;
    }
    // Full copies instead of `allOf`, which some client generators do not support.
    let copy = |known: &Map<String, Value>, name: &str| known.get(name).cloned().unwrap_or_default();
    let own = own_schema("AsyncJob", declared);
    // Another endpoint may have added the schema of the same type, with or without the type's result.
    let mut job = known.remove(&own).unwrap_or_else(|| copy(known, "AsyncJob"));
    if !codes.is_empty() {
        let mut error = copy(known, "AsyncJobError");
        add_codes(&mut error["properties"]["code"], codes);
        let name = own_schema("AsyncJobError", declared);
        job["properties"]["error"]["oneOf"][0] = json!({ "$ref": format!("#/components/schemas/{name}") });
        known.insert(name, error);
    }
    if let Some(schemas) = &declared.schemas {
        job["properties"]["result"] = json!({ "oneOf": [schemas.result, { "type": "null" }] });
        for (name, schema) in &schemas.named {
            known.entry(name).or_insert_with(|| schema.clone());
        }
    }
    known.insert(own, job);
}

/// Adds the codes that a job type declares. They are examples: a handler may also set a code that it does not declare.
fn add_codes(schema: &mut Value, codes: &[&str]) {
    let list: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    schema["description"] =
        format!("Stable code in UPPER_SNAKE_CASE. The handler declares {}.", list.join(", ")).into();
    if let Some(examples) = schema["examples"].as_array_mut() {
        examples.splice(0..0, codes.iter().map(|code| json!(code)));
    }
}

/// Makes an operation id unique: several endpoints may accept the same job type.
fn unique(id: &str, ids: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{id}{n}"));
    let free = std::iter::once(id.to_owned()).chain(numbered).find(|id| !ids.contains(id)).unwrap_or_default();
    ids.insert(free.clone());
    free
}

fn operation(declared: &DeclaredEndpoint, mut params: Vec<Value>) -> Value {
    let name = declared.name;
    let shared = ["Prefer", "IdempotencyKey", "RequestId"];
    params.extend(shared.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })));
    params.extend(declared.choices.parameters());
    let EndpointDoc { summary, description, tags, .. } = &declared.doc;
    let mut operation = json!({
        "tags": if tags.is_empty() { json!(["endpoints"]) } else { json!(tags) },
        "summary": summary.as_deref().map_or_else(|| format!("Submits a {name} job"), str::to_owned),
        "parameters": params,
        "responses": responses(declared),
    });
    if let Some(description) = description {
        operation["description"] = json!(description);
    }
    if !declared.bodiless {
        let schema = declared.schemas.as_ref().map_or_else(|| json!({}), |schemas| schemas.request.clone());
        operation["requestBody"] =
            json!({ "required": !takes_null(declared), "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// Whether the body may be empty, which counts as `null`.
fn takes_null(declared: &DeclaredEndpoint) -> bool {
    matches!(&declared.check, Check::Shape(fits) if fits("null").is_ok())
}

fn responses(declared: &DeclaredEndpoint) -> Value {
    let mut responses = Map::new();
    for (name, kinds) in PROBLEMS.iter().filter(|(name, _)| SUBMIT_PROBLEMS.contains(name)) {
        let statuses = kinds.first().map(|kind| kind.status.as_str().to_owned());
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        responses.extend(statuses.map(|status| (status, reference)));
    }
    let accepted = ["Location", "Operation-Location", "X-Async-Job-Id", "ETag", "Vary", "Idempotent-Replayed"];
    let text = "The job was accepted now, or by an earlier request with the same key or id.";
    responses.insert("202".into(), job(text, &accepted, "Retry-After", declared));
    responses.insert("200".into(), job("The job ended within the wait.", &accepted, "Preference-Applied", declared));
    if matches!(declared.check, Check::Validator(_)) || !declared.layers.is_empty() {
        responses.insert("default".into(), json!({ "description": "A response of the application." }));
    }
    Value::Object(responses)
}

/// A response with a job of this type and these headers.
fn job(description: &str, headers: &[&str], another: &str, declared: &DeclaredEndpoint) -> Value {
    let headers: Map<String, Value> = headers.iter().copied().chain([another]).map(header).collect();
    let schema = if has_own_job(declared) { own_schema("AsyncJob", declared) } else { "AsyncJob".to_owned() };
    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
    json!({ "description": description, "headers": headers, "content": { "application/json": { "schema": schema } } })
}

/// Whether the jobs of this endpoint have a schema of their own, with the type's result and error codes.
fn has_own_job(declared: &DeclaredEndpoint) -> bool {
    declared.schemas.is_some() || !declared.rules.error_codes.is_empty()
}

/// The name of a schema for jobs of this type.
fn own_schema(name: &str, declared: &DeclaredEndpoint) -> String {
    format!("{name}.{}", declared.name)
}

/// Converts an axum path to an OpenAPI path and its parameters.
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
    use super::*;

    #[test]
    fn wildcard_becomes_plain_parameter() {
        let (path, params) = path("/files/{album}/{*rest}");
        assert_eq!(path, "/files/{album}/{rest}");
        assert_eq!((params[0]["name"].as_str(), params[1]["name"].as_str()), (Some("album"), Some("rest")));
    }
}
