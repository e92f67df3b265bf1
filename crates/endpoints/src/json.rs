//! JSON from outside: bounded in depth before it is read.

use serde::de::{DeserializeOwned, IgnoredAny};

/// How deeply values may be nested.
pub(crate) const DEPTH: usize = 128;

/// Reads a value, without the parser's own limit: what comes here was measured by [`depth`] before.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let value = T::deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// The same, with the path to the field that does not fit. To keep it costs time, so it is looked for once it is known
/// that something does not fit.
pub(crate) fn read_with_path<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read(text).or_else(|_| find_misfit(text))
}

fn find_misfit<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        // The parser's own place in the text says less than the path.
        let reason = without_names(reason.split(" at line ").next().unwrap_or_default());
        if path == "." { reason } else { format!("{path}: {reason}") }
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Whether it is JSON, whatever it says.
pub(crate) fn is_any(text: &str) -> Result<(), String> {
    read::<IgnoredAny>(text).map(drop).map_err(|error| error.to_string())
}

/// What the types are called in the source is no client's business.
fn without_names(reason: &str) -> String {
    for kind in ["struct", "unit struct", "tuple struct", "newtype struct", "enum"] {
        if let Some((before, name)) = reason.split_once(&format!("expected {kind} ")) {
            let rest = name.split_once(' ').map_or(String::new(), |(_, rest)| format!(" {rest}"));
            let what = if kind == "enum" { "one of its variants" } else { "an object" };
            return format!("{before}expected {what}{rest}");
        }
    }
    reason.to_owned()
}

/// How deeply the arrays and objects of a JSON text are nested.
pub(crate) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        for (text, expected) in [("1", 0), ("[]", 1), (r#"{"a":[{}],"b":[]}"#, 3), (r#"["[[\"[["]"#, 1), ("[[", 2)] {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_deepest_allowed_value_can_be_read() {
        let text = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
        assert_eq!(depth(text.as_bytes()), DEPTH);
        assert!(read::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_path() {
        #[derive(Debug, serde::Deserialize)]
        struct Order {
            #[expect(dead_code, reason = "only its shape matters")]
            items: Vec<u32>,
        }
        let error = read_with_path::<Order>(r#"{"items":[1,"two"]}"#).expect_err("a string is no number");
        assert_eq!(error, r#"items[1]: invalid type: string "two", expected u32"#);
        let error = read_with_path::<Order>("{}").expect_err("a field is missing");
        assert_eq!(error, "missing field `items`");
        let error = read_with_path::<Order>("null").expect_err("nothing is no order");
        assert_eq!(error, "invalid type: null, expected an object");
        let error = read_with_path::<Order>("[]").expect_err("a list is no order");
        assert_eq!(error, "invalid length 0, expected an object with 1 element");
    }
}
