//! Whether the workspace's `rust-version` is true: nothing that a published crate needs asks for a newer Rust.

use crate::metadata::{Metadata, text};

/// A Rust version, compared part by part.
type Version = Vec<u64>;

/// What needs a newer Rust than the published crates say, one line each.
pub(crate) fn broken(metadata: &Metadata) -> Vec<String> {
    let Some(lowest) = metadata.published().filter_map(|p| version(text(&p["rust_version"]))).min() else {
        return vec!["no published crate names its rust-version".to_owned()];
    };
    let needed = metadata.closure(metadata.published());
    needed
        .into_iter()
        .filter(|(package, _)| version(text(&package["rust_version"])).is_some_and(|asked| asked > lowest))
        .map(|(package, way)| {
            let (number, asked) = (text(&package["version"]), text(&package["rust_version"]));
            format!("{} {number} needs Rust {asked}, and we promise {}", way.join(" → "), shown(&lowest))
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
    fn only_what_users_build_counts() {
        assert_eq!(broken(&workspace("1.89.0")), Vec::<String>::new());
        assert_eq!(broken(&workspace("1.90")), ["ours → near → far 1.0.0 needs Rust 1.90, and we promise 1.89.0"]);
    }
}
