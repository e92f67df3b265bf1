//! Which crates each room of the house may not know. The compiler keeps these rules as long as no `Cargo.toml` is
//! changed; this keeps the `Cargo.toml`s. Dependencies for tests only are free.

use crate::metadata::{Metadata, items, text};

/// Names of crates; a last `*` stands for anything.
type Names = &'static [&'static str];

const HTTP: Names = &["axum*", "hyper*", "http", "http-*", "tower", "tower-*", "reqwest"];
const SIGNALS: Names = &["tracing*", "log", "opentelemetry*", "metrics*", "prometheus*"];
const DRIVERS: Names = &["rusqlite", "redis", "tokio-postgres", "deadpool*", "sqlx*"];
const PRODUCT: Names = &["async-endpoints"];
const STORES: Names = &["async-endpoints-sqlite", "async-endpoints-redis", "async-endpoints-postgres"];

/// A crate, what it must not know, and the names that are allowed all the same.
const RULES: &[(&str, &[Names], Names)] = &[
    ("async-endpoints-core", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &[]),
    ("async-endpoints-testkit", &[DRIVERS, PRODUCT, STORES], &[]),
    ("async-endpoints-sqlite", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["rusqlite"]),
    ("async-endpoints-redis", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["redis"]),
    ("async-endpoints-postgres", &[HTTP, SIGNALS, DRIVERS, PRODUCT, STORES], &["tokio-postgres", "deadpool*"]),
    ("async-endpoints", &[DRIVERS], &[]),
];

/// Dependencies that break a rule, one line each.
pub(crate) fn broken(metadata: &Metadata) -> Vec<String> {
    let mut lines = Vec::new();
    for package in metadata.members() {
        for dep in items(&package["dependencies"]).iter().filter(|dep| dep["kind"] != "dev") {
            let (room, name) = (text(&package["name"]), text(&dep["name"]));
            if is_forbidden(room, name) {
                lines.push(format!("{room} must not know {name}: take it out of its Cargo.toml"));
            }
        }
    }
    lines
}

fn is_forbidden(room: &str, name: &str) -> bool {
    let Some((_, forbidden, allowed)) = RULES.iter().find(|(of, ..)| *of == room) else { return false };
    forbidden.iter().any(|names| matches(names, name)) && !matches(allowed, name)
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
    fn a_store_knows_its_own_driver_alone() {
        for (name, forbidden) in [
            ("rusqlite", false),
            ("async-endpoints-core", false),
            ("redis", true),
            ("tracing-core", true),
            ("async-endpoints", true),
            ("axum", true),
        ] {
            assert_eq!(is_forbidden("async-endpoints-sqlite", name), forbidden, "{name}");
        }
        assert!(!is_forbidden("async-endpoints-demo", "rusqlite"));
    }

    #[test]
    fn tests_may_know_more() {
        let metadata = Metadata::from_value(json!({
            "workspace_members": ["core"],
            "packages": [{ "id": "core", "name": "async-endpoints-core", "dependencies": [
                { "name": "tracing", "kind": null }, { "name": "axum", "kind": "dev" }, { "name": "serde", "kind": null },
            ]}],
        }));
        assert_eq!(broken(&metadata), ["async-endpoints-core must not know tracing: take it out of its Cargo.toml"]);
    }
}
