//! Finds import cycles between sibling modules, each taken with its descendants. A module may use its own ancestors and
//! descendants freely. Test modules do not count.
//!
//! An import counts for the module that defines the name: re-exports are followed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

use crate::{files, rust};

/// A module's path within its crate, such as `["store", "memory"]`. Empty for the crate root.
type ModulePath = Vec<String>;

/// From each module to the modules that it uses, each with the place of the first use.
type Graph = BTreeMap<ModulePath, BTreeMap<ModulePath, String>>;

/// The modules of one crate.
#[derive(Default)]
struct Modules(BTreeMap<ModulePath, (PathBuf, rust::Module)>);

/// Cycles in the crates of the repository, one line each.
pub(crate) fn broken() -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for root in files::with_extension(&["rs"])?.iter().filter(|file| is_crate_root(file)) {
        let mut modules = Modules::default();
        modules.load(root, &root.with_file_name(""), &[])?;
        lines.extend(cycles(&modules.graph()).iter().map(|cycle| format!("import cycle: {cycle}")));
    }
    Ok(lines)
}

fn is_crate_root(file: &Path) -> bool {
    file.ends_with("src/lib.rs")
        || file.ends_with("src/main.rs")
        || file.parent().is_some_and(|p| p.ends_with("src/bin"))
}

impl Modules {
    /// Reads a file and the files of its modules, which are in `folder`.
    fn load(&mut self, file: &Path, folder: &Path, path: &[String]) -> io::Result<()> {
        let modules = rust::modules(&files::read(file)?).map_err(|error| files::failed(file, &error))?;
        for (inner, module) in modules {
            let path: ModulePath = path.iter().cloned().chain(inner.clone()).collect();
            let folder = folder.join(inner.iter().collect::<PathBuf>());
            for child in &module.children {
                let (flat, nested) = (folder.join(format!("{child}.rs")), folder.join(child).join("mod.rs"));
                let file = if flat.exists() { flat } else { nested };
                self.load(&file, &folder.join(child), &joined(&path, child))?;
            }
            self.0.insert(path, (file.to_owned(), module));
        }
        Ok(())
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (from, (file, module)) in &self.0 {
            for (name, line) in &module.paths {
                let Some((to, _)) = self.resolve(from, name, 0) else { continue };
                let Some((from, to)) = siblings(from, &to) else { continue };
                let place = format!("{}:{line}", file.display());
                graph.entry(from).or_default().entry(to).or_insert(place);
            }
        }
        graph
    }

    /// The module that a path leads to, or that defines the item the path leads to, and whether it is the module.
    /// `None` for names of other crates.
    fn resolve(&self, from: &[String], name: &[String], depth: usize) -> Option<(ModulePath, bool)> {
        let (mut at, mut rest) = (from.to_vec(), name);
        while let [first, others @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => break,
            }
            rest = others;
        }
        let relative = rest.len() == name.len();
        for (position, segment) in rest.iter().enumerate() {
            match self.child(&at, segment, depth) {
                Some((module, true)) => at = module,
                Some(item) => return Some(item),
                None if relative && position == 0 => return None,
                None => return Some((at, false)),
            }
        }
        Some((at, true))
    }

    /// The target of `name` in the module `at`, if it is a child module or an import.
    fn child(&self, at: &[String], name: &str, depth: usize) -> Option<(ModulePath, bool)> {
        let child = joined(at, name);
        if self.0.contains_key(&child) {
            return Some((child, true));
        }
        let (_, module) = self.0.get(at)?;
        // Rust allows imports that lead to themselves, such as `use serde;`.
        let path = module.imports.get(name).filter(|_| depth < 8)?;
        self.resolve(at, path, depth + 1)
    }
}

fn joined(path: &[String], name: &str) -> ModulePath {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// The siblings that contain two modules. `None` if one module contains the other.
fn siblings(from: &[String], to: &[String]) -> Option<(ModulePath, ModulePath)> {
    let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    Some((from.get(..=shared)?.to_vec(), to.get(..=shared)?.to_vec()))
}

/// A shortest cycle through each group of modules that use each other.
fn cycles(graph: &Graph) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<Vec<&ModulePath>> = graph.keys().filter_map(|from| shortest_cycle(graph, from)).collect();
    found.sort_by_key(Vec::len);
    found.retain(|cycle| {
        let fresh = cycle.iter().all(|module| !seen.contains(module));
        seen.extend(cycle.iter().copied());
        fresh
    });
    found.iter().map(|cycle| shown(graph, cycle)).collect()
}

/// The shortest cycle through a module.
fn shortest_cycle<'a>(graph: &'a Graph, from: &'a ModulePath) -> Option<Vec<&'a ModulePath>> {
    let mut paths = VecDeque::from([vec![from]]);
    let mut visited = BTreeSet::new();
    while let Some(path) = paths.pop_front() {
        for to in path.last().and_then(|last| graph.get(*last)).into_iter().flat_map(BTreeMap::keys) {
            if to == from {
                return Some(path);
            }
            if visited.insert(to) {
                paths.push_back(path.iter().copied().chain([to]).collect());
            }
        }
    }
    None
}

fn shown(graph: &Graph, cycle: &[&ModulePath]) -> String {
    let next = cycle.iter().cycle().skip(1);
    let edges = cycle.iter().zip(next).map(|(from, to)| {
        let place = graph.get(*from).and_then(|uses| uses.get(*to)).map_or("", String::as_str);
        format!("{} → {} ({place})", from.join("::"), to.join("::"))
    });
    edges.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&[&str], &str)]) -> Vec<String> {
        let mut modules = Modules::default();
        for (path, text) in files {
            let path: ModulePath = path.iter().map(|s| (*s).to_owned()).collect();
            let module = rust::modules(text).unwrap().remove(&[][..]).unwrap();
            modules.0.insert(path.clone(), (format!("{}.rs", path.join("/")).into(), module));
        }
        cycles(&modules.graph())
    }

    #[test]
    fn cycle_is_reported_with_places() {
        let cycle =
            found(&[(&["a"], "use crate::b::B;"), (&["b"], "\nfn f() { crate::c::f() }"), (&["c"], "use super::a;")]);
        assert_eq!(cycle, ["a → b (a.rs:1), b → c (b.rs:2), c → a (c.rs:1)"]);
    }

    #[test]
    fn re_export_is_followed() {
        let root: (&[&str], &str) = (&[], "mod a; mod b; pub use b::B;");
        assert_eq!(found(&[root, (&["a"], "use crate::B;"), (&["b"], "use crate::a;")]).len(), 1);
        assert_eq!(found(&[root, (&["a"], "use crate::Other;"), (&["b"], "use crate::a;")]), [""; 0]);
    }

    #[test]
    fn parent_and_child_may_use_each_other() {
        assert_eq!(found(&[(&["a"], "mod b; use b::B;"), (&["a", "b"], "use super::A; use crate::a::C;")]), [""; 0]);
    }

    #[test]
    fn cycle_through_children_is_reported() {
        let files: &[(&[&str], &str)] =
            &[(&["a"], "use crate::b::B;"), (&["a", "x"], ""), (&["b"], "use crate::a::x::X;")];
        assert_eq!(found(files), ["a → b (a.rs:1), b → a (b.rs:1)"]);
    }

    #[test]
    fn names_of_other_crates_are_ignored() {
        assert_eq!(found(&[(&["a"], "use b::B; use std::b;"), (&["b"], "use crate::a::A;")]), [""; 0]);
    }
}
