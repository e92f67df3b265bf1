//! Reads modules, imports and paths out of Rust source text, without test modules.

use std::{collections::BTreeMap, iter};

/// A path and the number of its line.
pub(crate) type Located = (Vec<String>, usize);

/// What a module declares and uses.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Names of the modules that have files of their own.
    pub(crate) children: Vec<String>,
    /// Imported names with the paths that they stand for.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
    /// Every path of two or more segments, those of imports included.
    pub(crate) paths: Vec<Located>,
}

/// The module of a file, whose path is empty, and then its inline modules.
pub(crate) fn modules(text: &str) -> Vec<(Vec<String>, Module)> {
    let tokens = tokens(text);
    let mut reader = Reader { tokens: &tokens, at: 0, found: BTreeMap::new() };
    reader.module(&[]);
    reader.found.into_iter().collect()
}

type Token<'a> = (&'a str, usize);

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    found: BTreeMap<Vec<String>, Module>,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |(text, _)| text)
    }

    fn next(&mut self) -> &'a str {
        let text = self.peek(0);
        self.at += 1;
        text
    }

    fn starts_with(&self, wanted: &[&str]) -> bool {
        wanted.iter().enumerate().all(|(ahead, text)| self.peek(ahead) == *text)
    }

    /// Reads up to the brace that closes the module, or to the end of the file.
    fn module(&mut self, path: &[String]) {
        let mut module = Module::default();
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            if self.starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                self.at += 7;
                self.skip_item();
            } else if self.peek(0) == "mod" && self.peek(2) == ";" {
                module.children.push(self.peek(1).to_owned());
                self.at += 3;
            } else if self.peek(0) == "mod" && self.peek(2) == "{" {
                let inner: Vec<String> = path.iter().cloned().chain([self.peek(1).to_owned()]).collect();
                self.at += 3;
                self.module(&inner);
            } else if self.peek(0) == "use" {
                self.at += 1;
                self.imports(&[], &mut module);
            } else if is_name(self.peek(0)) {
                self.path(&mut module);
            } else {
                match self.next() {
                    "{" => depth += 1,
                    "}" if depth == 0 => break,
                    "}" => depth -= 1,
                    // A segment after generic arguments begins no path.
                    "::" if self.peek(0) != "{" => self.at += 1,
                    _ => {}
                }
            }
        }
        self.found.insert(path.to_owned(), module);
    }

    /// Skips to the end of the item: its semicolon, or the brace that closes it.
    fn skip_item(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            match self.next() {
                "{" | "(" | "[" => depth += 1,
                "}" if depth == 1 => return,
                "}" | ")" | "]" => depth = depth.saturating_sub(1),
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }

    fn path(&mut self, module: &mut Module) {
        let line = self.tokens[self.at].1;
        let mut path = vec![self.next().to_owned()];
        while self.peek(0) == "::" && is_name(self.peek(1)) {
            path.push(self.peek(1).to_owned());
            self.at += 2;
        }
        if path.len() > 1 {
            module.paths.push((path, line));
        }
    }

    /// Reads one tree of a `use`: `a::{b, c as d}`.
    fn imports(&mut self, prefix: &[String], module: &mut Module) {
        let mut path = prefix.to_vec();
        loop {
            match self.peek(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.peek(0), "}" | "") {
                        self.imports(&path, module);
                        self.at += usize::from(self.peek(0) == ",");
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    module.paths.push((path, self.tokens[self.at].1));
                    self.at += 1;
                    return;
                }
                name if is_name(name) => {
                    self.at += 1;
                    if name != "self" || path.is_empty() {
                        path.push(name.to_owned());
                    }
                    if self.peek(0) != "::" {
                        break;
                    }
                }
                _ => return,
            }
        }
        let line = self.tokens[self.at - 1].1;
        let alias = if self.peek(0) == "as" {
            self.at += 2;
            self.tokens[self.at - 1].0
        } else {
            path.last().map_or("", String::as_str)
        };
        module.imports.insert(alias.to_owned(), path.clone());
        module.paths.push((path, line));
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && !matches!(token, "as" | "mod" | "use")
}

/// Names, `::` and single other characters, each with the number of its line. Comments, literals and lifetimes are left
/// out.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut line = 1;
    let mut rest = text;
    iter::from_fn(|| {
        while !rest.is_empty() {
            let (length, is_token) = measure(rest);
            let (token, after) = rest.split_at(length);
            let at = line;
            line += token.matches('\n').count();
            rest = after;
            if is_token {
                return Some((token, at));
            }
        }
        None
    })
    .collect()
}

/// The length in bytes of what `text` begins with, and whether it is a token.
fn measure(text: &str) -> (usize, bool) {
    let to = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let name = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with("//") {
        return (to("\n", 0), false);
    }
    if text.starts_with("/*") {
        return (to("*/", 0), false);
    }
    if let Some(raw) = text.strip_prefix("br").or(text.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return (to(&end, text.len() - raw.len() + hashes + 1), false);
        }
    }
    if text.starts_with('"') {
        return (quoted(text), false);
    }
    if let Some(quote) = text.strip_prefix('\'') {
        let mut chars = quote.chars();
        let (first, second) = (chars.next(), chars.next());
        let is_char = first == Some('\\') || second == Some('\'');
        return (
            if is_char {
                quoted(text)
            } else {
                1 + quote.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(quote.len())
            },
            false,
        );
    }
    if name > 0 {
        return (name, true);
    }
    if text.starts_with("::") {
        return (2, true);
    }
    let first = text.chars().next().map_or(1, |c| c.len_utf8());
    (first, !text.starts_with(char::is_whitespace))
}

/// The length of a literal, to the quote that ends it.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    for (at, c) in chars {
        if !escaped && Some(c) == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let modules = modules(text);
        modules.iter().flat_map(|(_, m)| &m.paths).map(|(path, line)| format!("{line} {}", path.join("::"))).collect()
    }

    #[test]
    fn use_tree_is_expanded() {
        let found = paths("use crate::{a::{self, B as C},\n d::*};");
        assert_eq!(found, ["1 crate::a", "1 crate::a::B", "2 crate::d"]);
        let (_, module) = modules("use crate::a::B as C;").remove(0);
        assert_eq!(module.imports["C"], ["crate", "a", "B"]);
    }

    #[test]
    fn comments_and_literals_are_skipped() {
        let text = "// a::b\nfn f<'a>() { ('\"', \"c::\\\"d\", r#\"e::\"f\"#, '\\'', x::y::<z::Z>::new()) }";
        assert_eq!(paths(text), ["2 x::y", "2 z::Z"]);
    }

    #[test]
    fn test_module_is_skipped() {
        assert_eq!(
            paths("#[cfg(test)]\n#[allow(x)]\nmod tests { use a::b; fn f() { [1; 2] } }\nuse c::d;"),
            ["4 c::d"]
        );
        assert_eq!(modules("#[cfg(test)]\nmod tests;\nmod a;").remove(0).1.children, ["a"]);
    }

    #[test]
    fn inline_module_is_a_module() {
        let found = modules("mod a { mod b; use c::d; }\nuse e::f;");
        assert_eq!(found[0].1.paths, [(vec!["e".into(), "f".into()], 2)]);
        assert_eq!((&found[1].0[..], &found[1].1.children[..]), (&["a".to_owned()][..], &["b".to_owned()][..]));
    }
}
