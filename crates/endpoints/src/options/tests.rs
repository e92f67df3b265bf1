//! Every variable, its default and its documentation.

use super::*;
use crate::alerts::Alerts;

fn read(vars: &[(&str, &str)]) -> Result<Options, OptionsError> {
    let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    Options::from_vars("AE_", find)
}

#[test]
fn variable_sets_its_field() {
    let default = Options::default();
    assert_eq!(read(&[]), Ok(default.clone()));
    assert_eq!(read(&[("AE_CONCURRENCY", " ")]), Ok(default.clone()));
    let second = Duration::from_millis(1500);
    let (dashboard, trace) = (DashboardOptions::default(), "http://localhost:16686/trace/{trace_id}");
    let with = |dashboard| Options { dashboard, ..default.clone() };
    let cases: [(&str, &str, Options); 21] = [
        ("AE_CONCURRENCY", "7", Options { concurrency: 7, ..default.clone() }),
        ("AE_MAX_QUEUE_SIZE", "7", Options { max_queue_size: 7, ..default.clone() }),
        ("AE_MAX_RETRIES", "0", Options { max_retries: 0, ..default.clone() }),
        ("AE_MAX_LOSSES", "0", Options { max_losses: 0, ..default.clone() }),
        ("AE_RETRY_BASE_SECONDS", "1.5", Options { retry_base: second, ..default.clone() }),
        ("AE_JOB_TIMEOUT_SECONDS", " 1.5 ", Options { job_timeout: second, ..default.clone() }),
        ("AE_LEASE_SECONDS", "1.5", Options { lease: second, ..default.clone() }),
        ("AE_RETENTION_SECONDS", "1.5", Options { retention: second, ..default.clone() }),
        ("AE_SHUTDOWN_SECONDS", "1.5", Options { shutdown: second, ..default.clone() }),
        ("AE_SHUTDOWN_DELAY_SECONDS", "1.5", Options { shutdown_delay: second, ..default.clone() }),
        ("AE_ALERT_SLOW_SECONDS", "1.5", Options { slow_after: second, ..default.clone() }),
        ("AE_ALERT_STUCK_SECONDS", "1.5", Options { stuck_after: second, ..default.clone() }),
        ("AE_MAX_CONNECTIONS", "7", Options { max_connections: 7, ..default.clone() }),
        ("AE_HEADER_READ_SECONDS", "1.5", Options { header_read: second, ..default.clone() }),
        ("AE_PROPAGATION", "child", Options { propagation: Propagation::Child, ..default.clone() }),
        ("AE_CAPTURE_LEVEL", "DEBUG", Options { capture_level: CaptureLevel::Debug, ..default.clone() }),
        ("AE_EXPOSE_LOGS", "true", Options { expose_logs: true, ..default.clone() }),
        ("AE_DASHBOARD_NAME", "eu", with(DashboardOptions { name: Some("eu".to_owned()), ..dashboard.clone() })),
        ("AE_DASHBOARD_COLOR", "red", with(DashboardOptions { color: InstanceColor::Red, ..dashboard.clone() })),
        ("AE_DASHBOARD_TRACE_URL", trace, with(DashboardOptions { trace_url: Some(trace.to_owned()), ..dashboard })),
        ("AE_BASE_PATH", "/v1", Options { base_path: Some("/v1".to_owned()), ..default.clone() }),
    ];
    for (name, value, expected) in cases {
        assert_ne!(expected, default, "{name}");
        assert_eq!(read(&[(name, value)]), Ok(expected), "{name}");
    }
}

/// Variables of `docs/configuration.md` with their defaults, before a heading.
fn documented(heading: &str) -> Vec<(String, &'static str)> {
    let page = include_str!("../../../../docs/configuration.md");
    let (before, _) = page.split_once(heading).expect("the heading");
    let rows = before.lines().filter_map(|line| line.strip_prefix("| `AE_")?.split_once("` | "));
    rows.map(|(name, rest)| (format!("AE_{name}"), rest.split(" | ").next().unwrap_or_default())).collect()
}

#[test]
fn configuration_page_lists_all_variables() {
    let read = std::cell::RefCell::new(Vec::new());
    let ask = |name: &str| {
        read.borrow_mut().push(name.to_owned());
        None
    };
    assert!(Options::from_vars("AE_", ask).is_ok());
    assert!(Alerts::from_vars("AE_", ask).is_ok());
    let mut listed: Vec<String> = documented("## Logs").into_iter().map(|(name, _)| name).collect();
    let mut read = read.into_inner();
    listed.sort();
    read.sort();
    assert_eq!(listed, read);
}

#[test]
fn documented_default_is_the_default() {
    let mut checked = 0;
    for (name, default) in documented("## In code only") {
        if let "four per core" | "the mounted prefix" | "none" | "`AsyncEndpoints`" = default {
            continue;
        }
        let value = default.trim_end_matches(" s").replace([' ', '`'], "");
        assert_eq!(read(&[(&name, &value)]), Ok(Options::default()), "{name} {default}");
        checked += 1;
    }
    assert_eq!(checked, 17);
}

#[test]
fn invalid_value_is_reported_with_its_name() {
    let invalid = [
        ("AE_CONCURRENCY", "0"),
        ("AE_CONCURRENCY", "many"),
        ("AE_MAX_RETRIES", "-1"),
        ("AE_LEASE_SECONDS", "0"),
        ("AE_LEASE_SECONDS", "NaN"),
        ("AE_JOB_TIMEOUT_SECONDS", "0"),
        ("AE_JOB_TIMEOUT_SECONDS", "0.0000001"),
        ("AE_RETENTION_SECONDS", "0"),
        ("AE_RETENTION_SECONDS", "0.0009"),
        ("AE_HEADER_READ_SECONDS", "0.0000001"),
        ("AE_RETENTION_SECONDS", "1e300"),
        ("AE_SHUTDOWN_SECONDS", "30s"),
        ("AE_CAPTURE_LEVEL", "verbose"),
        ("AE_EXPOSE_LOGS", "please"),
        ("AE_DASHBOARD_COLOR", "mauve"),
        ("AE_DASHBOARD_TRACE_URL", "javascript:alert(1)//{trace_id}"),
        ("AE_DASHBOARD_TRACE_URL", "https://traces.example.com/"),
    ];
    for (name, value) in invalid {
        let error = read(&[(name, value)]).expect_err(name);
        assert_eq!(error.name, name);
        assert!(error.to_string().starts_with(&format!("invalid {name} {value:?}: expected a ")), "{error}");
    }
    assert!(read(&[("AE_RETENTION_SECONDS", "0.001")]).is_ok());
    let error = read(&[("AE_PROPAGATION", "both")]).expect_err("an invalid value");
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!(error.to_string(), "invalid AE_PROPAGATION \"both\": expected link, child or none");
}
