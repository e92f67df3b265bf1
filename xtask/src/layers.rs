//! Checks that each crate depends only on layers below it. Dependencies for tests are free.

use crate::metadata::{Metadata, items, text};

/// Names of crates; a `*` at the end matches any rest.
type Names = &'static [&'static str];

const HTTP: Names = &["axum*", "hyper*", "http", "http-*", "tower", "tower-*", "reqwest"];
const SIGNALS: Names = &["tracing*", "log", "opentelemetry*", "metrics*", "prometheus*", "async-endpoints-telemetry"];
const CORE: Names = &["async-endpoints-core", "async-endpoints-testkit"];
const DRIVERS: Names = &["rusqlite", "redis", "tokio-postgres", "deadpool*", "sqlx*"];
const PRODUCT: Names = &["async-endpoints"];
const STORES: Names = &["async-endpoints-sqlite", "async-endpoints-redis", "async-endpoints-postgres"];

/// A crate, the crates that it must not depend on, and exceptions.
const RULES: &[(&str, &[Names], Names)] = &[
    ("async-endpoints-core", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &[]),
    ("async-endpoints-telemetry", &[HTTP, DRIVERS, PRODUCT, STORES, CORE], &["hyper*", "http", "reqwest"]),
    ("async-endpoints-testkit", &[DRIVERS, PRODUCT, STORES], &[]),
    ("async-endpoints-sqlite", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["rusqlite"]),
    ("async-endpoints-redis", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["redis"]),
    ("async-endpoints-postgres", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["tokio-postgres", "deadpool*"]),
    ("async-endpoints-client", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["reqwest"]),
    ("async-endpoints", &[DRIVERS], &[]),
];

/// Dependencies that break a rule, one line each.
pub(crate) fn broken(metadata: &Metadata) -> Vec<String> {
    let mut lines = Vec::new();
    for package in metadata.members() {
        for dep in items(&package["dependencies"]).iter().filter(|dep| dep["kind"] != "dev") {
            let (from, to) = (text(&package["name"]), text(&dep["name"]));
            if is_forbidden(from, to) {
                lines.push(format!("{from} must not depend on {to}: remove {to} from its Cargo.toml"));
            }
        }
    }
    lines
}

fn is_forbidden(from: &str, to: &str) -> bool {
    let Some((_, forbidden, allowed)) = RULES.iter().find(|(of, ..)| *of == from) else { return false };
    forbidden.iter().any(|names| matches(names, to)) && !matches(allowed, to)
}

fn matches(names: Names, name: &str) -> bool {
    names.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => *pattern == name,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn store_may_depend_on_its_own_driver_only() {
        for (name, forbidden) in [
            ("rusqlite", false),
            ("async-endpoints-core", false),
            ("redis", true),
            ("tracing-core", true),
            ("async-endpoints", true),
            ("axum", true),
            ("async-endpoints-telemetry", true),
        ] {
            assert_eq!(is_forbidden("async-endpoints-sqlite", name), forbidden, "{name}");
        }
        assert!(!is_forbidden("async-endpoints-demo", "rusqlite"));
    }

    #[test]
    fn test_dependency_is_free() {
        let metadata = Metadata::from_value(json!({
            "workspace_members": ["core"],
            "packages": [{ "id": "core", "name": "async-endpoints-core", "dependencies": [
                { "name": "tracing", "kind": null }, { "name": "axum", "kind": "dev" }, { "name": "serde", "kind": null },
            ]}],
        }));
        assert_eq!(
            broken(&metadata),
            ["async-endpoints-core must not depend on tracing: remove tracing from its Cargo.toml"]
        );
    }
}
