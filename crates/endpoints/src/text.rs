//! Checks of texts that come from outside.

/// Maximum characters of an invalid value in an error.
const SHOWN: usize = 100;

/// False for control characters, line separators and overrides of the writing direction.
pub(crate) fn is_plain(c: char) -> bool {
    !(c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

/// Whether a text has no control characters, line separators and overrides of the writing direction.
pub(crate) fn is_plain_text(text: &str) -> bool {
    text.chars().all(is_plain)
}

/// The first 100 characters of an invalid value, for the error about it.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_overrides_are_not_plain() {
        for (text, expected) in [
            ("", true),
            ("Größe 10 €: שלום", true),
            ("a\nb", false),
            ("a\tb", false),
            ("\0", false),
            ("\u{85}", false),
            ("\u{2028}", false),
            ("pay\u{202e}oga", false),
            ("\u{2066}a\u{2069}", false),
        ] {
            assert_eq!(is_plain_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn long_value_is_shortened() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(101)), "ä".repeat(100));
    }
}
