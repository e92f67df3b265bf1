//! Checks that no dependency of a published crate needs a newer Rust than the workspace's `rust-version`.

use crate::metadata::{Metadata, text};

/// A Rust version, compared part by part.
type Version = Vec<u64>;

/// Dependencies that need a newer Rust than the published crates declare, one line each.
pub(crate) fn broken(metadata: &Metadata) -> Vec<String> {
    let Some(lowest) = metadata.published().filter_map(|p| version(text(&p["rust_version"]))).min() else {
        return vec!["no published crate declares rust-version".to_owned()];
    };
    let needed = metadata.closure(metadata.published());
    needed
        .into_iter()
        .filter(|(package, _)| version(text(&package["rust_version"])).is_some_and(|needed_rust| needed_rust > lowest))
        .map(|(package, path)| {
            let (number, needed_rust) = (text(&package["version"]), text(&package["rust_version"]));
            format!("{} {number} needs Rust {needed_rust}, expected at most {}", path.join(" → "), shown(&lowest))
        })
        .collect()
}

/// `1.89` and `1.89.0` are the same version.
fn version(text: &str) -> Option<Version> {
    let mut parts: Version = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    parts.resize(3, 0);
    Some(parts)
}

fn shown(version: &[u64]) -> String {
    version.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn package(name: &str, rust: Option<&str>, publish: Option<&[&str]>) -> Value {
        json!({ "id": name, "name": name, "version": "1.0.0", "rust_version": rust, "publish": publish })
    }

    fn dep(name: &str, kind: Option<&str>) -> Value {
        json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] })
    }

    fn workspace(far_needs: &str) -> Metadata {
        Metadata::from_value(json!({
            "workspace_members": ["ours", "tool"],
            "packages": [
                package("ours", Some("1.89"), None),
                package("tool", Some("1.95"), Some(&[])),
                package("near", None, None),
                package("far", Some(far_needs), None),
                package("test-only", Some("1.95"), None),
            ],
            "resolve": { "nodes": [
                { "id": "ours", "deps": [dep("near", None), dep("test-only", Some("dev"))] },
                { "id": "near", "deps": [dep("far", Some("build"))] },
            ]}
        }))
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version("1.89"), version("1.89.0"));
        assert!(version("1.100") > version("1.99.7"));
        assert_eq!(version(""), None);
    }

    #[test]
    fn dev_dependency_may_need_newer_rust() {
        assert_eq!(broken(&workspace("1.89.0")), Vec::<String>::new());
        assert_eq!(broken(&workspace("1.90")), ["ours → near → far 1.0.0 needs Rust 1.90, expected at most 1.89.0"]);
    }
}
