use std::{
    collections::BTreeSet,
    env, fs,
    process::{self, Command},
};

use async_endpoints::telemetry::{CATALOGUE, Instrument, InstrumentKind};
use serde_json::{Value, json};

use super::{manifests::SCALERS, *};

#[test]
fn generated_files_are_current() {
    for (path, text) in generated().unwrap() {
        let found = fs::read_to_string(at(path)).unwrap_or_default();
        assert!(found == text, "{path} differs from the catalogue: run `cargo xtask generate`");
    }
}

/// Names of all series of the catalogue.
fn series() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for instrument in CATALOGUE {
        let name = instrument.prometheus_name();
        if instrument.kind == InstrumentKind::Histogram {
            all.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        } else {
            all.insert(name);
        }
    }
    all
}

#[test]
fn unknown_metric_names_are_absent() {
    // A label, a crate, a prefix of names, and the metric that prometheus-adapter makes.
    let others = ["async_endpoints_version", "async_endpoints", "async_job", "async_endpoints_demand"];
    let known = series();
    // The docs may name a histogram; queries name one of its series.
    let families: BTreeSet<String> = CATALOGUE.iter().map(Instrument::prometheus_name).collect();
    for path in [RULES, RULE_TESTS, DASHBOARD, DOCS].into_iter().chain(SCALERS) {
        let text = fs::read_to_string(at(path)).unwrap();
        let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let ours = |word: &&str| {
            *word == "build_info" || ["async_", "process_", "http_server_"].iter().any(|start| word.starts_with(start))
        };
        let mut named = words.into_iter().filter(ours).filter(|word| !others.contains(word)).peekable();
        assert!(named.peek().is_some(), "{path} names no metric");
        for word in named {
            let exists = known.contains(word) || path == DOCS && families.contains(word);
            assert!(exists, "{path} names {word}, which is not in the catalogue");
        }
    }
}

/// The catalogue's metrics in a part of a query. Each comes with the labels of its series and the text that follows it.
fn named(query: &str) -> impl Iterator<Item = (String, BTreeSet<String>, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    CATALOGUE.iter().flat_map(move |instrument| {
        let (name, histogram) = (instrument.prometheus_name(), instrument.kind == InstrumentKind::Histogram);
        let suffixes: &[&str] = if histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        let mut labels: BTreeSet<String> = instrument.labels.iter().map(|label| label.replace('.', "_")).collect();
        // Prometheus adds these labels.
        labels.extend(["job", "instance"].map(str::to_owned));
        suffixes.iter().flat_map(move |suffix| {
            let (name, mut labels) = (format!("{name}{suffix}"), labels.clone());
            labels.extend((*suffix == "_bucket").then(|| "le".to_owned()));
            let found = query.match_indices(&name).map(|(at, _)| at).collect::<Vec<_>>().into_iter();
            found.filter_map(move |at| {
                let (before, after) = (&query[..at], &query[at + name.len()..]);
                let whole = !before.ends_with(is_name) && !after.starts_with(is_name);
                whole.then(|| (name.clone(), labels.clone(), after))
            })
        })
    })
}

/// The text up to the closing parenthesis of an opened one.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// Labels in selectors and `by (…)` that the series lack.
fn unknown_labels(query: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut check = |name: &str, labels: &BTreeSet<String>, label: &str| {
        if !labels.contains(label) {
            unknown.push(format!("{label} of {name}"));
        }
    };
    for (name, labels, after) in named(query) {
        let selector = after.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        for matcher in selector.split(',').filter(|matcher| !matcher.is_empty()) {
            check(&name, &labels, matcher.split(['=', '!']).next().unwrap().trim());
        }
    }
    for (at, by) in query.match_indices("by (") {
        let (list, rest) = query[at + by.len()..].split_once(')').unwrap();
        for (name, labels, _) in named(inside(rest.trim_start().trim_start_matches('('))) {
            list.split(',').for_each(|label| check(&name, &labels, label.trim()));
        }
    }
    unknown
}

#[test]
fn queries_use_existing_labels() {
    let docs = fs::read_to_string(at(DOCS)).unwrap().replace('\\', "");
    for (path, text) in [
        (RULES, fs::read_to_string(at(RULES)).unwrap()),
        (DASHBOARD, fs::read_to_string(at(DASHBOARD)).unwrap().replace("\\\"", "\"")),
        (DOCS, docs),
    ] {
        assert!(named(&text).count() > 10, "{path}");
        assert_eq!(unknown_labels(&text), Vec::<String>::new(), "{path}");
    }
    for path in SCALERS {
        let text = fs::read_to_string(at(path)).unwrap();
        assert!(named(&text).count() > 0, "{path}");
        assert_eq!(unknown_labels(&text), Vec::<String>::new(), "{path}");
    }
    assert_eq!(
        unknown_labels(r#"sum by (state) (async_job_failed_total{job_type="a",code="b"})"#),
        ["code of async_job_failed_total", "state of async_job_failed_total"]
    );
}

#[test]
#[should_panic(expected = "no metric is named")]
fn unknown_metric_panics() {
    names::fill("rate(@async_job.no_such@[5m])");
}

#[test]
fn every_alert_has_a_test() {
    let (rules, tests) = (fs::read_to_string(at(RULES)).unwrap(), fs::read_to_string(at(RULE_TESTS)).unwrap());
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 8);
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} has no test");
    }
}

fn promtool(args: [&str; 3]) {
    let folder = at(RULES).parent().unwrap().to_owned();
    let out = Command::new("promtool").args(args).current_dir(folder).output();
    let out = out.unwrap_or_else(|error| panic!("promtool: {error}; install the Debian package prometheus"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "promtool {args:?}: {}\n{stdout}\n{stderr}", out.status);
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(["check", "rules", "rules.yml"]);
}

#[test]
fn promtool_accepts_the_rule_tests() {
    promtool(["test", "rules", "rules.test.yml"]);
}

/// Checks the queries as rules, written as JSON, which is valid YAML.
#[test]
fn promtool_accepts_the_dashboard_queries() {
    let text = fs::read_to_string(at(DASHBOARD)).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m"));
    let rules: Vec<Value> =
        queries.zip(0..).map(|(expr, n)| json!({ "record": format!("q{n}"), "expr": expr })).collect();
    let file = env::temp_dir().join(format!("async-endpoints-dashboard-{}.yml", process::id()));
    fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    promtool(["check", "rules", file.to_str().unwrap()]);
    fs::remove_file(file).unwrap();
}
