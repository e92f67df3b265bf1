//! The routes of alerts, and the functions behind them.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_endpoints::{
    Access, AsyncEndpoints, Timestamp,
    alerts::{
        AlertSender, AlertStatus, Alerts, BoxError, NewSilence, Notification, Reading, Rule, SendError, SilenceError,
    },
    async_trait,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use support::{Service, TestStore, flaky_store, quick, until};
use uuid::Uuid;

/// The routes of alerts.
const ROUTES: [(Method, &str); 4] = [
    (Method::GET, "/alerts"),
    (Method::POST, "/alerts/silences"),
    (Method::DELETE, "/alerts/silences/{id}"),
    (Method::POST, "/alerts/test"),
];

/// Keeps notifications, or refuses them.
#[derive(Clone, Default)]
struct Receiver {
    refusal: Option<&'static str>,
    received: Arc<Mutex<Vec<Notification>>>,
}

#[async_trait]
impl AlertSender for Receiver {
    fn kind(&self) -> &'static str {
        "receiver"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        assert_ne!(self.refusal, Some("panic"), "the receiver has no paper");
        self.received.lock().unwrap().push(notification.clone());
        self.refusal.map_or(Ok(()), |reason| Err(SendError::Permanent(reason.to_owned())))
    }
}

fn alerts() -> Alerts {
    Alerts::new().interval(Duration::from_millis(100))
}

/// A rule that fires at once.
fn backlog() -> Rule {
    let read = async || Ok::<_, BoxError>(Reading::new(7.0, "7 exports wait").with("queue", "exports"));
    Rule::above(5.0, read).unit("jobs")
}

/// A service of the job routes and the monitoring routes.
async fn serve(store: TestStore, access: Access, alerts: Option<Alerts>) -> Service {
    let builder = support::builder(&store).access(access);
    let builder = match alerts {
        Some(alerts) => builder.alerts(alerts),
        None => builder,
    };
    let endpoints = builder.build().unwrap();
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

async fn service(alerts: Alerts) -> Service {
    serve(support::store(), Access::loopback(), Some(alerts)).await
}

async fn get(service: &Service, path: &str) -> Value {
    let response = service.client.get(service.url(path)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.json().await.unwrap()
}

async fn delete(service: &Service, path: &str) -> Response {
    service.client.delete(service.url(path)).send().await.unwrap()
}

async fn problem(response: Response, status: StatusCode) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    response.json().await.unwrap()
}

/// The document of a rule.
async fn rule(service: &Service, name: &str) -> Value {
    let document = get(service, "/alerts").await;
    document["rules"].as_array().unwrap().iter().find(|rule| rule["rule"] == name).unwrap().clone()
}

fn in_seconds(seconds: u64) -> Timestamp {
    (SystemTime::now() + Duration::from_secs(seconds)).into()
}

fn new_silence() -> Value {
    json!({ "rule": "backlog", "author": "Ada", "reason": "deployment", "endsAt": in_seconds(600) })
}

#[tokio::test]
async fn document_has_what_each_rule_saw() {
    let receiver = Receiver::default();
    let service = service(alerts().rule("backlog", backlog()).sender("receiver", receiver.clone())).await;
    until(async || rule(&service, "backlog").await["state"] == "firing").await;
    let mut rule = rule(&service, "backlog").await;
    let since: Timestamp = rule["since"].take().as_str().unwrap().parse().unwrap();
    assert!(since <= in_seconds(0));
    let details = json!({
        "value": 7.0, "threshold": 5.0, "unit": "jobs", "jobs": [], "message": "7 exports wait", "queue": "exports",
    });
    let expected = json!({
        "rule": "backlog", "state": "firing", "since": null, "value": 7.0, "threshold": 5.0, "details": details,
    });
    assert_eq!(rule, expected);
    assert_eq!(get(&service, "/alerts").await["silences"], json!([]));
    until(async || !receiver.received.lock().unwrap().is_empty()).await;
    service.stop().await;
}

#[tokio::test]
async fn silence_is_listed_until_it_is_deleted() {
    let service = service(alerts().rule("backlog", backlog())).await;
    let created = service.post("/alerts/silences", new_silence()).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let silence: Value = created.json().await.unwrap();
    assert_eq!(location, format!("/alerts/silences/{}", silence["id"].as_str().unwrap()));
    let mut fields = silence.clone();
    let id: Uuid = fields.as_object_mut().unwrap().remove("id").unwrap().as_str().unwrap().parse().unwrap();
    assert_eq!(fields["rule"], "backlog");
    assert_eq!((&fields["author"], &fields["reason"]), (&json!("Ada"), &json!("deployment")));
    assert_eq!(fields.as_object().unwrap().len(), 4, "{fields}");
    assert_eq!(get(&service, "/alerts").await["silences"], json!([silence]));
    assert_eq!(service.endpoints.alert_status().await.unwrap().silences[0].id, id);

    let deleted = delete(&service, &location).await;
    assert_eq!((deleted.status(), deleted.headers().get("content-length")), (StatusCode::NO_CONTENT, None));
    assert_eq!(get(&service, "/alerts").await["silences"], json!([]));
    for path in [&location, "/alerts/silences/7", &format!("/alerts/silences/{}", Uuid::max())] {
        let problem = problem(delete(&service, path).await, StatusCode::NOT_FOUND).await;
        assert_eq!(problem["code"], "SILENCE_NOT_FOUND", "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn location_has_the_mount_prefix() {
    let store = support::store();
    let endpoints = support::builder(&store).alerts(alerts().rule("backlog", backlog())).build().unwrap();
    let app = async_endpoints::axum::Router::new().nest("/v1", endpoints.monitoring_routes());
    let service = Service::serve_app(store, endpoints, app).await;
    let created = service.post("/v1/alerts/silences", new_silence()).await;
    let location = created.headers()["location"].to_str().unwrap();
    assert!(location.starts_with("/v1/alerts/silences/"), "{location}");
    assert_eq!(delete(&service, location).await.status(), StatusCode::NO_CONTENT);
    service.stop().await;
}

#[tokio::test]
async fn invalid_silence_names_its_field() {
    let service = service(alerts().rule("backlog", backlog())).await;
    let with = |field: &str, value: Value| {
        let mut silence = new_silence();
        silence[field] = value;
        silence
    };
    let mut without_end = new_silence();
    without_end.as_object_mut().unwrap().remove("endsAt");
    for (silence, detail) in [
        (with("rule", json!("frontlog")), "rule: invalid value \"frontlog\", expected one of "),
        (with("author", json!("")), "author: invalid value \"\", expected a text of 1 to 1024 bytes"),
        (with("author", json!(" \n")), "author: invalid value "),
        (with("reason", json!("x".repeat(1025))), "reason: invalid value \"xxx"),
        (with("reason", json!("pay\u{202e}oga")), "reason: invalid value \"pay\\u{202e}oga\", expected a text of "),
        (with("author", json!("Ada\0")), "author: invalid value \"Ada\\0\", expected a text of "),
        (with("reason", json!(null)), "reason: invalid type: null, expected a string"),
        (with("endsAt", json!(in_seconds(0))), "endsAt: invalid value "),
        (with("endsAt", json!(in_seconds(367 * 24 * 3600))), "endsAt: invalid value "),
        (with("endsAt", json!("tomorrow")), "endsAt: "),
        (with("until", json!(7)), "until: unknown field `until`"),
        (without_end, "missing field `endsAt`"),
        (json!([]), "invalid type: sequence, expected an object"),
    ] {
        let response = service.post("/alerts/silences", silence).await;
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["code"], "INVALID_SILENCE", "{problem}");
        let found = problem["detail"].as_str().unwrap();
        assert!(found.starts_with(detail) && found.len() < 500, "{found}");
    }
    let longest = with("reason", json!("x".repeat(1024)));
    assert_eq!(service.post("/alerts/silences", longest).await.status(), StatusCode::CREATED);
    service.stop().await;
}

#[tokio::test]
async fn body_that_is_not_json_is_refused() {
    let service = service(alerts().rule("backlog", backlog())).await;
    let silence = new_silence().to_string();
    let large = format!("{silence}{}", " ".repeat(1 << 21));
    for (content_type, body, status, code) in [
        ("application/json", &silence[1..], 400, "INVALID_JSON"),
        ("application/json", "{\"rule\":", 400, "INVALID_JSON"),
        ("application/json", "", 422, "INVALID_SILENCE"),
        ("application/json", &large, 413, "BODY_TOO_LARGE"),
        ("text/plain", &silence, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        let request = service.client.post(service.url("/alerts/silences")).header("content-type", content_type);
        let response = request.body(body.to_owned()).send().await.unwrap();
        let problem = problem(response, StatusCode::from_u16(status).unwrap()).await;
        assert_eq!(problem["code"], code);
    }
    service.stop().await;
}

#[tokio::test]
async fn silence_beyond_the_maximum_is_a_conflict() {
    let service = service(alerts().rule("backlog", backlog())).await;
    let silence: NewSilence = serde_json::from_value(new_silence()).unwrap();
    let first = service.endpoints.silence(silence.clone()).await.unwrap();
    for _ in 1..100 {
        service.endpoints.silence(silence.clone()).await.unwrap();
    }
    let refused = service.post("/alerts/silences", new_silence()).await;
    assert_eq!(problem(refused, StatusCode::CONFLICT).await["code"], "TOO_MANY_SILENCES");
    assert!(service.endpoints.end_silence(first.id).await.unwrap());
    assert_eq!(service.post("/alerts/silences", new_silence()).await.status(), StatusCode::CREATED);
    service.stop().await;
}

#[tokio::test]
async fn test_alert_has_a_result_for_each_sender() {
    let (receiver, refusing) =
        (Receiver::default(), Receiver { refusal: Some("no such channel"), ..Default::default() });
    let panicking = Receiver { refusal: Some("panic"), ..Default::default() };
    let alerts = Alerts::new().service("shop").sender("receiver", receiver.clone()).sender("refusing", refusing);
    let service = service(alerts.without_sender("log").sender("panicking", panicking)).await;
    let response = service.client.post(service.url("/alerts/test")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut document: Value = response.json().await.unwrap();
    let panic = document["results"][2]["error"].take();
    assert!(panic.as_str().is_some_and(|panic| panic.contains("panic")), "{panic}");
    let expected = json!({ "results": [
        { "sender": "receiver", "ok": true, "error": null },
        { "sender": "refusing", "ok": false, "error": "no such channel" },
        { "sender": "panicking", "ok": false, "error": null },
    ]});
    assert_eq!(document, expected);
    let received = receiver.received.lock().unwrap().clone();
    let [Notification { alert, .. }] = &*received else { panic!("{received:?}") };
    assert_eq!((alert.rule.as_str(), alert.status, alert.service.as_str()), ("test", AlertStatus::Firing, "shop"));
    let audit = service.endpoints.audit().await.unwrap();
    let tested = audit.iter().map(|entry| (entry.action.as_str(), entry.target.as_deref())).collect::<Vec<_>>();
    assert_eq!(tested, [("alerts.test", Some("receiver, refusing, panicking"))]);
    service.stop().await;
}

#[tokio::test]
async fn routes_are_for_operators() {
    let receiver = Receiver::default();
    let alerts = || Alerts::new().rule("backlog", backlog()).sender("receiver", receiver.clone());
    for (access, status) in [
        (Access::token("letmein"), StatusCode::UNAUTHORIZED),
        (Access::closed(), StatusCode::FORBIDDEN),
        (Access::when(|request| request.headers.contains_key("authorization")), StatusCode::FORBIDDEN),
    ] {
        let service = serve(support::store(), access, Some(alerts())).await;
        for (method, path) in ROUTES {
            let request =
                service.client.request(method.clone(), service.url(&path.replace("{id}", &Uuid::max().to_string())));
            let refused = request.json(&new_silence()).send().await.unwrap();
            assert_eq!(refused.status(), status, "{method} {path}");
        }
        assert_eq!(service.endpoints.alert_status().await.unwrap().silences, []);
        service.stop().await;
    }
    assert!(receiver.received.lock().unwrap().iter().all(|sent| sent.alert.rule != "test"));
}

#[tokio::test]
async fn operator_may_use_the_routes() {
    let receiver = Receiver::default();
    let alerts = Alerts::new().rule("backlog", backlog()).sender("receiver", receiver.clone());
    let service = serve(support::store(), Access::token("letmein"), Some(alerts)).await;
    let kept = service.endpoints.silence(serde_json::from_value(new_silence()).unwrap()).await.unwrap();
    let send = async |method: Method, path: &str, site: &str| {
        let request = service.client.request(method, service.url(&path.replace("{id}", &kept.id.to_string())));
        let request = request.bearer_auth("letmein").header("sec-fetch-site", site.to_owned());
        request.json(&new_silence()).send().await.unwrap().status()
    };
    for (method, path) in ROUTES {
        let refused = send(method.clone(), path, "cross-site").await == StatusCode::FORBIDDEN;
        assert_eq!(refused, method != Method::GET, "{method} {path}");
    }
    assert_eq!(service.endpoints.alert_status().await.unwrap().silences, std::slice::from_ref(&kept));
    for ((method, path), status) in ROUTES.into_iter().zip([200, 201, 204, 200]) {
        assert_eq!(send(method.clone(), path, "same-origin").await, status, "{method} {path}");
    }
    assert_eq!(receiver.received.lock().unwrap().iter().filter(|sent| sent.alert.rule == "test").count(), 1);
    service.stop().await;
}

#[tokio::test]
async fn routes_exist_only_with_alerts() {
    let service = serve(support::store(), Access::token("letmein"), Some(alerts())).await;
    let document = get(&service, "/openapi.json").await;
    for (method, path) in ROUTES {
        let operation = &document["paths"][path][method.as_str().to_lowercase()];
        assert_eq!(operation["security"], json!([{ "token": [] }]), "{method} {path}");
    }
    service.stop().await;

    let service = serve(support::store(), Access::loopback(), None).await;
    let document = get(&service, "/openapi.json").await;
    assert!(document["paths"]["/ops/workers"].is_object());
    for (method, path) in ROUTES {
        assert_eq!(document["paths"].get(path), None);
        let response = service.client.request(method, service.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn functions_without_alerts_do_nothing() {
    let endpoints = support::watch(&support::store());
    let status = endpoints.alert_status().await.unwrap();
    assert!(status.rules.is_empty() && status.silences.is_empty());
    let refused = endpoints.silence(serde_json::from_value(new_silence()).unwrap()).await.unwrap_err();
    assert!(matches!(refused, SilenceError::Field { field: "rule", .. }), "{refused}");
    assert!(!endpoints.end_silence(Uuid::max()).await.unwrap());
    assert_eq!(endpoints.test_alerts().await, []);
}

#[tokio::test]
async fn senders_can_be_tested_during_an_outage() {
    let (inner, store) = flaky_store();
    let receiver = Receiver::default();
    let alerts = Alerts::new().rule("backlog", backlog()).sender("receiver", receiver.clone());
    let builder = AsyncEndpoints::builder(store.clone()).options(quick()).access(Access::loopback());
    let endpoints = builder.alerts(alerts).build().unwrap();
    let app = endpoints.monitoring_routes();
    let service = Service::serve_app(inner, endpoints, app).await;
    store.outage(true);
    for (method, path) in &ROUTES[..3] {
        let request =
            service.client.request(method.clone(), service.url(&path.replace("{id}", &Uuid::max().to_string())));
        let problem =
            problem(request.json(&new_silence()).send().await.unwrap(), StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(problem["code"], "STORE_UNAVAILABLE", "{method} {path}");
    }
    let tested: Value = service.post("/alerts/test", json!(null)).await.json().await.unwrap();
    assert!(tested["results"].as_array().unwrap().iter().all(|result| result["ok"] == true), "{tested}");
    store.outage(false);
    service.stop().await;
}
