//! A handler that owns its dependencies, and a function that decides which of its errors are retryable.
//!
//! `Welcome` holds the templates and the mailer, each behind an `Arc`, so that the rest of the application shares them:
//! `GET /api/outbox` shows the mails that the handler sent. The mailer's errors do not depend on this library; `classify`
//! sorts them. Callers see only a code for errors passed on with `?`, and the detail of `JobError::permanent`.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin dependencies
//! listening on http://127.0.0.1:8080
//! ```
//!
//! `Prefer: wait=5` delays the answer until the job has ended. The second job is retried after a temporary refusal by the
//! mail host. The third and the fourth fail at once:
//!
//! ```console
//! $ welcome() { curl -s localhost:8080/api/welcome -H 'Content-Type: application/json' -H 'Prefer: wait=5' -d "$1"; }
//! $ welcome '{"address": "ada@example.com", "language": "de"}' | jq -c '{status, attempt, result}'
//! {"status":"Completed","attempt":1,"result":{"subject":"Willkommen!"}}
//! $ welcome '{"address": "bob@host.slow", "language": "en"}' | jq -c '{status, attempt, result}'
//! {"status":"Completed","attempt":2,"result":{"subject":"Welcome!"}}
//! $ welcome '{"address": "nowhere", "language": "en"}' | jq -c '{status, attempt, error: .error | {code, detail}}'
//! {"status":"Failed","attempt":1,"error":{"code":"HANDLER_ERROR","detail":null}}
//! $ welcome '{"address": "ada@example.com", "language": "tlh"}' | jq -c '{status, attempt, error: .error | {code, detail}}'
//! {"status":"Failed","attempt":1,"error":{"code":"NO_TEMPLATE","detail":"There is no welcome in the language \"tlh\"."}}
//! $ curl -s localhost:8080/api/outbox
//! ada@example.com: Willkommen!
//! bob@host.slow: Welcome!
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_endpoints::{
    AsyncEndpoints, Classification, Endpoint, JobContext, JobError, JobHandler, JobType, MemoryStore, async_trait,
};
use axum::{Router, routing::get};

#[derive(serde::Deserialize)]
struct Signup {
    address: String,
    language: String,
}

#[derive(Debug, PartialEq, serde::Serialize)]
struct Sent {
    subject: String,
}

const WELCOME: JobType<Signup, Sent> = JobType::new("Welcome");

/// The handler with its dependencies.
struct Welcome {
    templates: Arc<Templates>,
    mailer: Arc<dyn Mailer>,
}

impl JobHandler<Signup, Sent> for Welcome {
    async fn run(&self, ctx: JobContext<Signup>) -> Result<Sent, JobError> {
        let Signup { address, language } = ctx.request();
        let Some(subject) = self.templates.subject(language) else {
            let detail = format!("There is no welcome in the language {language:?}.");
            return Err(JobError::permanent("NO_TEMPLATE", detail).status(422));
        };
        // A job can run again after a crash. The key lets the mailer recognize the repeated mail.
        self.mailer.send(&ctx.job_id().to_string(), address, &subject).await?;
        Ok(Sent { subject })
    }
}

/// Decides which errors are permanent. Unknown errors are retryable.
fn classify(error: &(dyn std::error::Error + 'static)) -> Classification {
    match error.downcast_ref() {
        Some(MailError::NoSuchAddress(_)) => Classification::Permanent,
        Some(MailError::Greylisted(wait)) => Classification::RetryAfter(*wait),
        None => Classification::Retryable,
    }
}

struct Templates(HashMap<&'static str, &'static str>);

impl Templates {
    fn subject(&self, language: &str) -> Option<String> {
        self.0.get(language).map(|&text| text.to_owned())
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self(HashMap::from([("en", "Welcome!"), ("de", "Willkommen!")]))
    }
}

/// Sends mail: a provider's client in production, the [`Outbox`] here and in tests.
#[async_trait]
trait Mailer: Send + Sync {
    /// Idempotent: sends one mail for each key.
    async fn send(&self, key: &str, address: &str, subject: &str) -> Result<(), MailError>;
}

#[derive(Debug, thiserror::Error)]
enum MailError {
    #[error("invalid address {0:?}: expected user@host")]
    NoSuchAddress(String),
    #[error("the host asks to retry in {0:?}")]
    Greylisted(Duration),
}

/// Keeps mails in memory. Hosts under `.slow` refuse each mail once, as greylisting mail hosts do.
#[derive(Default)]
struct Outbox(Mutex<Mails>);

#[derive(Default)]
struct Mails {
    greylisted: HashSet<String>,
    keys: HashSet<String>,
    sent: Vec<String>,
}

impl Outbox {
    fn sent(&self) -> Vec<String> {
        self.mails().sent.clone()
    }

    fn mails(&self) -> MutexGuard<'_, Mails> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mailer for Outbox {
    async fn send(&self, key: &str, address: &str, subject: &str) -> Result<(), MailError> {
        let Some((_, host)) = address.split_once('@') else {
            return Err(MailError::NoSuchAddress(address.to_owned()));
        };
        let mut mails = self.mails();
        if host.ends_with(".slow") && mails.greylisted.insert(key.to_owned()) {
            return Err(MailError::Greylisted(Duration::from_millis(500)));
        }
        if mails.keys.insert(key.to_owned()) {
            mails.sent.push(format!("{address}: {subject}\n"));
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let outbox = Arc::new(Outbox::default());
    let welcome = Welcome { templates: Arc::default(), mailer: outbox.clone() };
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .endpoint(Endpoint::post("/api/welcome", WELCOME))
        .handler(WELCOME, welcome.classify(classify))
        .build()?;
    let app = Router::new()
        .route("/api/outbox", get(async move || outbox.sent().concat()))
        .merge(endpoints.submit_routes())
        .merge(endpoints.job_routes());
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signup(address: &str, language: &str) -> JobContext<Signup> {
        JobContext::for_test(Signup { address: address.to_owned(), language: language.to_owned() })
    }

    /// The handler with its classification, as the service runs it.
    fn welcome(outbox: &Arc<Outbox>) -> impl JobHandler<Signup, Sent> {
        Welcome { templates: Arc::default(), mailer: outbox.clone() }.classify(classify)
    }

    #[tokio::test]
    async fn welcome_is_sent_in_the_language_of_the_signup() {
        let outbox = Arc::default();
        let sent = welcome(&outbox).run(signup("ada@example.com", "de")).await.unwrap();
        assert_eq!(sent, Sent { subject: "Willkommen!".to_owned() });
        assert_eq!(outbox.sent(), ["ada@example.com: Willkommen!\n"]);
    }

    #[tokio::test]
    async fn unknown_address_or_language_is_permanent() {
        for (address, language, retryable) in
            [("nowhere", "en", false), ("ada@example.com", "tlh", false), ("ada@host.slow", "en", true)]
        {
            let outbox = Arc::default();
            let error = welcome(&outbox).run(signup(address, language)).await.unwrap_err();
            assert_eq!(error.is_retryable(), retryable, "{address} {language}: {error}");
            assert!(outbox.sent().is_empty());
        }
    }
}
