//! A receiver of webhooks on a free port of 127.0.0.1. It keeps each delivery and answers 200.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use axum::{Router, http::HeaderMap};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, sync::watch, task::JoinHandle};

use super::in_time;

/// A request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Delivery {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The header of this name, in lower case.
    pub(crate) fn header(&self, name: &str) -> &str {
        &self.headers[name]
    }
}

/// A running receiver.
pub(crate) struct Hook {
    url: String,
    received: watch::Sender<Vec<Delivery>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Hook {
    pub(crate) async fn start() -> Self {
        let received = watch::Sender::new(Vec::new());
        let keeping = received.clone();
        let app = Router::new().fallback(async move |headers: HeaderMap, body: String| {
            let headers = headers.iter().map(|(name, value)| {
                (name.to_string(), value.to_str().expect("headers of this receiver's senders are text").to_owned())
            });
            let delivery = Delivery { headers: headers.collect(), body };
            keeping.send_modify(|received| received.push(delivery));
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        Self { url, received, serving: tokio::spawn(async move { axum::serve(listener, app).await }) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The deliveries so far, in their order.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.received.borrow().clone()
    }

    /// Waits until the deliveries fulfil the condition. Returns all.
    pub(crate) async fn when(&self, what: &str, condition: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        let mut received = self.received.subscribe();
        let found = in_time(what, received.wait_for(|received| condition(received))).await;
        found.expect("this receiver runs").clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Checks the signature of each delivery, and that forgeries are refused, with the Python library of Standard Webhooks.
pub(crate) async fn verify(secret: &str, deliveries: &[Delivery]) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/webhooks/bin/python");
    assert!(python.exists(), "standardwebhooks is not installed: run `cargo xtask test`");
    let mut command = Command::new(python);
    command.args(["-c", include_str!("verify.py")]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("Python starts");
    let input = json!({ "secret": secret, "deliveries": deliveries }).to_string();
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).await.expect("a reader");
    let done = in_time("the end of Python", child.wait_with_output()).await.expect("an exit");
    let [out, err] = [done.stdout, done.stderr].map(|output| String::from_utf8_lossy(&output).into_owned());
    let expected =
        format!("{} deliveries are genuine, {} forgeries are refused\n", deliveries.len(), 4 * deliveries.len());
    assert_eq!(out, expected, "{err}");
}
