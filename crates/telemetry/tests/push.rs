//! OTLP push over HTTP to a minimal collector.
#![cfg(feature = "otlp")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use async_endpoints_telemetry::{Otlp, Telemetry, TelemetryError};

#[tokio::test]
async fn shutdown_pushes_the_last_metrics() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let collector = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(&stream);
        let mut head: Vec<String> = Vec::new();
        while head.last().is_none_or(|line| line != "\r\n") {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a header");
            head.push(line);
        }
        let length =
            head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
        let mut body = vec![0; length.expect("a length").trim().parse().expect("a number")];
        reader.read_exact(&mut body).expect("a body");
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("an open connection");
        (head.swap_remove(0), body)
    });
    let telemetry =
        Telemetry::builder().otlp(Otlp::http(url).interval(Duration::from_secs(3600))).build().expect("telemetry");
    assert!(telemetry.has_exposition() && telemetry.has_other_readers());
    telemetry.meter("test").u64_counter("pages.printed").build().add(7, &[]);
    telemetry.shutdown(Duration::from_secs(10)).await;
    let (request, body) = collector.join().expect("a request");
    assert_eq!(request, "POST /v1/metrics HTTP/1.1\r\n");
    assert!(body.windows(13).any(|part| part == b"pages.printed"));
}

#[tokio::test]
async fn invalid_endpoint_is_an_exporter_error() {
    let error = Telemetry::builder().otlp(Otlp::http("not a url")).build().expect_err("no endpoint");
    assert!(
        matches!(&error, TelemetryError::Exporter { endpoint, .. } if endpoint == "not a url/v1/metrics"),
        "{error}"
    );
}
