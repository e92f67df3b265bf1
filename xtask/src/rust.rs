//! Reads modules, imports and paths out of Rust source text, without test modules.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, LexError, TokenStream, TokenTree};

/// A path and the number of its line.
pub(crate) type Located = (Vec<String>, usize);

/// Declarations and uses of a module.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Names of child modules in other files.
    pub(crate) children: Vec<String>,
    /// Paths of imported names.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
    /// All paths of two or more segments, and the paths of imports.
    pub(crate) paths: Vec<Located>,
}

/// Reads the module of a file, whose path is empty, and its inline modules.
pub(crate) fn modules(text: &str) -> Result<BTreeMap<Vec<String>, Module>, LexError> {
    let mut all = Vec::new();
    tokens(text.parse()?, &mut all);
    let mut reader = Reader { tokens: &all, at: 0, found: BTreeMap::new() };
    reader.module(&[]);
    Ok(reader.found)
}

type Token = (String, usize);

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    found: BTreeMap<Vec<String>, Module>,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |(text, _)| text.as_str())
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
                    // Skips a segment after generic arguments.
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
                _ => {
                    self.at += 1;
                    return;
                }
            }
        }
        let line = self.tokens[self.at - 1].1;
        let alias = if self.peek(0) == "as" {
            self.at += 2;
            self.tokens.get(self.at - 1).map(|(alias, _)| alias)
        } else {
            path.last()
        };
        module.imports.insert(alias.cloned().unwrap_or_default(), path.clone());
        module.paths.push((path, line));
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && !matches!(token, "as" | "mod" | "use")
}

/// Names, `::`, delimiters and single other characters, each with the number of its line. Literals are left out.
fn tokens(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push((open.to_owned(), line));
                self::tokens(group.stream(), tokens);
                tokens.push((close.to_owned(), line));
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && tokens.last().is_some_and(|(last, _)| last == ":") => {
                tokens.pop();
                tokens.push(("::".to_owned(), line));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => tokens.push((tree.to_string(), line)),
            TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let modules = modules(text).unwrap();
        modules
            .values()
            .flat_map(|module| &module.paths)
            .map(|(path, line)| format!("{line} {}", path.join("::")))
            .collect()
    }

    #[test]
    fn use_tree_is_expanded() {
        let found = paths("use crate::{a::{self, B as C},\n d::*, $e};");
        assert_eq!(found, ["1 crate::a", "1 crate::a::B", "2 crate::d", "2 crate::e"]);
        let modules = modules("use crate::a::B as C;").unwrap();
        assert_eq!(modules[&[][..]].imports["C"], ["crate", "a", "B"]);
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
        assert_eq!(modules("#[cfg(test)]\nmod tests;\nmod a;").unwrap()[&[][..]].children, ["a"]);
    }

    #[test]
    fn inline_module_is_a_module() {
        let found = modules("mod a { mod b; use c::d; }\nuse e::f;").unwrap();
        assert_eq!(found[&[][..]].paths, [(vec!["e".into(), "f".into()], 2)]);
        assert_eq!(found[&["a".to_owned()][..]].children, ["b"]);
    }
}
