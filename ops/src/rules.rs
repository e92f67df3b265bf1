//! Alert rules for Prometheus, each with made-up series that make it fire and others that do not.

use std::fmt::Write;

use crate::names::metric;

/// One alert.
struct Rule {
    name: &'static str,
    expr: String,
    /// How long it has to be so.
    hold: &'static str,
    severity: &'static str,
    /// The label that tells which job type or store it is about.
    by: &'static str,
    summary: &'static str,
    /// What to do.
    description: &'static str,
    /// Series with values minute by minute that make it fire within two hours, for `A`.
    fires: Vec<(String, &'static str)>,
    /// The same that do not.
    keeps_still: Vec<(String, &'static str)>,
}

fn series(metric: &str, labels: &str) -> String {
    format!("{metric}{{job_type=\"A\"{labels}}}")
}

fn all() -> Vec<Rule> {
    let mut rules = of_outcomes();
    rules.extend(of_waiting());
    rules.extend(of_the_store());
    rules
}

fn of_outcomes() -> Vec<Rule> {
    let (failed, processed) = (metric("async_job.failed"), metric("async_job.processed"));
    let recovered = metric("async_job.recovered");
    let times = metric("async_job.processing_time");
    let oldest = metric("async_job.oldest_running_age");
    let in_an_hour = |name: &str| format!("sum by (job_type) (increase({name}[1h]))");
    let code = ",error_type=\"HANDLER_ERROR\"";
    let done = ",outcome=\"completed\"";
    vec![
        Rule {
            name: "AsyncJobFailureRate",
            expr: format!("{0} / ({0} + {1}) > 0.1 and ({0} + {1}) >= 20", in_an_hour(&failed), in_an_hour(&processed)),
            hold: "0m",
            severity: "critical",
            by: "job_type",
            summary: "More than 10 % of the jobs of type {{ $labels.job_type }} failed in the last hour",
            description: "Finally failed jobs of all that ended, at least 20. async_job_attempts_total by error_type says why; the \
                          exemplars of async_job_failed_total name jobs.",
            fires: vec![(series(&failed, code), "0+1x120"), (series(&processed, ""), "0+4x120")],
            keeps_still: vec![(series(&failed, code), "0+1x120"), (series(&processed, ""), "0+20x120")],
        },
        Rule {
            name: "AsyncJobSlow",
            // Text and OpenMetrics write the bound in two ways.
            expr: format!(
                "max by (job_type) ({oldest}) > 30 or sum by (job_type) (increase({times}_count[10m])) - \
                 sum by (job_type) (increase({times}_bucket{{le=~\"30|30.0\"}}[10m])) > 0"
            ),
            hold: "0m",
            severity: "warning",
            by: "job_type",
            summary: "Attempts of {{ $labels.job_type }} run for more than 30 s",
            description: "One runs now, or ended in the last ten minutes. GET /jobs?status=InProgress lists the longest first.",
            fires: vec![(series(&oldest, ""), "31x120")],
            keeps_still: vec![
                (series(&oldest, ""), "29x120"),
                (series(&format!("{times}_count"), done), "0+1x120"),
                (series(&format!("{times}_bucket"), ",outcome=\"completed\",le=\"30\""), "0+1x120"),
            ],
        },
        Rule {
            name: "AsyncJobWorkerLost",
            expr: format!("sum by (job_type) (increase({recovered}[10m])) > 0"),
            hold: "0m",
            severity: "warning",
            by: "job_type",
            summary: "Jobs of type {{ $labels.job_type }} were taken from workers that died or were cut off",
            description: "They run again. A worker was killed, ran out of memory, hung, or could not reach the store for a whole lease.",
            fires: vec![(series(&recovered, ""), "0x115 2x5")],
            keeps_still: vec![(series(&recovered, ""), "7x120")],
        },
    ]
}

fn of_waiting() -> Vec<Rule> {
    let waits = metric("async_job.queue_time");
    let (oldest, stuck) = (metric("async_job.oldest_queued_age"), metric("async_job.stuck"));
    let (jobs, live) = (metric("async_job.jobs"), metric("async_worker.live"));
    let bucket = |le: &str| series(&format!("{waits}_bucket"), &format!(",le=\"{le}\""));
    let queued = ",state=\"queued\"";
    vec![
        Rule {
            name: "AsyncJobQueueWait",
            expr: format!("histogram_quantile(0.95, sum by (job_type, le) (rate({waits}_bucket[10m]))) > 60"),
            hold: "5m",
            severity: "warning",
            by: "job_type",
            summary: "One of twenty jobs of type {{ $labels.job_type }} waits for more than a minute",
            description: "From when it could have started. More workers, or a higher concurrency of the type.",
            fires: vec![(bucket("60"), "0+1x120"), (bucket("120"), "0+10x120"), (bucket("+Inf"), "0+10x120")],
            keeps_still: vec![(bucket("60"), "0+10x120"), (bucket("+Inf"), "0+10x120")],
        },
        Rule {
            name: "AsyncJobOldestQueued",
            expr: format!("max by (job_type) ({oldest}) > 300"),
            hold: "0m",
            severity: "warning",
            by: "job_type",
            summary: "A job of type {{ $labels.job_type }} waits for more than five minutes",
            description: "GET /jobs?status=Queued lists what is next; its `waiting` says why.",
            fires: vec![(series(&oldest, ""), "301x120")],
            keeps_still: vec![(series(&oldest, ""), "299x120")],
        },
        Rule {
            name: "AsyncJobStuck",
            expr: format!("max by (job_type) ({stuck}) > 5"),
            hold: "0m",
            severity: "critical",
            by: "job_type",
            summary: "More than five jobs of type {{ $labels.job_type }} are stuck",
            description: "For ten minutes nothing moved them though something should have: no worker takes the type, or an attempt \
                          runs past its timeout, or nobody recovers it.",
            fires: vec![(series(&stuck, ""), "6x120")],
            keeps_still: vec![(series(&stuck, ""), "5x120")],
        },
        Rule {
            name: "AsyncJobNoWorkers",
            expr: format!(
                "max by (job_type) ({jobs}{{state=\"queued\"}}) > 0 and on (job_type) max by (job_type) ({live}) == 0"
            ),
            hold: "2m",
            severity: "critical",
            by: "job_type",
            summary: "Jobs of type {{ $labels.job_type }} wait and no live worker takes them",
            description: "Workers of that type are not deployed, have died, or cannot reach the store.",
            fires: vec![(series(&jobs, queued), "1x120"), (series(&live, ""), "0x120")],
            keeps_still: vec![(series(&jobs, queued), "1x120"), (series(&live, ""), "1x120")],
        },
    ]
}

fn of_the_store() -> Vec<Rule> {
    let (calls, aside) = (metric("async_store.operation_time"), metric("async_store.quarantined"));
    let calls_with = |outcome: &str| format!("{calls}_count{{store=\"A\",operation=\"claim\",outcome=\"{outcome}\"}}");
    vec![
        Rule {
            name: "AsyncStoreErrors",
            expr: format!(
                "sum by (store) (rate({calls}_count{{outcome=\"error\"}}[5m])) / sum by (store) (rate({calls}_count[5m])) > 0.05"
            ),
            hold: "1m",
            severity: "critical",
            by: "store",
            summary: "More than 5 % of the calls of the store {{ $labels.store }} fail",
            description: "Submissions are refused meanwhile and nothing accepted is lost. The log has the store's own words.",
            fires: vec![(calls_with("error"), "0+10x120"), (calls_with("ok"), "0+100x120")],
            keeps_still: vec![(calls_with("error"), "0+1x120"), (calls_with("ok"), "0+100x120")],
        },
        Rule {
            name: "AsyncStoreQuarantined",
            expr: format!("max by (store) ({aside}) > 0"),
            hold: "0m",
            severity: "warning",
            by: "store",
            summary: "The store {{ $labels.store }} has jobs that cannot be read",
            description: "They were put aside and stop nobody. Something else writes to the store, or it lost a part.",
            fires: vec![(format!("{aside}{{store=\"A\"}}"), "1x120")],
            keeps_still: vec![(format!("{aside}{{store=\"A\"}}"), "0x120")],
        },
    ]
}

const HEAD: &str =
    "# Generated from the catalogue of metrics: `cargo xtask generate`. Change ops/src/rules.rs instead.\n";

/// The rule file.
pub(crate) fn rules() -> String {
    // How much memory is too much is known to whoever limits it, and told by their exporter: there is no rule for it here.
    let mut text = format!("{HEAD}groups:\n- name: async-endpoints\n  rules:\n");
    for rule in all() {
        let Rule { name, expr, hold, severity, summary, description, .. } = rule;
        let _ = write!(
            text,
            "  - alert: {name}\n    expr: {}\n    for: {hold}\n    labels:\n      severity: {severity}\n    annotations:\n      \
             summary: {}\n      description: {}\n",
            quoted(&expr),
            quoted(summary),
            quoted(description),
        );
    }
    text
}

/// Its tests for promtool.
pub(crate) fn tests() -> String {
    let mut text = format!("{HEAD}rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n");
    for rule in all() {
        test(&mut text, &rule, &rule.fires, true);
        test(&mut text, &rule, &rule.keeps_still, false);
    }
    text
}

fn test(text: &mut String, rule: &Rule, series: &[(String, &str)], fires: bool) {
    let _ = writeln!(text, "- interval: 1m\n  input_series:");
    for (series, values) in series {
        let _ = writeln!(text, "  - series: {}\n    values: {}", quoted(series), quoted(values));
    }
    let _ = writeln!(text, "  alert_rule_test:\n  - eval_time: 2h\n    alertname: {}", rule.name);
    if !fires {
        let _ = writeln!(text, "    exp_alerts: []");
        return;
    }
    let about = format!("{{{{ $labels.{} }}}}", rule.by);
    let _ = writeln!(
        text,
        "    exp_alerts:\n    - exp_labels: {{ severity: {}, {}: A }}\n      exp_annotations:\n        summary: {}\n        description: {}",
        rule.severity,
        rule.by,
        quoted(&rule.summary.replace(&about, "A")),
        quoted(rule.description),
    );
}

/// A string as YAML takes it, whatever is in it: JSON is YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
