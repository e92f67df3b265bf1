//! Limits the length of source files, and keeps the modules of the product apart.
//!
//! Dependencies are declared per crate, and clippy cannot ban a macro in all modules but one. So this check searches the
//! code of each module for words, outside comments.

use std::{io, path::Path};

use crate::files;

/// Maximum number of lines of a file; the aim is 250.
const MAX_LINES: usize = 600;

/// Words that the files of a folder must not contain.
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
        why: "only telemetry/ writes logs, traces and metrics",
    },
    Rule {
        folder: "crates/endpoints/src/telemetry",
        except: None,
        words: &["worker::"],
        why: "telemetry/ must not know worker internals: give it closures",
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
    Rule {
        folder: "crates/endpoints/src/dashboard",
        except: None,
        words: &["store()", "JobStore", "SharedState", "store_call::", "hub::", "worker::", "stats_cache::"],
        why: "dashboard/ uses the operator API of AsyncEndpoints alone",
    },
];

/// Files that break a rule, one line each.
pub(crate) fn broken() -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in files::with_extension(&["rs"])? {
        let text = files::read(&file)?;
        lines.extend(too_long(&file, &text));
        lines.extend(RULES.iter().filter_map(|rule| rule.broken_by(&file, &text)));
    }
    Ok(lines)
}

fn too_long(file: &Path, text: &str) -> Option<String> {
    let count = text.lines().count();
    (count > MAX_LINES)
        .then(|| format!("{}: {count} lines, expected at most {MAX_LINES}: split the file", file.display()))
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
    fn forbidden_word_in_code_is_reported() {
        let text = "//! not tracing::info\nuse crate::worker::Slots;\nfn f() { tracing::info!(\"x\") }\n";
        let found = broken_by("crates/endpoints/src/http/submit.rs", text);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("crates/endpoints/src/http/submit.rs:3: \"tracing::\""), "{found:?}");
        assert!(found[1].starts_with("crates/endpoints/src/http/submit.rs:2: \"worker::\""), "{found:?}");
        let found = broken_by("crates/endpoints/src/telemetry/events.rs", text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("2: \"worker::\""), "{found:?}");
        assert_eq!(broken_by("examples/demo/src/main.rs", text), Vec::<String>::new());
    }

    #[test]
    fn forbidden_word_in_tests_is_free() {
        let text = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::http::x;\n}\n";
        assert_eq!(broken_by("crates/endpoints/src/worker/mod.rs", text), Vec::<String>::new());
    }

    #[test]
    fn file_above_the_limit_is_reported() {
        assert_eq!(too_long(Path::new("x.rs"), &"\n".repeat(MAX_LINES)), None);
        assert!(too_long(Path::new("x.rs"), &"\n".repeat(MAX_LINES + 1)).is_some());
    }
}
