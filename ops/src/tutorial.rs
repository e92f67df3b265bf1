//! Tests that `docs/tutorial.md` shows the code of `examples/tutorial`.

use std::fs;

use crate::at;

/// The blocks of the page that show a part of a file, each with the file's path and the line of the page.
fn excerpts(page: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let mut excerpts = Vec::new();
    let mut lines = (1..).zip(page.lines());
    while let Some((number, line)) = lines.next() {
        if line == "```rust,ignore" {
            let mut block = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let path = block.next().and_then(|line| line.strip_prefix("// ")).expect("the path of the file");
            excerpts.push((number, path, block.collect()));
        }
    }
    excerpts
}

/// The code of a line. Imports and the end of a statement depend on the step.
fn code(line: &str) -> Option<&str> {
    let line = line.trim().trim_end_matches(';');
    (!line.is_empty() && !line.starts_with("use ")).then_some(line)
}

/// The first line that the file does not have after the lines before it.
fn missing<'a>(excerpt: &[&'a str], file: &str) -> Option<&'a str> {
    let mut file = file.lines().filter_map(code);
    excerpt.iter().copied().filter_map(code).find(|line| !file.any(|found| found == *line))
}

#[test]
fn tutorial_shows_the_code_of_its_example() {
    let page = fs::read_to_string(at("docs/tutorial.md")).expect("the page");
    let excerpts = excerpts(&page);
    assert!(excerpts.len() >= 10, "{} excerpts", excerpts.len());
    for (line, path, excerpt) in excerpts {
        let file = fs::read_to_string(at("examples/tutorial").join(path)).expect(path);
        assert_eq!(missing(&excerpt, &file), None, "docs/tutorial.md:{line}: examples/tutorial/{path} lacks this line");
    }
}

#[test]
fn changed_line_is_missing() {
    let file = "use a::b;\nfn f() {\n    g();\n    h()\n}\n";
    assert_eq!(missing(&["use a::c;", "fn f() {", "h();", "}"], file), None);
    assert_eq!(missing(&["h();", "g();"], file), Some("g()"));
}
