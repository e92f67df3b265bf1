use std::{
    collections::BTreeSet,
    env, fs,
    process::{self, Command},
};

use async_endpoints::telemetry::{CATALOGUE, Instrument, InstrumentKind};
use serde_json::{Value, json};

use super::*;

#[test]
fn files_are_as_generated() {
    for (path, text) in generated().unwrap() {
        let found = fs::read_to_string(at(path)).unwrap_or_default();
        assert!(found == text, "{path} differs from the catalogue: run `cargo xtask generate`");
    }
}

/// Every name that a series of the catalogue has.
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
fn every_metric_named_exists() {
    // A label and a crate, not metrics.
    let others = ["async_endpoints_version", "async_endpoints"];
    let known = series();
    // Words may speak of a histogram as a whole, queries ask for one of its series.
    let families: BTreeSet<String> = CATALOGUE.iter().map(Instrument::prometheus_name).collect();
    for path in [RULES, RULE_TESTS, DASHBOARD, DOCS] {
        let text = fs::read_to_string(at(path)).unwrap();
        let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let ours = |word: &&str| {
            *word == "build_info" || ["async_", "process_", "http_server_"].iter().any(|start| word.starts_with(start))
        };
        let mut named = words.into_iter().filter(ours).filter(|word| !others.contains(word)).peekable();
        assert!(named.peek().is_some(), "{path} names no metric");
        for word in named {
            let exists = known.contains(word) || path == DOCS && families.contains(word);
            assert!(exists, "{path} names {word}, which does not exist");
        }
    }
}

/// The metrics of the catalogue that a piece of a query names, each with the labels that its series have and what is
/// written right behind it.
fn named(query: &str) -> impl Iterator<Item = (String, BTreeSet<String>, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    CATALOGUE.iter().flat_map(move |instrument| {
        let (name, histogram) = (instrument.prometheus_name(), instrument.kind == InstrumentKind::Histogram);
        let suffixes: &[&str] = if histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        let mut labels: BTreeSet<String> = instrument.labels.iter().map(|label| label.replace('.', "_")).collect();
        // Prometheus adds these when it scrapes.
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

/// What stands between an opened bracket and its end.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// Labels that a query asks for and that the series have not, in selectors and in `by (…)`.
fn unknown_labels(query: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut check = |name: &str, labels: &BTreeSet<String>, asked: &str| {
        if !labels.contains(asked) {
            unknown.push(format!("{asked} of {name}"));
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
            list.split(',').for_each(|asked| check(&name, &labels, asked.trim()));
        }
    }
    unknown
}

#[test]
fn queries_ask_for_labels_that_there_are() {
    let docs = fs::read_to_string(at(DOCS)).unwrap().replace('\\', "");
    for (path, text) in [
        (RULES, fs::read_to_string(at(RULES)).unwrap()),
        (DASHBOARD, fs::read_to_string(at(DASHBOARD)).unwrap().replace("\\\"", "\"")),
        (DOCS, docs),
    ] {
        assert!(named(&text).count() > 10, "{path} is read");
        assert_eq!(unknown_labels(&text), Vec::<String>::new(), "{path}");
    }
    assert_eq!(
        unknown_labels(r#"sum by (state) (async_job_failed_total{job_type="a",code="b"})"#),
        ["code of async_job_failed_total", "state of async_job_failed_total"]
    );
}

#[test]
#[should_panic(expected = "no metric is named")]
fn an_unknown_metric_is_not_generated() {
    names::fill("rate(@async_job.no_such@[5m])");
}

#[test]
fn every_rule_is_tested() {
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
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "promtool {args:?}: {}\n{said}\n{wrong}", out.status);
}

#[test]
fn promtool_reads_the_rules() {
    promtool(["check", "rules", "rules.yml"]);
}

#[test]
fn alerts_fire_above_their_thresholds_and_not_below() {
    promtool(["test", "rules", "rules.test.yml"]);
}

/// As rules, so that promtool reads them; JSON is YAML, too.
#[test]
fn promtool_reads_the_queries_of_the_dashboard() {
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
