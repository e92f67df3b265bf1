//! Finds broken links between the files of the repository: a file or a heading that does not exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::files;

/// Broken links of pages, and pages that the docs' index does not list, one line each.
pub(crate) fn broken() -> io::Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    for file in files::with_extension(&["md"])? {
        let text = files::read(&file)?;
        pages.insert(file, text);
    }
    pages.insert("llms.txt".into(), files::read(Path::new("llms.txt"))?);
    let headings: BTreeMap<_, _> = pages.iter().map(|(file, text)| (file.clone(), anchors(text))).collect();
    let mut lines: Vec<String> = pages.iter().flat_map(|(file, text)| broken_in(file, text, &headings)).collect();
    let index = Path::new("docs/README.md");
    let listed: BTreeSet<PathBuf> =
        links(&pages[index]).filter_map(|(_, link)| Some(resolve(index, link.split('#').next()?))).collect();
    let is_unlisted = |file: &&PathBuf| file.starts_with("docs") && *file != index && !listed.contains(*file);
    lines.extend(
        pages.keys().filter(is_unlisted).map(|file| format!("{}: docs/README.md does not list it", file.display())),
    );
    Ok(lines)
}

fn broken_in(file: &Path, text: &str, headings: &BTreeMap<PathBuf, BTreeSet<String>>) -> Vec<String> {
    let is_broken = |link: &str| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { file.to_owned() } else { resolve(file, path) };
        let has_anchor = || headings.get(&target).is_none_or(|known| known.contains(anchor));
        fs::metadata(&target).is_err() || !anchor.is_empty() && !has_anchor()
    };
    let broken = links(text).filter(|(_, link)| is_broken(link));
    broken.map(|(line, link)| format!("{}:{line}: broken link {link:?}", file.display())).collect()
}

/// The targets of `[text](target)` with their lines, without addresses of the web. Code blocks are skipped.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = outside_code(text);
    let found = lines.flat_map(|(number, line)| {
        line.split("](").skip(1).filter_map(move |rest| Some((number, rest.split_once(')')?.0)))
    });
    found.filter(|(_, link)| !link.contains("://") && !link.starts_with("mailto:"))
}

fn outside_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = outside_code(text).filter_map(|(_, line)| line.strip_prefix('#'));
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let anchor = anchor(heading.trim_start_matches('#').trim());
        let repeated = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(repeated).find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// A path relative to the root, from one relative to the file.
fn resolve(file: &Path, path: &str) -> PathBuf {
    let mut resolved = file.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            Component::CurDir => {}
            part => resolved.push(part),
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heading_becomes_an_anchor() {
        let page = "# A `b` / C: d?\n```sh\n# comment\n```\n## Two_words\n## Two_words\n";
        let expected = ["a-b--c-d", "two_words", "two_words-1"].map(str::to_owned);
        assert_eq!(anchors(page), BTreeSet::from(expected));
    }

    #[test]
    fn link_is_resolved_from_its_file() {
        assert_eq!(resolve(Path::new("docs/guides/a.md"), "../b.md"), Path::new("docs/b.md"));
        assert_eq!(resolve(Path::new("README.md"), "docs/b.md"), Path::new("docs/b.md"));
    }

    #[test]
    fn broken_link_is_reported_with_its_line() {
        let file = Path::new("a.md");
        let headings = BTreeMap::from([(file.to_owned(), BTreeSet::from(["here".to_owned()]))]);
        let text = "[a](https://a.example/b)\n[b](no/such.md)";
        assert_eq!(broken_in(file, text, &headings), ["a.md:2: broken link \"no/such.md\""]);
    }
}
