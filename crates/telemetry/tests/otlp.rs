//! OTLP over HTTP of all signals, to collectors that answer, hang, refuse or do not exist.

#![allow(clippy::disallowed_macros, reason = "tests of a telemetry crate may log")]
#![cfg(feature = "otlp")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, LazyLock, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use async_endpoints_telemetry::{
    Format, Otlp, Telemetry, TelemetryError,
    opentelemetry::{
        Context,
        trace::{SpanBuilder, TraceContextExt},
    },
};
use tracing_subscriber::layer::SubscriberExt;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n";

/// A collector. Without an answer it hangs.
struct Collector {
    url: String,
    requests: Receiver<(String, Vec<u8>)>,
}

impl Collector {
    fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || serve(&stream, answer, &sender));
            }
        });
        Self { url, requests }
    }

    /// The bodies of all requests with this path.
    fn bodies(&self) -> impl Fn(&str) -> Vec<u8> + use<> {
        let requests: Vec<_> = self.requests.try_iter().collect();
        move |path| requests.iter().filter(|(to, _)| to == path).flat_map(|(_, body)| body.clone()).collect()
    }
}

fn serve(stream: &TcpStream, answer: Option<&str>, requests: &Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = vec![String::new()];
        reader.read_line(&mut head[0]).ok().filter(|read| *read > 0)?;
        while head.last()? != "\r\n" {
            head.push(String::new());
            reader.read_line(head.last_mut()?).ok()?;
        }
        let length =
            head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length?];
        reader.read_exact(&mut body).ok()?;
        requests.send((head[0].split(' ').nth(1)?.to_owned(), body)).ok()?;
        match answer {
            Some(answer) => (&*stream).write_all(answer.as_bytes()).ok()?,
            None => thread::sleep(Duration::from_secs(60)),
        }
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

fn telemetry(url: impl Into<String>) -> Telemetry {
    LazyLock::force(&LINES);
    let otlp = Otlp::http(url).interval(Duration::from_secs(3600));
    Telemetry::builder().service_name("reports").otlp(otlp).build().expect("telemetry")
}

fn record_spans(telemetry: &Telemetry, count: usize) {
    for _ in 0..count {
        let span = || SpanBuilder::from_name("render");
        telemetry.tracing().start(&Context::new(), &[], span).span().end();
    }
}

fn record_logs(telemetry: &Telemetry, count: usize) {
    let subscriber = tracing_subscriber::registry().with(telemetry.layer());
    tracing::subscriber::with_default(subscriber, || (0..count).for_each(|page| tracing::info!(page, "page rendered")));
}

/// The lines that this process logs.
static LINES: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let lines: Arc<Mutex<Vec<u8>>> = Arc::default();
    let lines_of_all = lines.clone();
    let writer = move || Lines(lines_of_all.clone());
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN).with_writer(writer);
    subscriber.init();
    lines
});

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(line)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines about a collector, and the number of lost items of each signal by its path.
fn losses(url: &str) -> (Vec<String>, Vec<(String, u64)>) {
    let text = String::from_utf8(LINES.lock().expect("no panic").clone()).expect("text");
    let about: Vec<String> = text.lines().filter(|line| line.contains(url)).map(str::to_owned).collect();
    let loss = |line: &String| {
        let path = line.split_once(url)?.1.split_once('"')?.0.to_owned();
        let lost = line.split_once(" were not exported before the end")?.1.split_once("lost=")?.1;
        Some((path, lost.split(' ').next()?.parse().ok()?))
    };
    let mut losses: Vec<_> = about.iter().filter_map(loss).collect();
    losses.sort();
    (about, losses)
}

fn loss(path: &str, lost: u64) -> (String, u64) {
    (path.to_owned(), lost)
}

/// Shuts telemetry down within a second, and returns its last metrics.
async fn end_in_time(telemetry: &Telemetry) -> String {
    let began = Instant::now();
    telemetry.shutdown(Duration::from_secs(1)).await;
    assert!(began.elapsed() < Duration::from_secs(8), "shutdown took {:?}", began.elapsed());
    telemetry.exposition(Format::Text).unwrap_or_default()
}

/// The value of a counter of spans.
fn spans(page: &str, counter: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("otel_sdk_{counter} ")));
    line.unwrap_or_else(|| panic!("no {counter} in\n{page}")).parse().expect("a number")
}

#[tokio::test]
async fn shutdown_exports_all_signals() {
    let collector = Collector::start(Some(OK));
    let telemetry = telemetry(&*collector.url);
    assert!(telemetry.has_exposition() && telemetry.has_other_readers());
    telemetry.meter("test").u64_counter("pages.printed").build().add(7, &[]);
    let subscriber = tracing_subscriber::registry().with(telemetry.layer());
    tracing::subscriber::with_default(subscriber, || {
        let context = telemetry.tracing().start(&Context::new(), &[], || SpanBuilder::from_name("process Report"));
        let _attached = context.attach();
        let job = tracing::error_span!(target: "async_endpoints::scope", "job", job_id = "j-17", user_id = "u-1");
        let _job = job.entered();
        let _render = tracing::info_span!("render page", api_token = "canary", page = 7).entered();
        tracing::info!(event = "page.rendered", password = "canary", "page rendered");
        tracing::debug!("not at this level");
        tracing::error!(target: "hyper::client", "connection lost");
    });
    telemetry.shutdown(Duration::from_secs(30)).await;
    let body = collector.bodies();
    let (traces, logs, metrics) = (body("/v1/traces"), body("/v1/logs"), body("/v1/metrics"));
    for exported in ["process Report", "render page", "api_token", "reports"] {
        assert!(contains(&traces, exported), "no {exported} in traces");
    }
    for hidden in ["j-17", "canary", "page rendered"] {
        assert!(!contains(&traces, hidden), "{hidden} in traces");
    }
    for exported in ["page rendered", "page.rendered", "j-17", "reports"] {
        assert!(contains(&logs, exported), "no {exported} in logs");
    }
    for hidden in ["u-1", "canary", "not at this level", "connection lost"] {
        assert!(!contains(&logs, hidden), "{hidden} in logs");
    }
    assert!(contains(&metrics, "pages.printed"));
    assert_eq!(losses(&collector.url), (vec![], vec![]));
}

#[tokio::test]
async fn export_without_time_limit_succeeds() {
    let collector = Collector::start(Some(OK));
    let otlp = Otlp::http(&*collector.url).timeout(Duration::MAX);
    let telemetry = Telemetry::builder().otlp(otlp).build().expect("telemetry");
    record_spans(&telemetry, 1);
    telemetry.shutdown(Duration::from_secs(30)).await;
    let body = collector.bodies();
    assert!(contains(&body("/v1/traces"), "render") && !body("/v1/metrics").is_empty());
}

#[tokio::test]
async fn dead_collector_loses_counted_items_at_the_end() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let url = format!("http://{port}");
    let telemetry = telemetry(&*url);
    record_spans(&telemetry, 3);
    record_logs(&telemetry, 2);
    end_in_time(&telemetry).await;
    let (lines, losses) = losses(&url);
    assert_eq!(losses, [loss("/v1/logs", 2), loss("/v1/metrics", 1), loss("/v1/traces", 3)]);
    assert_eq!(lines.len(), 3, "one line per signal: {lines:#?}");
    assert!(lines.iter().all(|line| line.contains("Connection refused")), "{lines:#?}");
}

#[tokio::test]
async fn hanging_collector_drops_counted_spans() {
    let collector = Collector::start(None);
    let telemetry = telemetry(&*collector.url);
    record_spans(&telemetry, 10_000);
    let page = telemetry.exposition(Format::Text).expect("a page");
    let dropped = spans(&page, "processor_span_processed_total{error_type=\"queue_full\"}");
    assert!((10_000 - 2_048 - 512..=10_000 - 2_048).contains(&dropped), "{dropped}");
    record_logs(&telemetry, 2);
    end_in_time(&telemetry).await;
    let (_, losses) = losses(&collector.url);
    assert_eq!(losses, [loss("/v1/logs", 2), loss("/v1/metrics", 1), loss("/v1/traces", 10_000 - dropped)]);
}

#[tokio::test]
async fn busy_collector_loses_counted_spans_at_the_end() {
    let collector = Collector::start(Some(BUSY));
    let telemetry = telemetry(&*collector.url);
    // A full batch, which is exported at once.
    record_spans(&telemetry, 512);
    collector.requests.recv_timeout(Duration::from_secs(30)).expect("a request");
    let failed = "exporter_span_exported_total{error_type=\"_OTHER\"}";
    let page = || telemetry.exposition(Format::Text).expect("a page");
    let deadline = Instant::now() + Duration::from_secs(30);
    while spans(&page(), failed) < 512 {
        assert!(Instant::now() < deadline, "the failure is not counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    record_spans(&telemetry, 10);
    end_in_time(&telemetry).await;
    let (lines, losses) = losses(&collector.url);
    // The first failure has its own line, and does not count as a loss at the end.
    assert_eq!(losses, [loss("/v1/metrics", 1), loss("/v1/traces", 10)]);
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[tokio::test]
async fn telemetry_may_be_dropped_in_async_code() {
    let telemetry = telemetry(Collector::start(Some(OK)).url);
    record_spans(&telemetry, 1);
    drop(telemetry);
}

#[tokio::test]
async fn invalid_endpoint_is_an_exporter_error() {
    let error = Telemetry::builder().otlp(Otlp::http("http://not a url")).build().expect_err("no endpoint");
    assert!(matches!(&error, TelemetryError::Exporter { endpoint, .. } if endpoint.contains("not a url")), "{error}");
}

#[test]
fn query_of_a_common_endpoint_is_refused() {
    let error = Telemetry::builder().otlp(Otlp::http("http://c?key=7")).build().expect_err("a query");
    assert!(matches!(error, TelemetryError::Setting { .. }), "{error}");
}
