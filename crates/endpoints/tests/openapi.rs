//! The application's types in the OpenAPI document.
#![cfg(feature = "openapi")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(dead_code, reason = "only their shapes matter")]

mod support;

use std::collections::BTreeSet;

use async_endpoints::{BuildError, Endpoint, JobType};
use serde_json::{Value, json};
use support::{Service, store};
use utoipa::ToSchema;

#[derive(serde::Deserialize, ToSchema)]
struct Order {
    items: Vec<Item>,
    speed: Option<Speed>,
}

#[derive(serde::Deserialize, ToSchema)]
struct Item {
    article: String,
    #[schema(no_recursion)]
    parts: Vec<Item>,
}

#[derive(serde::Deserialize, ToSchema)]
enum Speed {
    Slow,
    Fast,
}

mod other {
    #[derive(serde::Deserialize, utoipa::ToSchema)]
    pub(crate) struct Order {
        pub(crate) number: u32,
    }
}

const ORDER: JobType<Order, Vec<String>> = JobType::new("Order");
const SPEED: JobType<Speed, ()> = JobType::new("Speed");
const OTHER: JobType<other::Order, ()> = JobType::new("Other");

async fn document() -> Value {
    let service = Service::start(|builder| {
        builder
            .endpoint(Endpoint::post("/orders", ORDER).documented().summary("Orders things"))
            .endpoint(Endpoint::post("/shops/{shop}/orders", ORDER).documented())
            .endpoint(
                Endpoint::put("/speed", SPEED)
                    .documented()
                    .operation_id("postOrder2")
                    .tag("orders")
                    .tag("speed")
                    .description("As *fast* as it can."),
            )
    })
    .await;
    let document = service.client.get(service.url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    service.stop().await;
    document
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    found.extend(value["$ref"].as_str());
    match value {
        Value::Object(members) => members.values().for_each(|member| references(member, found)),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn types_are_referenced_by_name() {
    let document = document().await;
    let body = |path: &str, method: &str| {
        document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"].clone()
    };
    assert_eq!(body("/orders", "post"), json!({"$ref": "#/components/schemas/Order"}));
    assert_eq!(body("/speed", "put"), json!({"$ref": "#/components/schemas/Speed"}));
    assert_eq!(document["components"]["schemas"]["Speed"]["enum"], json!(["Slow", "Fast"]));
    assert_eq!(document["paths"]["/orders"]["post"]["summary"], "Orders things");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn operation_ids_are_unique() {
    let document = document().await;
    let paths = document["paths"].as_object().unwrap();
    let ids: Vec<&str> = paths.values().flat_map(|path| path.as_object().unwrap().values()).map(id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    assert!(["postOrder", "postOrder2", "postOrder3"].iter().all(|id| ids.contains(id)), "{ids:?}");
    assert_eq!(document["paths"]["/speed"]["put"]["operationId"], "postOrder2");
}

#[tokio::test]
async fn endpoint_has_its_own_description_and_tags() {
    let document = document().await;
    let operation = |path: &str, method: &str| document["paths"][path][method].clone();
    let speed = operation("/speed", "put");
    assert_eq!((&speed["tags"], &speed["description"]), (&json!(["orders", "speed"]), &json!("As *fast* as it can.")));
    let order = operation("/orders", "post");
    assert_eq!((&order["tags"], &order["description"]), (&json!(["endpoints"]), &Value::Null));
}

fn id(operation: &Value) -> &str {
    operation["operationId"].as_str().unwrap()
}

#[test]
fn build_rejects_two_types_with_one_name() {
    let builder = support::builder(&store());
    let clash = builder
        .endpoint(Endpoint::post("/orders", ORDER).documented())
        .endpoint(Endpoint::post("/others", OTHER).documented());
    assert_eq!(clash.build().unwrap_err(), BuildError::TwoSchemas("Order".to_owned()));
}

#[test]
fn build_rejects_two_operations_with_one_id() {
    let build = |first: &'static str, second: &'static str| {
        let endpoint = |path: &'static str, id: &'static str| Endpoint::post(path, SPEED).operation_id(id);
        support::builder(&store()).endpoint(endpoint("/a", first)).endpoint(endpoint("/b", second)).build().map(drop)
    };
    assert_eq!(build("go", "go"), Err(BuildError::TwoOperations("go".to_owned())));
    assert_eq!(build("go", "getJob"), Err(BuildError::TwoOperations("getJob".to_owned())));
    assert_eq!(build("go", "stop"), Ok(()));
}
