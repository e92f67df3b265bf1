//! The text of a mail.

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart, header,
        header::{HeaderName, HeaderValue},
    },
};
use uuid::Uuid;

use super::super::super::{
    alert::{Alert, AlertStatus},
    sender::Notification,
};

/// Maximum length of a title in a subject, in characters.
const MAX_TITLE: usize = 200;

/// A mail, as it is sent.
///
/// The first notification of an alert has the alert's id. So the `Message-ID` of the first mail follows from each later
/// notification, which refers to it.
pub(super) fn compose(
    notification: &Notification,
    from: &Mailbox,
    to: &[Mailbox],
) -> Result<Vec<u8>, lettre::error::Error> {
    let Notification { id, alert } = notification;
    let message_id = |id: Uuid| format!("<{id}@{}>", from.email.domain());
    let mut builder = Message::builder()
        .from(from.clone())
        .mailbox(header::To::from(to.iter().cloned().collect::<lettre::message::Mailboxes>()))
        .subject(subject(alert))
        .message_id(Some(message_id(*id)))
        // Asks for no automatic answers (RFC 3834).
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
    if *id != alert.id {
        builder = builder.in_reply_to(message_id(alert.id)).references(message_id(alert.id));
    }
    Ok(builder.multipart(MultiPart::alternative_plain_html(text(alert), html(alert)))?.formatted())
}

fn subject(alert: &Alert) -> String {
    let title: String = printable(&alert.title).replace(['\n', '\t'], " ").chars().take(MAX_TITLE).collect();
    match alert.status {
        AlertStatus::Firing => format!("[FIRING {}] {title}", alert.severity),
        AlertStatus::Resolved => format!("[RESOLVED] {title}"),
    }
}

fn text(alert: &Alert) -> String {
    let facts: String = facts(alert).iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("{}\n\n{facts}", printable(&alert.message))
}

fn html(alert: &Alert) -> String {
    let row =
        |(name, value): &(&str, String)| format!("<tr><th align=\"left\">{name}</th><td>{}</td></tr>\n", escape(value));
    let facts: String = facts(alert).iter().map(row).collect();
    let (title, message) = (escape(&alert.title), escape(&alert.message));
    format!(
        "<!DOCTYPE html>\n<html><body>\n<h2>{title}</h2>\n<p style=\"white-space: pre-line\">{message}</p>\n\
         <table>\n{facts}</table>\n</body></html>\n"
    )
}

/// Name and value of what both parts show below the message.
fn facts(alert: &Alert) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Status", alert.status.as_str().to_owned()),
        ("Severity", alert.severity.to_string()),
        ("Rule", printable(&alert.rule)),
        ("Since", alert.starts_at.to_string()),
    ];
    facts.extend(alert.ends_at.map(|at| ("Until", at.to_string())));
    facts.extend([
        ("Service", printable(&alert.service)),
        ("Evaluated by", printable(&alert.instance)),
        ("Alert", alert.id.to_string()),
    ]);
    facts
}

/// The text with spaces in place of control characters other than line feeds and tabs.
fn printable(text: &str) -> String {
    let keep = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().map(|c| if keep(c) { c } else { ' ' }).collect()
}

/// The printable text for an element of HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}
