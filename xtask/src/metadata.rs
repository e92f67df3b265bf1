//! The output of `cargo metadata`: the workspace and its dependencies.

use std::{
    collections::{HashMap, VecDeque},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::command::{Failed, cargo_program};

/// Parsed `cargo metadata`.
pub(crate) struct Metadata(Value);

impl Metadata {
    /// Runs cargo with all features, so that optional dependencies are included.
    pub(crate) fn read() -> Result<Self, Failed> {
        let args = ["metadata", "--format-version", "1", "--all-features"];
        let out = Command::new(cargo_program())
            .args(args)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Failed::because(format_args!("cannot run cargo metadata: {e}")))?;
        if !out.status.success() {
            return Err(Failed::because("cargo metadata failed"));
        }
        serde_json::from_slice(&out.stdout)
            .map(Self)
            .map_err(|e| Failed::because(format_args!("cannot read cargo metadata: {e}")))
    }

    #[cfg(test)]
    pub(crate) fn from_value(value: Value) -> Self {
        Self(value)
    }

    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Value> {
        let members = items(&self.0["workspace_members"]);
        self.packages().filter(|package| members.contains(&package["id"]))
    }

    /// The published packages of this workspace.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Value> {
        // `publish` lists the allowed registries; null allows all.
        self.members().filter(|package| !package["publish"].is_array())
    }

    /// `roots` and all packages that a user of `roots` builds, each with the dependency path to it.
    pub(crate) fn closure<'a>(&'a self, roots: impl Iterator<Item = &'a Value>) -> Vec<(&'a Value, Vec<&'a str>)> {
        let packages: HashMap<&str, &Value> = self.packages().map(|p| (text(&p["id"]), p)).collect();
        let nodes: HashMap<&str, &Value> =
            items(&self.0["resolve"]["nodes"]).iter().map(|n| (text(&n["id"]), n)).collect();
        let mut paths: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut next: VecDeque<(&str, Vec<&str>)> = roots.map(|p| (text(&p["id"]), Vec::new())).collect();
        while let Some((id, mut path)) = next.pop_front() {
            if paths.contains_key(id) {
                continue;
            }
            path.push(packages.get(id).map_or(id, |p| text(&p["name"])));
            let needs = nodes.get(id).map(|node| items(&node["deps"])).unwrap_or_default();
            next.extend(needs.iter().filter(|dep| is_built(dep)).map(|dep| (text(&dep["pkg"]), path.clone())));
            paths.insert(id, path);
        }
        let mut found: Vec<_> = paths.into_iter().filter_map(|(id, path)| Some((*packages.get(id)?, path))).collect();
        found.sort_by_key(|(_, path)| path.clone());
        found
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        items(&self.0["packages"]).iter()
    }
}

/// The text of a value; empty for other kinds of value.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a value; empty for other kinds of value.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether users build this dependency: a normal or a build dependency.
fn is_built(dep: &Value) -> bool {
    items(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null() || kind["kind"] == "build")
}
