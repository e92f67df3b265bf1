//! Text inside a JSON string or on a terminal.

use std::fmt::Write;

/// Appends text with quotes, backslashes and control characters escaped as JSON does. Line separators, C1 controls and
/// bidirectional overrides are escaped too: some readers split lines at them or hide text behind them.
pub(super) fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let Some(char) = special.chars().next() else { break };
        push_char(out, char);
        rest = &special[char.len_utf8()..];
    }
    out.push_str(rest);
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn push_char(out: &mut String, char: char) {
    match char {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // All are below U+10000.
        char if char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
            let _infallible = write!(out, "\\u{:04x}", u32::from(char));
        }
        char => out.push(char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_is_read_back_by_json() {
        let every_char_below_u3000: String = ('\0'..'\u{3000}').chain("🦀".chars()).collect();
        let mut escaped = String::new();
        push_escaped(&mut escaped, &every_char_below_u3000);
        assert!(!escaped.chars().any(|char| char.is_control() || char == '\u{2028}' || char == '\u{202e}'));
        let read: String = serde_json::from_str(&format!("\"{escaped}\"")).expect("JSON");
        assert_eq!(read, every_char_below_u3000);
    }
}
