//! Variables and their errors.

use super::*;

fn read(vars: &[(&str, &str)]) -> Result<Alerts, String> {
    let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    Alerts::from_vars("AE_", find).map_err(|error| error.to_string())
}

fn senders(alerts: &Alerts) -> Vec<(&str, Severity)> {
    alerts.routes.iter().map(|route| (route.name.as_str(), route.min_severity)).collect()
}

/// The rules that variables change.
const CHANGED: [&str; 4] = ["failure_rate", "memory", "queue_wait", "oldest_queued"];

/// The rules that variables change, with thresholds of their own.
fn with_rules(vars: &[(&str, &str)]) -> Alerts {
    let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    let rule = || Rule::figure_above(1.0, |_| None);
    let alerts = CHANGED.into_iter().fold(Alerts::new(), |alerts, name| alerts.rule(name, rule()));
    read_thresholds(&Vars { prefix: "AE_", vars: &find }, alerts).expect("valid values")
}

#[test]
fn variable_sets_its_time() {
    let seconds = Duration::from_millis(1500);
    let times = |alerts: &Alerts| [alerts.interval, alerts.pending_for, alerts.repeat, alerts.window];
    let defaults = [300, 0, 14_400, 3_600].map(Duration::from_secs);
    for (i, name) in ["INTERVAL", "FOR", "REPEAT", "WINDOW"].into_iter().enumerate() {
        let name = format!("AE_ALERT_{name}_SECONDS");
        assert_eq!(times(&read(&[(&name, " ")]).expect("the default")), defaults);
        let mut expected = defaults;
        expected[i] = seconds;
        assert_eq!(times(&read(&[(&name, "1.5")]).expect("a time")), expected, "{name}");
    }
}

#[test]
fn variable_sets_its_threshold() {
    let settings = |alerts: &Alerts| {
        let limits = |(_, rule): &(String, Rule)| (rule.settings.threshold, rule.settings.clear_below);
        let changed = alerts.rules.iter().filter(|(name, _)| CHANGED.contains(&name.as_str()));
        (alerts.min_count, changed.map(limits).collect::<Vec<_>>())
    };
    assert_eq!(settings(&with_rules(&[])), (20, vec![(1.0, None); 4]));
    let vars = [
        ("AE_ALERT_FAILURE_PERCENT", "2.5"),
        ("AE_ALERT_MIN_JOBS", "3"),
        ("AE_ALERT_MEMORY_PERCENT", "0.5"),
        ("AE_ALERT_QUEUE_WAIT_SECONDS", "1.5"),
        ("AE_ALERT_OLDEST_QUEUED_SECONDS", "0"),
    ];
    let expected = vec![(2.5, Some(1.25)), (0.5, None), (1.5, None), (0.0, None)];
    assert_eq!(settings(&with_rules(&vars)), (3, expected));
}

#[test]
fn objective_of_a_job_type_adds_its_rule() {
    let alerts = read(&[("AE_ALERT_OBJECTIVES", " Export=99.5, Import = 84")]).expect("objectives");
    let added = alerts.rules.iter().filter(|(name, _)| name.starts_with("burn_rate"));
    let added: Vec<_> = added.map(|(name, rule)| (name.as_str(), rule.settings.title.as_str())).collect();
    let expected =
        ["Export", "Import"].map(|name| (format!("burn_rate.{name}"), format!("{name} burns its error budget")));
    assert_eq!(added, expected.each_ref().map(|(name, title)| (name.as_str(), title.as_str())));
    for text in ["Export", "Export=", "Export=83.9", "Export=100", "Export=NaN", "Export=99,", "a b=99", "=99"] {
        let error = read(&[("AE_ALERT_OBJECTIVES", text)]).expect_err(text);
        let expected = "job types with objectives in percent, from 84 to below 100, such as Export=99.5,Import=99";
        assert_eq!(error, format!("invalid AE_ALERT_OBJECTIVES {text:?}: expected {expected}"));
    }
    let long = "x".repeat(91);
    assert!(read(&[("AE_ALERT_OBJECTIVES", &format!("{long}=99"))]).is_err(), "the rule's name is too long");
}

#[test]
fn invalid_value_is_reported_with_its_name() {
    for (name, value, expected) in [
        ("AE_ALERT_INTERVAL_SECONDS", "0", "a number of seconds, 0.1 or more"),
        ("AE_ALERT_INTERVAL_SECONDS", "5m", "a number of seconds, 0.1 or more"),
        ("AE_ALERT_FOR_SECONDS", "-1", "a number of seconds, such as 8 or 0.5"),
        ("AE_ALERT_REPEAT_SECONDS", "0", "a number of seconds above 0"),
        ("AE_ALERT_WINDOW_SECONDS", "0", "a number of seconds above 0, at most 21600"),
        ("AE_ALERT_WINDOW_SECONDS", "21601", "a number of seconds above 0, at most 21600"),
        ("AE_ALERT_FAILURE_PERCENT", "101", "a percentage from 0 to 100"),
        ("AE_ALERT_FAILURE_PERCENT", "NaN", "a percentage from 0 to 100"),
        ("AE_ALERT_MEMORY_PERCENT", "-1", "a percentage from 0 to 100"),
        ("AE_ALERT_QUEUE_WAIT_SECONDS", "-1", "a number of seconds, such as 8 or 0.5"),
        ("AE_ALERT_OLDEST_QUEUED_SECONDS", "5m", "a number of seconds, such as 8 or 0.5"),
        ("AE_ALERT_MIN_JOBS", "1.5", "a whole number"),
        ("AE_ALERT_LOG_MIN_SEVERITY", "urgent", "Low, Medium, High or Critical"),
    ] {
        let error = read(&[(name, value)]).expect_err(name);
        assert_eq!(error, format!("invalid {name} {value:?}: expected {expected}"));
    }
}

#[test]
fn log_is_the_only_sender_without_variables() {
    assert_eq!(senders(&read(&[]).expect("defaults")), [("log", Severity::Low)]);
    let alerts = read(&[("AE_ALERT_LOG_MIN_SEVERITY", "critical")]).expect("a severity");
    assert_eq!(senders(&alerts), [("log", Severity::Critical)]);
}

#[cfg(feature = "email")]
mod email {
    use super::*;

    const URL: (&str, &str) = ("AE_ALERT_SMTP_URL", "smtp://ada:p4ss@mail.example");
    const FROM: (&str, &str) = ("AE_ALERT_EMAIL_FROM", "alerts@example.com");
    const TO: (&str, &str) = ("AE_ALERT_EMAIL_TO", "ops@example.com, oncall@example.com");
    const SEVERITY: (&str, &str) = ("AE_ALERT_EMAIL_MIN_SEVERITY", "High");

    #[test]
    fn variables_switch_the_sender_on() {
        let alerts = read(&[URL, FROM, TO]).expect("a sender");
        assert_eq!(senders(&alerts), [("log", Severity::Low), ("email", Severity::Low)]);
        let alerts = read(&[URL, FROM, TO, SEVERITY]).expect("a sender");
        assert_eq!(senders(&alerts), [("log", Severity::Low), ("email", Severity::High)]);
    }

    #[test]
    fn missing_variable_is_named() {
        for (vars, missing, set) in [
            (&[URL][..], FROM.0, URL.0),
            (&[URL, FROM], TO.0, URL.0),
            (&[URL, TO, ("AE_ALERT_EMAIL_FROM", "")], FROM.0, URL.0),
            (&[FROM, TO], URL.0, FROM.0),
            (&[SEVERITY], URL.0, SEVERITY.0),
        ] {
            let error = read(vars).expect_err(missing);
            let (start, end) = (format!("{missing} is not set: expected "), format!(", because {set} is set"));
            assert!(error.starts_with(&start) && error.ends_with(&end) && !error.contains("p4ss"), "{error}");
        }
    }

    #[test]
    fn invalid_sender_is_reported_without_secret() {
        for (vars, message) in [
            (&[("AE_ALERT_SMTP_URL", "http://ada:p4ss@mail.example"), FROM, TO][..], "invalid AE_ALERT_SMTP_URL: "),
            (&[("AE_ALERT_SMTP_URL", "p4ss"), FROM, TO], "invalid AE_ALERT_SMTP_URL: "),
            (&[URL, ("AE_ALERT_EMAIL_FROM", "ops"), TO], "invalid AE_ALERT_EMAIL_FROM \"ops\": expected "),
            (&[URL, FROM, ("AE_ALERT_EMAIL_TO", "a@b.example, x")], "invalid AE_ALERT_EMAIL_TO \"x\": expected "),
        ] {
            let error = read(vars).expect_err(message);
            assert!(error.starts_with(message) && !error.contains("p4ss"), "{error}");
        }
    }
}

#[cfg(feature = "webhook")]
#[test]
fn variables_switch_senders_over_http_on() {
    let secret = ("AE_ALERT_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let vars = [
        ("AE_ALERT_WEBHOOK_URL", "http://127.0.0.1:9/hook"),
        secret,
        ("AE_ALERT_SLACK_URL", "http://127.0.0.1:9/slack"),
        ("AE_ALERT_ALERTMANAGER_URL", "http://127.0.0.1:9093"),
    ];
    let names: Vec<String> = read(&vars).expect("senders").routes.iter().map(|route| route.name.clone()).collect();
    assert_eq!(names, ["log", "webhook", "slack", "alertmanager"]);
    for (name, value) in [("AE_ALERT_WEBHOOK_URL", "ftp://canary/"), ("AE_ALERT_WEBHOOK_SECRET", "whsec_canary")] {
        let mut wrong = vars;
        wrong.iter_mut().filter(|(other, _)| *other == name).for_each(|(_, old)| *old = value);
        let error = read(&wrong).expect_err(name);
        assert!(error.starts_with(&format!("invalid {name}: ")) && !error.contains("canary"), "{error}");
    }
}

#[test]
fn sender_without_its_feature_is_refused() {
    let webhook = EnvSender { make: None, ..SENDERS[0] };
    for name in ["AE_ALERT_WEBHOOK_URL", "AE_ALERT_WEBHOOK_SECRET", "AE_ALERT_WEBHOOK_MIN_SEVERITY"] {
        let find = |asked: &str| (asked == name).then(|| "High".to_owned());
        let error = webhook.read(&Vars { prefix: "AE_", vars: &find }).err().expect("no feature").to_string();
        let expected = "is set, but this program is built without the feature webhook of async-endpoints";
        assert_eq!(error, format!("{name} {expected}"));
    }
}
