//! Checks the files for Kubernetes, Compose, Prometheus and systemd. None of them is applied: the tests have no cluster.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
};

use serde_json::{Value, json};

use crate::at;

/// Files with queries for autoscaling.
pub(crate) const SCALERS: [&str; 3] =
    ["ops/kubernetes/adapter.yaml", "ops/kubernetes/keda.yaml", "docs/deployment/kubernetes.md"];

/// Runs a program of the Python environment `kubernetes` and returns its standard output.
fn tool(program: &str, args: &[&str]) -> String {
    let path = at("target/tools/kubernetes/bin").join(program);
    assert!(path.exists(), "{program} is not installed: run `cargo xtask test`");
    succeed(Command::new(path).args(args).current_dir(at(".")))
}

fn succeed(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", out.status);
    stdout.into_owned()
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    serde_json::from_str(&tool("python", &["-c", read, path])).unwrap()
}

#[test]
fn kubernetes_accepts_the_manifests() {
    for name in ["api", "worker", "hpa"] {
        let path = format!("ops/kubernetes/{name}.yaml");
        tool("kubernetes-validate", &["--strict", "-k", "1.31", &path]);
    }
}

/// KEDA's model ignores unknown fields, which the comparison finds.
#[test]
fn keda_accepts_the_scaled_object() {
    let check = "
import sys, yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
given = yaml.safe_load(open(sys.argv[1]))
read = ScaledObject.model_validate(given).model_dump(by_alias=True, exclude_unset=True)
assert read == given, f'{read} differs from {given}'
";
    tool("python", &["-c", check, "ops/kubernetes/keda.yaml"]);
}

#[test]
fn compose_schema_accepts_the_file() {
    tool("check-jsonschema", &["--builtin-schema", "vendor.compose-spec", "ops/compose.yaml"]);
}

/// The value of a variable of a container, as a number of seconds or jobs. 0 if it is not set.
fn variable(container: &Value, name: &str) -> u64 {
    let mut variables = container["env"].as_array().unwrap().iter();
    let found = variables.find(|variable| variable["name"] == name);
    found.map_or(0, |variable| variable["value"].as_str().unwrap().parse().unwrap())
}

fn containers(path: &str) -> Vec<(Value, Value)> {
    let pods = documents(path).into_iter().filter(|document| document["kind"] == "Deployment");
    pods.map(|mut deployment| {
        let pod = deployment["spec"]["template"]["spec"].take();
        (pod["containers"][0].clone(), pod)
    })
    .collect()
}

#[test]
fn pods_may_drain_before_they_are_killed() {
    for path in ["ops/kubernetes/api.yaml", "ops/kubernetes/worker.yaml"] {
        let found = containers(path);
        assert_eq!(found.len(), 1, "{path}");
        for (container, pod) in found {
            let drain = variable(&container, "AE_SHUTDOWN_DELAY_SECONDS") + variable(&container, "AE_SHUTDOWN_SECONDS");
            let period = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!(drain >= 30 && period > drain + 3, "{path}: {period} s for a drain of {drain} s");
            for (probe, route) in
                [("startup", "/health/live"), ("liveness", "/health/live"), ("readiness", "/health/ready")]
            {
                assert_eq!(container[format!("{probe}Probe")]["httpGet"]["path"], route, "{path}");
            }
        }
    }
}

#[test]
fn scalers_count_on_the_slots_of_a_worker() {
    let (container, _) = containers("ops/kubernetes/worker.yaml").remove(0);
    let slots = json!(variable(&container, "AE_CONCURRENCY").to_string());
    let hpa = &documents("ops/kubernetes/hpa.yaml")[0]["spec"]["metrics"][0]["external"];
    assert_eq!(hpa["target"]["averageValue"], slots);
    let adapter = &documents("ops/kubernetes/adapter.yaml")[0]["rules"]["external"][0];
    assert_eq!(adapter["name"]["as"], hpa["metric"]["name"]);
    let keda = &documents("ops/kubernetes/keda.yaml")[0]["spec"]["triggers"][0]["metadata"];
    assert_eq!(keda["threshold"], slots);
    assert_eq!(keda["query"], adapter["metricsQuery"]);
    let page = fs::read_to_string(at("docs/deployment/kubernetes.md")).unwrap();
    assert!(page.contains(keda["query"].as_str().unwrap()), "the page shows another query");
    promtool_accepts(keda["query"].as_str().unwrap());
}

/// Checks a query as a rule, written as JSON, which is valid YAML.
fn promtool_accepts(query: &str) {
    let file = env::temp_dir().join(format!("async-endpoints-scalers-{}.yml", process::id()));
    let rules = json!({ "groups": [{ "name": "scalers", "rules": [{ "record": "demand", "expr": query }] }] });
    fs::write(&file, rules.to_string()).unwrap();
    succeed(Command::new("promtool").args(["check", "rules"]).arg(&file));
    fs::remove_file(file).unwrap();
}

/// The file that holds the token exists only in the container.
#[test]
fn promtool_accepts_the_configuration() {
    succeed(
        Command::new("promtool").args(["check", "config", "--syntax-only"]).arg(at("ops/prometheus/prometheus.yml")),
    );
}

/// `verify` wants the program to exist, and reports unknown keys without failing.
#[test]
fn systemd_accepts_the_units() {
    let folder = env::temp_dir().join(format!("async-endpoints-units-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let unit = |from: &str, to: &str| -> PathBuf {
        let text = fs::read_to_string(at("ops/systemd").join(from)).unwrap();
        let (path, program) = (folder.join(to), "ExecStart=/usr/local/bin/async-endpoints-demo");
        assert!(text.contains(program), "{from}");
        fs::write(&path, text.replace(program, "ExecStart=/bin/true")).unwrap();
        path
    };
    let units = [
        unit("async-endpoints-api.service", "async-endpoints-api.service"),
        unit("async-endpoints-worker@.service", "async-endpoints-worker@1.service"),
    ];
    let out = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output();
    let out = out.unwrap_or_else(|error| panic!("systemd-analyze: {error}; install the Debian package systemd"));
    fs::remove_dir_all(&folder).unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}
