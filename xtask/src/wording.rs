//! Finds unclear phrases in code, comments, pages and scripts. `wording.txt` lists each phrase with its replacement. A
//! phrase without a replacement is allowed, also if a phrase further down in the list is a part of it.

use std::{io, path::Path};

use crate::files;

const EXTENSIONS: &[&str] = &["rs", "md", "sql", "lua", "toml", "yml"];
const PHRASES: &str = include_str!("../wording.txt");

/// Unclear phrases in the repository, one line each.
pub(crate) fn broken() -> io::Result<Vec<String>> {
    let phrases = parse(PHRASES);
    let mut lines = Vec::new();
    for file in files::with_extension(EXTENSIONS)? {
        lines.extend(found_in(&file, &files::read(&file)?, &phrases));
    }
    Ok(lines)
}

struct Phrase<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    replacement: &'a str,
}

/// Reads lines of `phrase: replacement`.
fn parse(list: &str) -> Vec<Phrase<'_>> {
    let entries = list.lines().filter_map(|line| line.split_once(':'));
    entries
        .map(|(text, replacement)| Phrase {
            text,
            words: text.split(' ').collect(),
            replacement: replacement.trim_start(),
        })
        .collect()
}

/// A phrase may continue on the next line. Of phrases that begin at the same word, the first in the list counts.
fn found_in(file: &Path, text: &str, phrases: &[Phrase<'_>]) -> Vec<String> {
    let words = words(text);
    let found = (0..words.len()).filter_map(|at| {
        let phrase = phrases.iter().find(|phrase| starts_with(&words[at..], &phrase.words))?;
        (!phrase.replacement.is_empty())
            .then(|| format!("{}:{}: {:?}: write {}", file.display(), words[at].1, phrase.text, phrase.replacement))
    });
    found.collect()
}

/// Every word with the number of its line. An underscore separates words, so names are searched too.
fn words(text: &str) -> Vec<(&str, usize)> {
    let lines = text.lines().zip(1..);
    let words = lines.flat_map(|(line, number)| {
        line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(move |word| (word, number))
    });
    words.collect()
}

fn starts_with(words: &[(&str, usize)], phrase: &[&str]) -> bool {
    words.len() >= phrase.len() && words.iter().zip(phrase).all(|((word, _), wanted)| word.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        found_in(Path::new("a.md"), text, &parse("cat food:\nbig cat: tiger\ncat: lynx\n"))
    }

    #[test]
    fn phrase_is_reported_with_line_and_replacement() {
        assert_eq!(found("one\n\nThe Cat sat."), ["a.md:3: \"cat\": write lynx"]);
        assert_eq!(found("fn feeds_cat() {}"), ["a.md:1: \"cat\": write lynx"]);
    }

    #[test]
    fn phrase_across_lines_is_reported() {
        assert_eq!(found("/// a big\n/// dog")[..], [""; 0]);
        assert_eq!(found("/// a big\n/// cat")[0], "a.md:1: \"big cat\": write tiger");
    }

    #[test]
    fn phrase_without_replacement_is_allowed() {
        assert_eq!(found("The cat food"), [""; 0]);
    }

    #[test]
    fn part_of_a_word_is_free() {
        assert_eq!(found("Concatenate category cats"), [""; 0]);
    }
}
