//! Tests of the services that call others.

use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::support::{Program, Service, in_time};

/// Waits for the job's end, or for its next change.
async fn job(client: &Client, url: &str, version: Option<u64>) -> Value {
    let request = client.get(format!("{url}?wait=30"));
    let request = match version {
        Some(version) => request.header("if-none-match", format!("\"{version}\"")),
        None => request,
    };
    in_time("a job", request.send()).await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn calls_stop_during_an_outage_and_jobs_complete_after_it() {
    let service = Service::start(env!("CARGO_BIN_EXE_calls")).await;
    let order = |currency: &str| json!({ "currency": currency });
    let done = service.finish("/api/quote", &order("EUR")).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("Completed"), &json!({ "rate": 1.25 })));
    let refused = service.finish("/api/quote", &order("XYZ")).await;
    assert_eq!((&refused["status"], &refused["attempt"]), (&json!("Failed"), &json!(1)));
    assert_eq!((&refused["error"]["code"], &refused["error"]["status"]), (&json!("UNKNOWN_CURRENCY"), &json!(422)));

    let outage = async |on: bool| -> Response {
        let request = service.client.put(format!("{}/rates/outage", service.url)).json(&on);
        in_time("an answer", request.send()).await.unwrap()
    };
    assert!(outage(true).await.status().is_success());
    let accepted = service.post("/api/quote", &order("EUR")).await;
    let url = format!("{}{}", service.url, accepted.headers()["location"].to_str().unwrap());
    let mut state: Value = accepted.json().await.unwrap();
    // The breaker opens with the third attempt. The fourth makes no call.
    while !state.to_string().contains("The rates are not called for") {
        assert_ne!(state["status"], "Failed", "{state}");
        state = job(&service.client, &url, state["version"].as_u64()).await;
    }
    assert_eq!(state["error"]["code"], "RATES_UNAVAILABLE");
    assert!(outage(false).await.status().is_success());
    let done = job(&service.client, &url, None).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("Completed"), &json!({ "rate": 1.25 })));
}

/// The shop, and the printer that it calls.
async fn shop() -> (Service, String) {
    let mut program = Program::start(env!("CARGO_BIN_EXE_services"), &["127.0.0.1:0"], &[]);
    let mut address = async |before: &str| {
        let line = program.line().await.expect("an address");
        line.strip_prefix(before).unwrap_or_else(|| panic!("invalid line {line:?}")).to_owned()
    };
    let (printer, url) = (address("printer on ").await, address("listening on ").await);
    (Service { program, url, client: Client::new() }, printer)
}

#[tokio::test]
async fn job_of_the_other_service_has_the_same_trace() {
    let (shop, printer) = shop().await;
    let ordered = shop.finish("/orders", &json!({ "pages": 3 })).await;
    assert_eq!((&ordered["status"], &ordered["result"]["pages"]), (&json!("Completed"), &json!(3)), "{ordered}");
    assert_eq!(ordered["progress"]["message"], "printing page 3 of 3");
    let id = ordered["result"]["printJob"].as_str().unwrap();
    let printed = job(&shop.client, &format!("{printer}/jobs/{id}"), None).await;
    assert_eq!(printed["name"], "Print");
    assert_eq!(printed["traceId"], ordered["traceId"]);
    assert!(printed["traceId"].is_string());
}

#[tokio::test]
async fn failure_of_the_other_service_is_permanent() {
    let (shop, _) = shop().await;
    let failed = shop.finish("/orders", &json!({ "pages": 10_001 })).await;
    let error = &failed["error"];
    assert_eq!(
        (&error["code"], &error["status"], &failed["attempt"]),
        (&json!("PRINT_FAILED"), &json!(409), &json!(1))
    );
    assert!(error["detail"].as_str().unwrap().contains("NO_PAPER: There is not enough paper."), "{error}");
}

#[tokio::test]
async fn cancel_request_is_passed_on() {
    let (shop, printer) = shop().await;
    let accepted = shop.post("/orders", &json!({ "pages": 9_999 })).await;
    let url = format!("{}{}", shop.url, accepted.headers()["location"].to_str().unwrap());
    let mut state: Value = accepted.json().await.unwrap();
    while !state["progress"]["message"].to_string().contains("printing page") {
        state = job(&shop.client, &url, state["version"].as_u64()).await;
    }
    assert_eq!(in_time("an answer", shop.client.post(format!("{url}/cancel")).send()).await.unwrap().status(), 202);
    assert_eq!(job(&shop.client, &url, None).await["status"], "Canceled");
    // The idempotency key is the id of the shop's job: a submission with this key finds the printer's job.
    let again = shop.client.post(format!("{printer}/print")).json(&json!({ "pages": 9_999 }));
    let again = again.header("idempotency-key", state["id"].as_str().unwrap());
    let print: Value = in_time("a job", again.send()).await.unwrap().json().await.unwrap();
    let ended = job(&shop.client, &format!("{printer}/jobs/{}", print["id"].as_str().unwrap()), None).await;
    assert_eq!(ended["status"], "Canceled");
}
