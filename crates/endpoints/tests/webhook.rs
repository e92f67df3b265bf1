//! Alerts over HTTP: what a receiver gets, and what its answers mean.
#![cfg(feature = "webhook")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Timestamp,
    alerts::{
        Alert, AlertSender, AlertStatus, AlertType, Alertmanager, Notification, SendError, Severity, Slack, Webhook,
    },
    axum::{
        Router,
        body::Bytes,
        http::{HeaderMap, StatusCode, Uri, header},
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};
use uuid::Uuid;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn firing() -> Notification {
    let id = Uuid::now_v7();
    let alert = Alert {
        id,
        rule: "failure_rate".to_owned(),
        alert_type: AlertType::Error,
        severity: Severity::High,
        status: AlertStatus::Firing,
        title: "Jobs <fail>".to_owned(),
        message: "12 % failed".to_owned(),
        details: json!({ "jobs": [] }),
        starts_at: Timestamp::from_micros(1_735_689_600_000_000),
        ends_at: None,
        service: "reports".to_owned(),
        instance: "worker-1".to_owned(),
    };
    Notification { id, alert }
}

type Received = (Uri, HeaderMap, Value);

/// A receiver that always gives one answer. Returns its address and the requests.
async fn receiver(status: StatusCode, headers: HeaderMap) -> (String, mpsc::UnboundedReceiver<Received>) {
    let (send, received) = mpsc::unbounded_channel();
    let answer = Arc::new((status, headers));
    let app = Router::new().fallback(move |uri: Uri, head: HeaderMap, body: Bytes| {
        let (send, answer) = (send.clone(), answer.clone());
        async move {
            send.send((uri, head, serde_json::from_slice(&body).unwrap())).unwrap();
            (answer.0, answer.1.clone())
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { async_endpoints::axum::serve(listener, app).await });
    (address, received)
}

#[tokio::test]
async fn webhook_gets_signed_alert() {
    let (address, mut received) = receiver(StatusCode::NO_CONTENT, HeaderMap::new()).await;
    let notification = firing();
    Webhook::new(&format!("{address}/hook?a=b"), SECRET).unwrap().send(&notification).await.unwrap();
    let (uri, head, body) = received.recv().await.unwrap();
    assert_eq!(uri, "/hook?a=b");
    assert_eq!(head["webhook-id"], notification.id.to_string().as_str());
    assert!(head["webhook-signature"].to_str().unwrap().starts_with("v1,"));
    assert_eq!(body["type"], "alert.firing");
    assert_eq!(body["data"], serde_json::to_value(&notification.alert).unwrap());
}

#[tokio::test]
async fn slack_and_alertmanager_get_their_shapes() {
    let (address, mut received) = receiver(StatusCode::OK, HeaderMap::new()).await;
    Slack::new(&address).unwrap().send(&firing()).await.unwrap();
    assert_eq!(received.recv().await.unwrap().2["text"], "[Firing] Jobs &lt;fail&gt;");
    Alertmanager::new(&address).unwrap().send(&firing()).await.unwrap();
    let (uri, _, body) = received.recv().await.unwrap();
    assert_eq!(uri, "/api/v2/alerts");
    assert_eq!(
        (&body[0]["labels"]["alertname"], &body[0]["labels"]["severity"]),
        (&json!("failure_rate"), &json!("high"))
    );
}

#[tokio::test]
async fn answer_decides_about_retry() {
    let location = HeaderMap::from_iter([(header::LOCATION, "/elsewhere".parse().unwrap())]);
    let later = HeaderMap::from_iter([(header::RETRY_AFTER, "7".parse().unwrap())]);
    for (status, headers, expected) in [
        (StatusCode::FOUND, location, None),
        (StatusCode::BAD_REQUEST, HeaderMap::new(), None),
        (StatusCode::TOO_MANY_REQUESTS, later, Some(Some(Duration::from_secs(7)))),
        (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), Some(None)),
    ] {
        let (address, mut received) = receiver(status, headers).await;
        let canary = Webhook::new(&format!("{address}/canary"), SECRET).unwrap();
        let error = canary.send(&firing()).await.unwrap_err();
        assert!(!format!("{error} {error:?} {canary:?}").contains("canary"), "{error:?}");
        match (&error, expected) {
            (SendError::Permanent(_), None) => {}
            (SendError::Temporary { retry_after, .. }, Some(pause)) => assert_eq!(*retry_after, pause),
            _ => panic!("{status}: {error:?}"),
        }
        received.recv().await.unwrap();
        assert!(received.try_recv().is_err(), "one request, and no redirect is followed");
    }
}
