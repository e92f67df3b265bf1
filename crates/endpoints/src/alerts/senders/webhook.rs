//! Signed requests, as the [Standard Webhooks](https://www.standardwebhooks.com) specify them.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use async_endpoints_core::Timestamp;
use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::json;
use sha2::Sha256;

use super::{SettingError, http::Target};
use crate::alerts::{
    alert::{Alert, AlertStatus},
    sender::{AlertSender, Notification, SendError},
};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Posts each notification as signed JSON, according to [Standard Webhooks](https://www.standardwebhooks.com).
///
/// The body is `{"type": "alert.firing" or "alert.resolved", "timestamp": …, "data": alert}`. The header `webhook-id` is the
/// id of the notification, the same over retries. Receivers check the signature with a library of Standard Webhooks.
///
/// Redirects are not followed, and no proxy is used. A user name and password in the URL are sent as basic authentication.
///
/// ```no_run
/// # use async_endpoints::alerts::Webhook;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sender = Webhook::new("https://hooks.example.com/alerts", &std::env::var("WEBHOOK_SECRET")?)?;
/// # Ok(()) }
/// ```
pub struct Webhook {
    target: Target,
    key: Key,
}

impl Webhook {
    /// A sender to this URL. The secret is `whsec_` followed by the base64 of 24 to 64 random bytes.
    ///
    /// # Errors
    ///
    /// The URL or the secret is invalid, or the system has no certificate authorities for `https`.
    pub fn new(url: &str, secret: &str) -> Result<Self, SettingError> {
        Ok(Self { target: Target::new(url, "")?, key: Key::new(secret)? })
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhook").field(&self.target).finish()
    }
}

#[async_trait]
impl AlertSender for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let body = json!(Event::of(&notification.alert)).to_string().into_bytes();
        let (id, now) = (notification.id.to_string(), SystemTime::now());
        let time = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let signature = self.key.sign(&id, &time, &body);
        let headers = [(ID, id), (TIMESTAMP, time), (SIGNATURE, signature)];
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)));
        self.target.post(HeaderMap::from_iter(headers), body).await
    }
}

/// The body of a request.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: &'a Alert,
}

impl<'a> Event<'a> {
    fn of(alert: &'a Alert) -> Self {
        let (r#type, timestamp) = match alert.status {
            AlertStatus::Firing => ("alert.firing", alert.starts_at),
            AlertStatus::Resolved => ("alert.resolved", alert.ends_at.unwrap_or(alert.starts_at)),
        };
        Self { r#type, timestamp, data: alert }
    }
}

/// The key of signatures.
struct Key(Hmac<Sha256>);

impl Key {
    fn new(secret: &str) -> Result<Self, SettingError> {
        let invalid = |found: &dyn fmt::Display| SettingError {
            setting: "webhook secret",
            value: None,
            reason: format!("{found}: expected whsec_ and the base64 of 24 to 64 bytes"),
        };
        let encoded = secret.strip_prefix("whsec_").ok_or_else(|| invalid(&"it does not start with whsec_"))?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| invalid(&"the rest is not base64 with padding"))?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(invalid(&format_args!("it has {} bytes", bytes.len())));
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|error| invalid(&error))
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published with the JavaScript and the Rust library of Standard Webhooks.
    #[test]
    fn signatures_are_those_of_the_published_vectors() {
        for (secret, id, timestamp, body, signature) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "1614265330",
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                "1649367553",
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            let key = Key::new(secret).unwrap();
            assert_eq!(key.sign(id, timestamp, body.as_bytes()), signature);
        }
    }

    #[test]
    fn secret_of_24_to_64_bytes_is_accepted() {
        for (length, accepted) in [(0, false), (23, false), (24, true), (32, true), (64, true), (65, false)] {
            let secret = format!("whsec_{}", BASE64_STANDARD.encode(vec![7; length]));
            assert_eq!(Key::new(&secret).is_ok(), accepted, "{length}");
        }
    }

    #[test]
    fn invalid_secret_is_rejected_without_showing_it() {
        for secret in ["", "canary", "whsec_canary", "whsec_ca-na_ry", "WHSEC_canary", "whsec_canarycanary"] {
            let Err(error) = Key::new(secret) else { panic!("{secret}") };
            assert!(
                error.to_string().starts_with("invalid webhook secret: ") && !error.to_string().contains("anary"),
                "{error}"
            );
        }
    }
}
