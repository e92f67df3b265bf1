//! Tests of the services.

use crate::support::{Service, in_time};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

#[tokio::test]
async fn dependencies_errors_are_classified() {
    let service = Service::start(env!("CARGO_BIN_EXE_dependencies")).await;
    let welcome = async |address: &str, language: &str| {
        service.finish("/api/welcome", &json!({ "address": address, "language": language })).await
    };
    let (sent, slow) = tokio::join!(welcome("ada@example.com", "de"), welcome("bob@host.slow", "en"));
    assert_eq!((&sent["status"], &sent["result"]), (&json!("Completed"), &json!({"subject": "Willkommen!"})));
    assert_eq!((&slow["status"], &slow["attempt"]), (&json!("Completed"), &json!(2)));
    for (address, language, code, status) in
        [("nowhere", "en", "HANDLER_ERROR", 500), ("ada@example.com", "tlh", "NO_TEMPLATE", 422)]
    {
        let failed = welcome(address, language).await;
        assert_eq!((&failed["status"], &failed["attempt"]), (&json!("Failed"), &json!(1)), "{failed}");
        assert_eq!((&failed["error"]["code"], &failed["error"]["status"]), (&json!(code), &json!(status)));
    }
    let outbox = service.client.get(format!("{}/api/outbox", service.url)).send().await.unwrap();
    assert_eq!(outbox.text().await.unwrap(), "ada@example.com: Willkommen!\nbob@host.slow: Welcome!\n");
}

async fn sent(request: RequestBuilder) -> Response {
    in_time("an answer", request.send()).await.unwrap()
}

fn media(answer: &Response) -> &str {
    answer.headers()["content-type"].to_str().unwrap()
}

/// Submits a print as this user.
async fn order(service: &Service, user: &str, pages: u32) -> Response {
    let request = service.client.post(format!("{}/v1/print", service.url)).json(&json!({ "pages": pages }));
    sent(request.bearer_auth(format!("{user}-secret")).header("x-user-id", "mallory")).await
}

#[tokio::test]
async fn validation_rejects_delays_and_prioritizes() {
    let service = Service::start(env!("CARGO_BIN_EXE_validation")).await;
    let accepted = order(&service, "ada", 3).await;
    let headers = accepted.headers().clone();
    let job: Value = accepted.json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    assert_eq!(headers["location"], format!("/v1/jobs/{id}"));
    assert_eq!(headers["x-async-job-id"], id);
    assert!(headers["x-processing-time"].to_str().unwrap().ends_with('Z'), "{headers:?}");
    assert_eq!(job["priority"], 9);

    let late: Value = order(&service, "bob", 100).await.json().await.unwrap();
    assert_eq!((&late["status"], &late["priority"]), (&json!("Scheduled"), &json!(4)));

    let refused = order(&service, "ada", 501).await;
    assert_eq!((refused.status().as_u16(), media(&refused)), (422, "application/json"));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["error"], &problem["message"]), (&json!("WRONG_PAGES"), &json!("501 pages were ordered.")));
    assert_eq!(order(&service, "mallory", 3).await.status(), 401);

    let print = service.client.post(format!("{}/v1/print", service.url)).bearer_auth("ada-secret");
    let refused = sent(print.json(&json!({ "pages": "many" }))).await;
    assert_eq!((refused.status().as_u16(), media(&refused)), (422, "application/json"));
    let own: Value = refused.json().await.unwrap();
    assert_eq!(own["help"], "https://example.com/help#INVALID_REQUEST");
    assert!(own["message"].as_str().unwrap().starts_with("pages: invalid type"), "{own}");
}

#[tokio::test]
async fn validation_job_of_other_user_is_not_found() {
    let service = Service::start(env!("CARGO_BIN_EXE_validation")).await;
    let location = order(&service, "ada", 3).await.headers()["location"].to_str().unwrap().to_owned();
    let get = |path: &str| service.client.get(format!("{}{path}?wait=30", service.url));
    let own: Value = sent(get(&location).bearer_auth("ada-secret")).await.json().await.unwrap();
    assert_eq!(own["result"], json!({ "pages": 3, "user": "ada" }));
    assert_eq!(sent(get(&location).bearer_auth("bob-secret")).await.status(), 404);
    assert_eq!(sent(get(&location)).await.status(), 401);
}

#[tokio::test]
async fn errors_of_the_domain_have_their_codes() {
    let service = Service::start(env!("CARGO_BIN_EXE_errors")).await;
    let order = |customer: u64, day: &str| json!({ "customer": customer, "day": day });
    let done = service.finish("/exports", &order(7, "2026-12-01")).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("Completed"), &json!({ "rows": 120 })));
    let again = service.post("/exports", &order(7, "2026-12-01")).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["id"], done["id"]);

    let failed = service.finish("/exports", &order(9, "2026-12-01")).await;
    let error = &failed["error"];
    assert_eq!(
        (&error["code"], &error["status"], &error["attempt"]),
        (&json!("ARCHIVE_UNAVAILABLE"), &json!(503), &json!(2))
    );
    assert_eq!(error["detail"], "The archive does not answer.");

    let refused = service.post("/exports", &order(1, "2026-12-01")).await;
    assert_eq!(refused.status(), 404);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["title"]), (&json!("UNKNOWN_CUSTOMER"), &json!("No such customer")));
    let problem: Value = service.post("/exports", &order(8, "today")).await.json().await.unwrap();
    assert_eq!((&problem["errors"][0]["pointer"], &problem["customer"]), (&json!("#/day"), &json!(8)));

    let delayed = service.client.post(format!("{}/exports", service.url)).json(&order(8, "2026-12-01"));
    let delayed = sent(delayed.header("x-async-delay", "3600").header("x-async-priority", "6")).await;
    let job: Value = delayed.json().await.unwrap();
    assert_eq!((&job["status"], &job["priority"]), (&json!("Scheduled"), &json!(6)));
}

#[tokio::test]
async fn halves_run_a_job_and_stop_together() {
    let service = Service::start(env!("CARGO_BIN_EXE_halves")).await;
    let job = service.finish("/api/count-words", &json!({ "text": "to be or not to be" })).await;
    assert_eq!((&job["status"], &job["result"]), (&json!("Completed"), &json!({ "words": 6 })));
    assert!(service.program.signal("TERM").await.unwrap().success());
    let (rest, status) = service.program.end().await;
    assert!(rest.is_empty() && status.success(), "{rest:?} {status}");
}
