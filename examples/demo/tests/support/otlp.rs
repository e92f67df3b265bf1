//! OTLP receivers of other projects: `oteltap` prints each span, log record and metric as JSON, without the resource. `rotel`
//! takes gRPC as well, and prints the resource and all fields as text.

use std::collections::BTreeMap;

use async_endpoints_testkit::server::free_port;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    Folder,
    peer::{Peer, python},
    until,
};

/// Values by key, as plain JSON.
pub(crate) type Attributes = BTreeMap<String, Value>;

/// Kinds of spans, as in OTLP.
pub(crate) const INTERNAL: u8 = 1;
pub(crate) const SERVER: u8 = 2;
pub(crate) const CLIENT: u8 = 3;
pub(crate) const PRODUCER: u8 = 4;
pub(crate) const CONSUMER: u8 = 5;

/// Status codes of spans, as in OTLP.
pub(crate) const UNSET: u8 = 0;
pub(crate) const ERROR: u8 = 2;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Span {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    /// Empty for a root span.
    pub(crate) parent_span_id: String,
    pub(crate) trace_state: String,
    pub(crate) name: String,
    pub(crate) kind: u8,
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: Attributes,
    pub(crate) events: Vec<Event>,
    pub(crate) links: Vec<Link>,
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Event {
    pub(crate) name: String,
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: Attributes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Link {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: Attributes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) code: u8,
    pub(crate) message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) severity_text: String,
    pub(crate) event_name: String,
    #[serde(deserialize_with = "any")]
    pub(crate) body: Value,
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: Attributes,
}

impl Span {
    pub(crate) fn is_child_of(&self, parent: &Self) -> bool {
        self.trace_id == parent.trace_id && self.parent_span_id == parent.span_id
    }

    pub(crate) fn links_to(&self, other: &Self) -> bool {
        self.links.iter().any(|link| link.trace_id == other.trace_id && link.span_id == other.span_id)
    }

    /// The text of an attribute, or nothing.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.attributes.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The one span with this name.
///
/// # Panics
/// If there is none or more than one.
pub(crate) fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        (found, _) => {
            panic!("{} spans {name:?} in {spans:#?}", if found.is_some() { "several" } else { "no" })
        }
    }
}

fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Attributes, D::Error> {
    let list = Vec::<Value>::deserialize(deserializer)?;
    Ok(list
        .iter()
        .map(|entry| (entry["key"].as_str().unwrap_or_default().to_owned(), plain(&entry["value"])))
        .collect())
}

fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Ok(plain(&Value::deserialize(deserializer)?))
}

/// The plain form of a typed value such as `{"intValue":"5"}`.
fn plain(typed: &Value) -> Value {
    let Some((kind, value)) = typed.as_object().and_then(|typed| typed.iter().next()) else { return Value::Null };
    match (kind.as_str(), value.as_str()) {
        ("intValue", Some(digits)) => digits.parse::<i64>().map_or(Value::Null, Value::from),
        ("arrayValue", _) => value["values"].as_array().into_iter().flatten().map(plain).collect(),
        _ => value.clone(),
    }
}

/// A running `oteltap`.
pub(crate) struct Tap {
    peer: Peer,
    endpoint: String,
}

impl Tap {
    pub(crate) async fn start(folder: &Folder) -> Self {
        let port = free_port().to_string();
        let peer = Peer::start(folder, &python("oteltap"), "oteltap", &["--port", &port]);
        peer.wait_for_output("Listening").await;
        Self { peer, endpoint: format!("http://127.0.0.1:{port}") }
    }

    /// The base URL for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// All that was received, as printed.
    pub(crate) fn output(&self) -> String {
        self.peer.output()
    }

    /// The spans received so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.received("startTimeUnixNano")
    }

    /// The log records received so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.received("observedTimeUnixNano")
    }

    /// Waits for spans that fulfil the condition. Returns all.
    pub(crate) async fn spans_when(&self, what: &str, condition: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        until(what, || condition(&self.spans())).await;
        self.spans()
    }

    /// Waits for a metric.
    pub(crate) async fn receives_metric(&self, name: &str) {
        self.peer.wait_for_output(&format!("{{\"name\":\"{name}\"")).await;
    }

    /// Messages that have a field, which only one kind of message has. The last line may be incomplete.
    fn received<T: for<'de> Deserialize<'de>>(&self, field: &str) -> Vec<T> {
        let output = self.peer.output();
        let complete = output.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let messages = complete.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let wanted = messages.filter(|message| message.get(field).is_some());
        wanted.map(|message| serde_json::from_value(message).expect("an OTLP message")).collect()
    }
}

/// A running `rotel`.
pub(crate) struct Rotel {
    pub(crate) peer: Peer,
    /// Address for OTLP over gRPC.
    pub(crate) grpc: String,
    /// Address for OTLP over HTTP.
    pub(crate) http: String,
}

impl Rotel {
    /// Starts a collector that prints these signals: `traces`, `logs`, `metrics`.
    pub(crate) async fn start(folder: &Folder, signals: &[&str]) -> Self {
        let [grpc, http] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut args = vec!["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http];
        args.extend(["--exporter", "blackhole", "--debug-log-verbosity", "detailed"]);
        args.extend(signals.iter().flat_map(|signal| ["--debug-log", signal]));
        let peer = Peer::start(folder, &python("rotel-agent"), "rotel", &args);
        peer.wait_for_output("Starting Rotel").await;
        Self { peer, grpc, http }
    }
}
