//! Lines as an output receives them.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    sync::mpsc::{self, Sender},
    time::Duration,
};

use opentelemetry::{
    Context, TraceId,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState},
};
use serde_json::{Value, json};
use tracing::{error_span, info, info_span};
use tracing_subscriber::{Registry, layer::SubscriberExt};

use super::*;
use crate::{Format, LogWriter, SCOPE_TARGET, Telemetry};

const LIMIT: Duration = Duration::from_secs(30);

/// Sends each line to the test.
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.send(String::from_utf8(line.to_vec()).expect("UTF-8")).expect("a test that reads");
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that code logs to one output for each format and filter.
fn outputs<const N: usize>(outputs: [(LogFormat, &str); N], code: impl FnOnce()) -> [Vec<String>; N] {
    let mut logs = Logs::new();
    let written = outputs.map(|(format, filter)| {
        let (lines, written) = mpsc::channel();
        let output = LogOutput::writer(LogWriter::start(Lines(lines))).format(format).filter(filter);
        logs = std::mem::take(&mut logs).output(output);
        written
    });
    let (layers, writers) = logs.start::<Registry>("reports", Some("test")).expect("outputs");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), code);
    writers.flush_within(LIMIT);
    written.map(|lines| lines.try_iter().collect())
}

/// Lines as keys and values. Checks that each is one flat object with unique keys.
fn json_lines(code: impl FnOnce()) -> Vec<Value> {
    let [lines] = outputs([(LogFormat::Json, "trace")], code);
    lines.iter().map(|line| flat_object(line)).collect()
}

fn flat_object(line: &str) -> Value {
    let body = line.strip_suffix('\n').expect("a whole line");
    assert!(!body.chars().any(char::is_control), "{body:?}");
    let value: Value = serde_json::from_str(body).expect(body);
    let object = value.as_object().expect(body);
    assert!(object.values().all(|value| !value.is_object() && !value.is_array()), "{body}");
    // A parser keeps one of two equal keys.
    assert_eq!(keys(body).len(), object.len(), "{body}");
    value
}

/// The keys of a flat object, in order.
fn keys(body: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = body.strip_prefix('{').expect("an object");
    while !rest.is_empty() && rest != "}" {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        keys.push(values.next().expect("a key").expect("a key"));
        rest = rest[values.byte_offset()..].strip_prefix(':').expect("a value");
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        values.next().expect("a value").expect("a value");
        rest = rest[values.byte_offset()..].trim_start_matches(',');
    }
    keys
}

fn job_span() -> tracing::Span {
    error_span!(
        target: SCOPE_TARGET, "job", trace_id = "a1", span_id = "b2", job_id = "j-1", job_name = "Report",
        attempt = 2, worker_id = "w-1", request_id = "r-1",
    )
}

#[test]
fn line_has_fixed_correlation_and_own_fields() {
    let lines = json_lines(|| {
        let _job = job_span().entered();
        let _own = info_span!("render", page = 7).entered();
        info!(event = "job.started", queue_time_ms = 1.5, late = false, count = -3, big = u64::MAX, "job started");
    });
    let mut line = lines[0].clone();
    assert_eq!(lines.len(), 1);
    assert!(line["timestamp"].take().as_str().expect("text").ends_with('Z'));
    assert!(line["target"].take().as_str().expect("text").starts_with("async_endpoints_telemetry::logs"));
    let expected = json!({
        "timestamp": null, "target": null, "level": "INFO", "message": "job started", "service": "reports",
        "environment": "test", "trace_id": "a1", "span_id": "b2", "job_id": "j-1", "job_name": "Report", "attempt": 2,
        "worker_id": "w-1", "request_id": "r-1", "page": 7, "event": "job.started", "queue_time_ms": 1.5, "late": false,
        "count": -3, "big": u64::MAX,
    });
    assert_eq!(line, expected);
}

#[test]
fn order_of_keys_is_fixed() {
    let [lines] = outputs([(LogFormat::Json, "info")], || {
        let _own = info_span!("render", page = 7).entered();
        let _job = job_span().entered();
        info!(event = "job.started", "job started");
    });
    let order = "timestamp level message target service environment trace_id span_id job_id job_name attempt worker_id \
                 request_id page event";
    assert_eq!(keys(lines[0].trim_end()).join(" "), order);
}

#[test]
fn event_cannot_replace_a_key() {
    let lines = json_lines(|| {
        let _job = job_span().entered();
        let _own = info_span!("own", job_id = "forged", level = "forged").entered();
        info!(
            timestamp = 0,
            level = "forged",
            target = "forged",
            service = "forged",
            environment = "forged",
            trace_id = "forged",
            job_id = "forged",
            "true"
        );
    });
    let line = &lines[0];
    assert_eq!((&line["level"], &line["target"]), (&json!("INFO"), &json!(module_path!())));
    assert_eq!(
        [&line["service"], &line["environment"], &line["trace_id"], &line["job_id"]],
        ["reports", "test", "a1", "j-1"]
    );
    assert_eq!((&line["field_timestamp"], &line["field_trace_id"]), (&json!(0), &json!("forged")));
    assert_eq!([&line["field_job_id"], &line["field_field_job_id"]], ["forged", "forged"]);
    assert_eq!([&line["field_level"], &line["field_field_level"]], ["forged", "forged"]);
}

#[test]
fn repeated_value_is_left_out() {
    let lines = json_lines(|| {
        let _job = job_span().entered();
        info!(job_id = %"j-1", attempt = 2, request_id = "r-2", "handler");
    });
    let line = &lines[0];
    assert_eq!(
        (&line["job_id"], &line["attempt"], &line["field_request_id"]),
        (&json!("j-1"), &json!(2), &json!("r-2"))
    );
    assert_eq!((line.get("field_job_id"), line.get("field_attempt")), (None, None));
}

#[test]
fn innermost_span_counts() {
    let lines = json_lines(|| {
        let _outer = info_span!("outer", step = 1, outer = true).entered();
        let _request = error_span!(target: SCOPE_TARGET, "request", request_id = "r-0", user_id = "u").entered();
        let _job = job_span().entered();
        let inner = info_span!("inner", step = 2, late = tracing::field::Empty).entered();
        inner.record("late", "recorded");
        info!(step = 3, "done");
    });
    let line = &lines[0];
    assert_eq!((&line["request_id"], &line["user_id"]), (&json!("r-1"), &json!("u")));
    assert_eq!((&line["step"], &line["field_step"], &line["outer"]), (&json!(2), &json!(3), &json!(true)));
    assert_eq!(line["late"], "recorded");
}

#[test]
fn ids_of_the_current_trace_come_first() {
    let (trace, span) = (TraceId::from_bytes([10; 16]), SpanId::from_bytes([11; 8]));
    let lines = json_lines(|| {
        let _job = job_span().entered();
        let remote = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
        let _current = Context::new().with_remote_span_context(remote).attach();
        info!("inside");
    });
    assert_eq!([&lines[0]["trace_id"], &lines[0]["span_id"]], ["0a".repeat(16).as_str(), "0b".repeat(8).as_str()]);
    assert_eq!(lines[0]["job_id"], "j-1");
}

#[test]
fn hostile_text_stays_one_line() {
    let hostile = "a\"b\\\n\r\t\0\u{1b}[31mred\u{7f}\u{9b}2J\u{2028}\u{202e}\",\"level\":\"ERROR\"}\n{";
    let log = || {
        let _span = info_span!("own", hostile).entered();
        info!("field \"}\n" = 1, display = %hostile, debug = ?hostile, "{hostile}");
    };
    let lines = json_lines(log);
    let [pretty] = outputs([(LogFormat::Pretty, "info")], log);
    let line = &lines[0];
    assert_eq!(
        (lines.len(), &line["message"], &line["hostile"], &line["display"]),
        (1, &json!(hostile), &json!(hostile), &json!(hostile))
    );
    assert_eq!((&line["field \"}\n"], &line["debug"]), (&json!(1), &json!(format!("{hostile:?}"))));
    let text = pretty[0].strip_suffix('\n').expect("a whole line");
    assert!(pretty.len() == 1 && !text.chars().any(|char| char.is_control() || char == '\u{202e}'), "{text:?}");
}

#[test]
fn numbers_without_json_form_are_strings() {
    let lines = json_lines(|| info!(nan = f64::NAN, inf = f64::INFINITY, wide = u128::MAX, tiny = 1e-300));
    let line = &lines[0];
    assert_eq!((&line["message"], &line["nan"], &line["inf"]), (&json!(""), &json!("NaN"), &json!("inf")));
    assert!(line["wide"].is_number() && line["tiny"] == 1e-300, "{line}");
}

#[test]
fn long_value_is_cut() {
    let long = "é".repeat(10_000);
    let lines = json_lines(|| {
        let _span = info_span!("own", of_span = long).entered();
        info!(long, whole = %&long[..16_384], debug = ?long, "{long}");
    });
    for name in ["of_span", "long", "message", "debug"] {
        let text = lines[0][name].as_str().expect("text");
        assert!(text.len() < 16_384 + 32 && text.ends_with("é… [cut at 16384 bytes]"), "{name}: {} bytes", text.len());
    }
    assert_eq!(lines[0]["whole"], long[..16_384]);
}

#[test]
fn credentials_are_redacted() {
    let log = || {
        let span = info_span!("own", api_token = "canary", password = tracing::field::Empty).entered();
        span.record("password", "canary");
        info!(authorization = "canary", "set-cookie" = %"canary", secret = 7, user = "u", "text");
    };
    let [json, pretty] = outputs([(LogFormat::Json, "info"), (LogFormat::Pretty, "info")], log);
    for line in json.iter().chain(&pretty) {
        assert!(!line.contains("canary"), "{line}");
        assert_eq!(line.matches("\"[redacted]\"").count(), 5, "{line}");
    }
}

#[test]
fn sources_of_an_error_are_written() {
    let inner = io::Error::other("disk full");
    let error = io::Error::other(Outer(inner));
    let lines = json_lines(|| info!(error = &error as &dyn Error, "failed"));
    assert_eq!(lines[0]["error"], "cannot write: disk full");
}

#[derive(Debug)]
struct Outer(io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Logs, and panics if true, while its line is formatted.
struct Busy(bool);

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!("nested");
        assert!(!self.0, "a value panics");
        f.write_str("busy")
    }
}

#[test]
fn value_that_logs_or_panics_is_harmless() {
    let lines = json_lines(|| {
        let span = info_span!("own", late = tracing::field::Empty).entered();
        // This subscriber is not global, so that tracing discards lines that are logged inside other lines.
        span.record("late", tracing::field::display(Busy(false)));
        info!(value = %Busy(true), "lost");
        info!(value = %Busy(false), "outer");
    });
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().expect("text")).collect();
    assert_eq!(messages, ["nested", "outer"]);
    assert_eq!(lines[1]["value"], "busy");
}

#[test]
fn each_output_has_its_filter() {
    let [all, warnings, off] =
        outputs([(LogFormat::Json, "debug"), (LogFormat::Json, "warn"), (LogFormat::Pretty, "off")], || {
            let _job = job_span().entered();
            let _own = info_span!("own", page = 7).entered();
            tracing::debug!("detail");
            tracing::warn!("warning");
        });
    assert_eq!((all.len(), warnings.len(), off.len()), (2, 1, 0));
    let (of_all, of_warnings) = (flat_object(&all[1]), flat_object(&warnings[0]));
    assert_eq!((&of_all["page"], &of_all["job_id"]), (&json!(7), &json!("j-1")));
    // The filter of this output removes the span `own`, but never a scope.
    assert_eq!((of_warnings.get("page"), &of_warnings["job_id"]), (None, &json!("j-1")));
}

#[test]
fn pretty_line_shows_the_job_compactly() {
    let [lines] = outputs([(LogFormat::Pretty, "info")], || {
        let _request = error_span!(target: SCOPE_TARGET, "request", trace_id = "a", request_id = "r-0").entered();
        info!(bytes = 7, "received");
        let _job = job_span().entered();
        let _own = info_span!("own", page = 7).entered();
        tracing::warn!(path = "a b", "started");
    });
    let target = module_path!();
    assert_eq!(lines[0][27..], format!("  INFO {target}: received bytes=7 request_id=\"r-0\"\n"));
    assert_eq!(
        lines[1][27..],
        format!("  WARN {target}: started path=\"a b\" page=7 job_id=\"j-1\" job_name=\"Report\" attempt=2\n")
    );
}

#[test]
fn variables_choose_the_outputs() {
    let read = |vars: &[(&str, &str)]| {
        let vars: Vec<_> = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Logs::from_vars(|name| vars.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
            .map(|logs| format!("{logs:?}"))
            .map_err(|error| error.to_string())
    };
    let unset = read(&[]).expect("defaults");
    assert!(unset.contains("Stderr") && unset.contains("\"info\"") && !unset.contains("Daily"), "{unset}");
    assert_eq!(read(&[("RUST_LOG", " "), ("AE_LOG_FORMAT", ""), ("AE_LOG_DIR", "")]), Ok(unset));
    let set = read(&[("RUST_LOG", "warn,a=debug"), ("AE_LOG_FORMAT", "pretty"), ("AE_LOG_DIR", "logs")]).expect("set");
    assert!(set.contains("Pretty") && set.contains("warn,a=debug") && set.contains("\"logs\""), "{set}");
    let format = read(&[("AE_LOG_FORMAT", "xml")]);
    assert_eq!(format, Err("invalid AE_LOG_FORMAT \"xml\": expected pretty or json".to_owned()));
    let filter = read(&[("RUST_LOG", "info,a=b=c")]).expect_err("invalid");
    assert!(filter.starts_with("invalid RUST_LOG \"info,a=b=c\": expected a level"), "{filter}");
}

#[test]
fn daily_output_has_json_lines() {
    let folder = std::env::temp_dir().join(format!("async-endpoints-{}-output", std::process::id()));
    let logs = Logs::new().output(LogOutput::daily_files(&folder, 2));
    let (layers, writers) = logs.start::<Registry>("reports", None).expect("a file");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || info!("kept"));
    writers.flush_within(LIMIT);
    let files: Vec<_> =
        std::fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
    let line = flat_object(&std::fs::read_to_string(&files[0]).expect("a line"));
    std::fs::remove_dir_all(&folder).expect("removed");
    assert_eq!((files.len(), &line["message"], line.get("environment")), (1, &json!("kept"), None));
    let name = files[0].file_name().expect("a name").to_string_lossy();
    assert_eq!(name, format!("reports.{}.log", &line["timestamp"].as_str().expect("text")[..10]));
}

/// Writes after a signal.
struct Blocked(mpsc::Receiver<()>, Lines);

impl Write for Blocked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ended = self.0.recv();
        self.1.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn blocked_output_loses_lines_and_counts_them() {
    let (lines, written) = mpsc::channel();
    let (end, blocked) = mpsc::channel();
    let output = LogOutput::writer(LogWriter::start(Blocked(blocked, Lines(lines))));
    let (layers, writers) = Logs::new().output(output).start::<Registry>("reports", None).expect("an output");
    let long = "x".repeat(16 << 10);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
        (0..600).for_each(|number| info!(number, long));
    });
    drop(end);
    writers.flush_within(LIMIT);
    let written: Vec<_> = written.try_iter().map(|line| flat_object(&line)["number"].clone()).collect();
    let page = Telemetry::builder().build().expect("telemetry").exposition(Format::Text).expect("a page");
    let lost = page.lines().find_map(|line| line.strip_prefix("async_log_dropped_total{result=\"full\"} "));
    let lost: usize = lost.expect("a series").parse().expect("a number");
    assert!(lost > 0 && written.len() + lost == 600, "{} written, {lost} lost", written.len());
    assert_eq!(written, (0..written.len()).map(|number| json!(number)).collect::<Vec<_>>());
}

#[test]
fn error_of_an_output_names_its_setting() {
    let start = |logs: Logs| logs.start::<Registry>("reports", None).map(drop).expect_err("invalid").to_string();
    let folder = "/dev/null/logs";
    let of_code = start(Logs::new().output(LogOutput::daily_files(folder, 2)));
    assert!(of_code.starts_with("invalid log folder \"/dev/null/logs\": expected a folder"), "{of_code}");
    let vars = |name: &str| (name == "AE_LOG_DIR").then(|| folder.to_owned());
    let of_variable = start(Logs::from_vars(vars).expect("not opened yet"));
    assert!(of_variable.starts_with("invalid AE_LOG_DIR \"/dev/null/logs\": expected a folder"), "{of_variable}");
    let filter = start(Logs::new().output(LogOutput::stderr().filter("a=b=c")));
    assert!(filter.starts_with("invalid log filter \"a=b=c\": expected a level"), "{filter}");
}
