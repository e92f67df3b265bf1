//! Alerts by mail: what an SMTP server receives, and errors.
#![cfg(feature = "email")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{fs, net::Ipv4Addr, time::Duration};

use async_endpoints::{
    Timestamp,
    alerts::{Alert, AlertSender, AlertStatus, AlertType, Email, Notification, SendError, Severity},
};
use async_endpoints_testkit::server::{SmtpServer, SmtpSettings, SmtpTls};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener};
use uuid::Uuid;

const FROM: &str = "Alerts <alerts@service.example>";
const OPS: &str = "ops@example.com";
const LOGIN: (&str, &str) = ("user@example.com", "canary/#@:%");
const LOGIN_IN_URL: &str = "user%40example.com:canary%2F%23%40%3A%25";

/// The first notification of an alert: its id is the alert's.
fn firing() -> Notification {
    let id = Uuid::now_v7();
    let alert = Alert {
        id,
        rule: "failure_rate".to_owned(),
        alert_type: AlertType::Error,
        severity: Severity::High,
        status: AlertStatus::Firing,
        title: "Jobs fail".to_owned(),
        message: "12 % of \"Ship & <b>bill</b>\" failed – 2 points above the threshold of 10 %.\n.\nLook at the log."
            .to_owned(),
        details: json!({ "value": 12, "threshold": 10, "unit": "%" }),
        starts_at: Timestamp::from_micros(1_735_689_600_000_000),
        ends_at: None,
        service: "reports".to_owned(),
        instance: "worker-1".to_owned(),
    };
    Notification { id, alert }
}

fn resolved(first: &Notification) -> Notification {
    let mut alert = first.alert.clone();
    alert.status = AlertStatus::Resolved;
    alert.ends_at = Some(Timestamp::from_micros(1_735_689_900_000_000));
    Notification { id: Uuid::now_v7(), alert }
}

fn plain(server: &SmtpServer) -> String {
    format!("smtp://127.0.0.1:{}", server.port())
}

fn header<'a>(mail: &'a Value, name: &str) -> Option<&'a str> {
    let headers = mail["headers"].as_array().unwrap();
    let mut found = headers.iter().filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap());
    let first = found.next();
    assert_eq!(found.next(), None, "{name} is there once");
    first
}

async fn permanent(email: &Email, notification: &Notification) -> String {
    match email.send(notification).await {
        Err(SendError::Permanent(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

async fn temporary(email: &Email, notification: &Notification) -> String {
    match email.send(notification).await {
        Err(SendError::Temporary { reason, retry_after: None }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn mail_has_both_parts_and_its_headers() {
    let server = SmtpServer::start(&SmtpSettings::default());
    let email = Email::new(&plain(&server), FROM, &format!("{OPS}, \"On call, Köln\" <oncall@example.com>")).unwrap();
    let first = firing();
    email.send(&first).await.unwrap();

    let [mail] = &server.mails()[..] else { panic!("one mail") };
    assert_eq!(mail["from"], "alerts@service.example");
    assert_eq!(mail["to"], json!([OPS, "oncall@example.com"]));
    assert_eq!(mail["hello"], "service.example");
    assert_eq!((&mail["encrypted"], &mail["login"]), (&json!(false), &json!(null)));
    assert_eq!(header(mail, "From"), Some(FROM));
    assert_eq!(header(mail, "To"), Some("ops@example.com, \"On call, Köln\" <oncall@example.com>"));
    assert_eq!(header(mail, "Subject"), Some("[FIRING High] Jobs fail"));
    assert_eq!(header(mail, "Message-ID"), Some(format!("<{}@service.example>", first.alert.id).as_str()));
    assert_eq!((header(mail, "In-Reply-To"), header(mail, "References")), (None, None));
    assert_eq!(header(mail, "Auto-Submitted"), Some("auto-generated"));
    assert!(header(mail, "Date").is_some());

    assert_eq!(mail["type"], "multipart/alternative");
    let text = mail["text"].as_str().unwrap().replace("\r\n", "\n");
    assert!(text.starts_with(&first.alert.message), "{text}");
    for fact in ["Status: firing", "Severity: High", "Rule: failure_rate", "Since: 2025-01-01T00:00:00.000000Z"] {
        assert!(text.contains(&format!("\n{fact}\n")), "{text}");
    }
    let html = mail["html"].as_str().unwrap();
    assert!(html.contains("12 % of &quot;Ship &amp; &lt;b&gt;bill&lt;/b&gt;&quot; failed – 2 points"), "{html}");
    assert!(html.contains("<td>reports</td>"), "{html}");
    assert!(mail["raw"].as_str().unwrap().is_ascii());
}

#[tokio::test]
async fn repeat_and_resolve_thread_with_the_first_mail() {
    let server = SmtpServer::start(&SmtpSettings::default());
    let first = firing();
    let repeat = Notification { id: Uuid::now_v7(), ..first.clone() };
    let resolve = resolved(&first);
    for notification in [&first, &repeat, &resolve] {
        // The process may change between notifications.
        Email::new(&plain(&server), FROM, OPS).unwrap().send(notification).await.unwrap();
    }

    let mails = server.mails();
    let ids: Vec<_> = mails.iter().map(|mail| header(mail, "Message-ID").unwrap()).collect();
    assert_eq!(ids, [first.id, repeat.id, resolve.id].map(|id| format!("<{id}@service.example>")));
    for later in &mails[1..] {
        assert_eq!(header(later, "In-Reply-To"), Some(ids[0]));
        assert_eq!(header(later, "References"), Some(ids[0]));
    }
    assert_eq!(header(&mails[2], "Subject"), Some("[RESOLVED] Jobs fail"));
    let text = mails[2]["text"].as_str().unwrap();
    assert!(text.contains("Status: resolved") && text.contains("Until: 2025-01-01T00:05:00.000000Z"), "{text}");
}

#[tokio::test]
async fn line_breaks_in_fields_add_no_header() {
    let server = SmtpServer::start(&SmtpSettings::default());
    let email = Email::new(&plain(&server), FROM, OPS).unwrap();
    let mut names = Vec::new();
    for evil in
        ["plain", "a\r\nBcc: x@example.com\r\n\r\nbody", "ä\nX-Evil: 1", "a\rX-Evil: 1", "a\u{0}b\r\n.\r\nQUIT\r\n"]
    {
        let mut notification = firing();
        let alert = &mut notification.alert;
        for field in [&mut alert.title, &mut alert.message, &mut alert.rule, &mut alert.service, &mut alert.instance] {
            *field = evil.to_owned();
        }
        email.send(&notification).await.unwrap();
        let mails = server.mails();
        let mail = mails.last().unwrap();
        assert_eq!(mail["to"], json!([OPS]));
        let headers = mail["headers"].as_array().unwrap();
        names.push(headers.iter().map(|header| header[0].clone()).collect::<Vec<_>>());
        let subject = header(mail, "Subject").unwrap();
        assert!(subject.starts_with("[FIRING High] ") && !subject.contains(char::is_control), "{subject:?}");
        let raw = mail["raw"].as_str().unwrap();
        assert!(!raw.replace("\r\n", "").contains(char::is_control), "{raw:?}");
    }
    assert!(names.iter().all(|other| *other == names[0]), "{names:?}");
    assert_eq!(names.len(), server.mails().len());
}

#[tokio::test]
async fn overlong_title_is_cut_in_the_subject() {
    let server = SmtpServer::start(&SmtpSettings::default());
    let mut notification = firing();
    notification.alert.title = "ü".repeat(10_000);
    notification.alert.message = "x".repeat(10_000);
    Email::new(&plain(&server), FROM, OPS).unwrap().send(&notification).await.unwrap();
    let mails = server.mails();
    assert_eq!(header(&mails[0], "Subject"), Some(format!("[FIRING High] {}", "ü".repeat(200)).as_str()));
    assert!(mails[0]["text"].as_str().unwrap().starts_with(&notification.alert.message));
}

#[tokio::test]
async fn mail_is_encrypted_and_the_login_sent() {
    for (tls, scheme, host, query) in
        [(SmtpTls::Tls, "smtps", "localhost", ""), (SmtpTls::StartTls, "smtp", "127.0.0.1", "?tls=required")]
    {
        let server = SmtpServer::start(&SmtpSettings { tls, login: Some(LOGIN), ..SmtpSettings::default() });
        let url = format!("{scheme}://{LOGIN_IN_URL}@{host}:{}{query}", server.port());
        let email = Email::new(&url, FROM, OPS).unwrap();
        assert!(!format!("{email:?}").contains("canary"), "{email:?}");

        let reason = temporary(&email, &firing()).await;
        assert!(reason.contains("certificate"), "the authority is unknown: {reason}");
        let email = email.root_certificate(fs::read(server.ca()).unwrap()).unwrap();
        email.send(&firing()).await.unwrap();
        let [mail] = &server.mails()[..] else { panic!("one mail") };
        assert_eq!((&mail["encrypted"], &mail["login"]), (&json!(true), &json!(LOGIN.0)));
    }
}

#[tokio::test]
async fn without_starttls_nothing_is_sent() {
    let server = SmtpServer::start(&SmtpSettings::default());
    let url = format!("smtp://{LOGIN_IN_URL}@127.0.0.1:{}?tls=required", server.port());
    let reason = temporary(&Email::new(&url, FROM, OPS).unwrap(), &firing()).await;
    assert!(reason.contains("does not offer STARTTLS") && !reason.contains("canary"), "{reason}");
    assert_eq!(server.mails(), [] as [Value; 0]);
}

#[tokio::test]
async fn wrong_password_is_permanent_and_secret() {
    let server = SmtpServer::start(&SmtpSettings { login: Some(LOGIN), ..SmtpSettings::default() });
    let url = format!("smtp://user%40example.com:canary-2@127.0.0.1:{}", server.port());
    let email = Email::new(&url, FROM, OPS).unwrap();
    let reason = permanent(&email, &firing()).await;
    assert_eq!(reason, "the login failed: 535 5.7.8");
    assert!(!format!("{email:?}").contains("canary"), "{email:?}");

    let without = Email::new(&plain(&server), FROM, OPS).unwrap();
    let reason = permanent(&without, &firing()).await;
    assert!(reason.starts_with("the mail is not accepted: 530 "), "{reason}");
    assert_eq!(server.mails(), [] as [Value; 0]);
}

#[tokio::test]
async fn refused_recipient_does_not_keep_the_others_from_their_mail() {
    let gone = "gone@example.com";
    let server = SmtpServer::start(&SmtpSettings { refuse: &[gone], ..SmtpSettings::default() });
    let email = Email::new(&plain(&server), FROM, &format!("{gone}, {OPS}")).unwrap();
    let expected = "recipient gone@example.com is refused: 550 5.1.1 no such mailbox";
    assert_eq!(permanent(&email, &firing()).await, expected);
    let [mail] = &server.mails()[..] else { panic!("one mail") };
    assert_eq!(mail["to"], json!([OPS]));

    let alone = Email::new(&plain(&server), FROM, gone).unwrap();
    assert_eq!(permanent(&alone, &firing()).await, expected);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn retry_reaches_only_recipients_without_the_mail() {
    let (late, gone) = ("late@example.com", "gone@example.com");
    let settings = SmtpSettings { refuse: &[gone], greylist: &[late], ..SmtpSettings::default() };
    let server = SmtpServer::start(&settings);
    let email = Email::new(&plain(&server), FROM, &format!("{OPS}, {late}, {gone}")).unwrap();
    let notification = firing();
    let reason = temporary(&email, &notification).await;
    assert!(reason.contains("recipient late@example.com is refused: 451 4.7.1 greylisted"), "{reason}");
    // The retry ends with the refusal that no retry can change.
    assert!(permanent(&email, &notification).await.starts_with("recipient gone@example.com is refused"));

    let mails = server.mails();
    let to: Vec<_> = mails.iter().map(|mail| &mail["to"]).collect();
    assert_eq!(to, [&json!([OPS]), &json!([late])]);
    assert_eq!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));
}

#[tokio::test]
async fn greylisted_mail_is_accepted_once() {
    let server = SmtpServer::start(&SmtpSettings { greylist: &[OPS], ..SmtpSettings::default() });
    let email = Email::new(&plain(&server), FROM, OPS).unwrap();
    let notification = firing();
    temporary(&email, &notification).await;
    assert_eq!(server.mails(), [] as [Value; 0]);
    email.send(&notification).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn unreachable_server_is_temporary() {
    // A bound port that does not listen.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let email = Email::new(&format!("smtp://u:canary@127.0.0.1:{port}"), FROM, OPS).unwrap();
    let reason = temporary(&email, &firing()).await;
    assert!(reason.starts_with(&format!("cannot connect to smtp://127.0.0.1:{port}: Connection refused")), "{reason}");
}

#[tokio::test]
async fn silent_server_is_temporary() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let email = Email::new(&format!("smtp://127.0.0.1:{port}"), FROM, OPS).unwrap();
    let sending = tokio::spawn(async move { temporary(&email, &firing()).await });
    let (mut connection, _) = listener.accept().await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(sending.await.unwrap(), format!("no answer from smtp://127.0.0.1:{port} within 8 s"));
    assert_eq!(connection.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn accepted_mail_is_sent_even_if_the_server_stops_answering() {
    let server = SmtpServer::start(&SmtpSettings { silent_quit: true, ..SmtpSettings::default() });
    Email::new(&plain(&server), FROM, OPS).unwrap().send(&firing()).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[test]
fn invalid_root_certificate_is_named() {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (url, pem, reason) in [
        ("smtp://localhost", pem, "the SMTP URL has no TLS"),
        ("smtps://localhost", "", "expected a CERTIFICATE in PEM"),
        ("smtps://localhost", pem, "expected a CERTIFICATE in PEM"),
        ("smtps://localhost", "-----BEGIN CERTIFICATE-----\nAAAA", "expected a CERTIFICATE in PEM"),
    ] {
        let error = Email::new(url, FROM, OPS).unwrap().root_certificate(pem).unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid root certificate: {reason}")), "{error}");
    }
}
