//! `Telemetry::from_env` with console exporters, in a process of its own.

#![allow(clippy::disallowed_macros, reason = "tests of a telemetry crate may log")]
#![cfg(feature = "console")]

use std::{env, process::Command, time::Duration};

use async_endpoints_telemetry::Telemetry;

const CHILD: &str = "printing_child";

#[test]
fn console_exporters_print_all_signals() {
    let child = Command::new(env::current_exe().expect("a path"))
        .args(["--exact", CHILD, "--nocapture", "--include-ignored"])
        .env("OTEL_TRACES_EXPORTER", "console")
        .env("OTEL_LOGS_EXPORTER", "console")
        .env("OTEL_METRICS_EXPORTER", "console")
        .env("OTEL_SERVICE_NAME", "reports")
        .env("OTEL_CONFIG_FILE", "/otel.yaml")
        .env("AE_LOG_FORMAT", "json")
        .output()
        .expect("a process");
    let (stdout, stderr) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{stdout}{stderr}");
    for printed in ["Spans", "render page", "Logs", "page rendered", "Metrics", "pages.printed", "reports"] {
        assert!(stdout.contains(printed), "no {printed:?} in\n{stdout}");
    }
    for line in ["page rendered", "OTEL_CONFIG_FILE is ignored", "\"service\":\"reports\""] {
        assert!(stderr.contains(line), "no {line:?} in\n{stderr}");
    }
}

#[test]
#[ignore = "run by console_exporters_print_all_signals"]
fn printing_child() {
    let telemetry = Telemetry::from_env().expect("telemetry");
    let _flushed = telemetry.flush_on_drop(Duration::from_secs(30));
    telemetry.meter("test").u64_counter("pages.printed").build().add(7, &[]);
    let _render = tracing::info_span!("render page").entered();
    tracing::info!("page rendered");
}
