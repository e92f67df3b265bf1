//! What source files may be: how long, and which words the rooms of the product keep to themselves.
//!
//! Rooms within one crate have no `Cargo.toml` of their own to keep them apart, and clippy's ban of macros knows no
//! exception for a module. So this looks for words, in code and not in comments.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Lines at which a file holds more than one concern; the aim is 250.
const STOP: usize = 600;
const ROOTS: [&str; 6] = ["crates", "examples", "benches", "chaos", "ops", "xtask"];

/// Words that a folder's files must not hold.
struct Rule {
    folder: &'static str,
    except: Option<&'static str>,
    words: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        folder: "crates/endpoints/src",
        except: Some("crates/endpoints/src/telemetry"),
        words: &["tracing::", "opentelemetry"],
        why: "telemetry is attached in telemetry/ only",
    },
    Rule {
        folder: "crates/endpoints/src/http",
        except: None,
        words: &["worker::"],
        why: "http/ must not know workers",
    },
    Rule {
        folder: "crates/endpoints/src/worker",
        except: None,
        words: &["http::", "axum"],
        why: "worker/ must not know HTTP",
    },
];

/// Files that break a rule, one line each.
pub(crate) fn broken() -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for root in ROOTS.map(Path::new).iter().filter(|root| root.exists()) {
        collect(root, &mut files)?;
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        lines.extend(too_long(&file, &text));
        lines.extend(RULES.iter().filter_map(|rule| rule.broken_by(&file, &text)));
    }
    Ok(lines)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn too_long(file: &Path, text: &str) -> Option<String> {
    let count = text.lines().count();
    (count > STOP).then(|| format!("{}: {count} lines are more than {STOP}, split it", file.display()))
}

impl Rule {
    fn broken_by(&self, file: &Path, text: &str) -> Option<String> {
        if !file.starts_with(self.folder) || self.except.is_some_and(|except| file.starts_with(except)) {
            return None;
        }
        let code = text.lines().zip(1..).take_while(|(line, _)| line.trim() != "#[cfg(test)]");
        let mut code = code.filter(|(line, _)| !line.trim_start().starts_with("//"));
        let (word, number) = code.find_map(|(line, number)| Some((self.word_in(line)?, number)))?;
        Some(format!("{}:{number}: {word:?}: {}", file.display(), self.why))
    }

    fn word_in(&self, line: &str) -> Option<&'static str> {
        self.words.iter().find(|word| line.contains(**word)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_by(file: &str, text: &str) -> Vec<String> {
        RULES.iter().filter_map(|rule| rule.broken_by(Path::new(file), text)).collect()
    }

    #[test]
    fn words_are_found_in_code_of_the_room() {
        let text = "//! not tracing::info\nuse crate::worker::Slots;\nfn f() { tracing::info!(\"x\") }\n";
        let found = broken_by("crates/endpoints/src/http/submit.rs", text);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("crates/endpoints/src/http/submit.rs:3: \"tracing::\""), "{found:?}");
        assert!(found[1].starts_with("crates/endpoints/src/http/submit.rs:2: \"worker::\""), "{found:?}");
        for free in ["crates/endpoints/src/telemetry/events.rs", "examples/demo/src/main.rs"] {
            assert_eq!(broken_by(free, text), Vec::<String>::new());
        }
    }

    #[test]
    fn tests_may_say_anything() {
        let text = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::http::x;\n}\n";
        assert_eq!(broken_by("crates/endpoints/src/worker/mod.rs", text), Vec::<String>::new());
    }

    #[test]
    fn length_is_bounded() {
        assert_eq!(too_long(Path::new("x.rs"), &"\n".repeat(STOP)), None);
        assert!(too_long(Path::new("x.rs"), &"\n".repeat(STOP + 1)).is_some());
    }
}
