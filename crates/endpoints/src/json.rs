//! Reading JSON of clients, with a depth limit and with errors that name the field.

use serde::de::{DeserializeOwned, IgnoredAny};

/// Maximum depth of nested values.
pub(crate) const MAX_DEPTH: usize = 128;

/// Reads a value. The caller has checked the [`depth`], so the parser's own limit is off.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let value = T::deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// Reads a value; an error has the path of the field. Tracking the path is slower, so it is done in a second pass after an
/// error.
pub(crate) fn read_with_path<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read(text).or_else(|_| read_tracking_path(text))
}

fn read_tracking_path<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        // The position in the text is left out in favor of the path.
        let reason = without_type_names(reason.split(" at line ").next().unwrap_or_default());
        if path == "." { reason } else { format!("{path}: {reason}") }
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Checks that a text is JSON, of any shape.
pub(crate) fn check_syntax(text: &str) -> Result<(), String> {
    read::<IgnoredAny>(text).map(drop).map_err(|error| error.to_string())
}

/// Replaces names of Rust types in a parser error.
fn without_type_names(reason: &str) -> String {
    for kind in ["struct", "unit struct", "tuple struct", "newtype struct", "enum"] {
        if let Some((before, name)) = reason.split_once(&format!("expected {kind} ")) {
            let rest = name.split_once(' ').map_or(String::new(), |(_, rest)| format!(" {rest}"));
            let what = if kind == "enum" { "one of its variants" } else { "an object" };
            return format!("{before}expected {what}{rest}");
        }
    }
    reason.to_owned()
}

/// The depth of nested arrays and objects in a JSON text.
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
    fn depth_ignores_brackets_in_strings() {
        for (text, expected) in [("1", 0), ("[]", 1), (r#"{"a":[{}],"b":[]}"#, 3), (r#"["[[\"[["]"#, 1), ("[[", 2)] {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn value_of_maximum_depth_is_read() {
        let text = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(depth(text.as_bytes()), MAX_DEPTH);
        assert!(read::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn error_has_path_of_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Order {
            #[expect(dead_code, reason = "only the shape is tested")]
            items: Vec<u32>,
        }
        let error = read_with_path::<Order>(r#"{"items":[1,"two"]}"#).expect_err("a string in a list of numbers");
        assert_eq!(error, r#"items[1]: invalid type: string "two", expected u32"#);
        let error = read_with_path::<Order>("{}").expect_err("a missing field");
        assert_eq!(error, "missing field `items`");
        let error = read_with_path::<Order>("null").expect_err("null");
        assert_eq!(error, "invalid type: null, expected an object");
        let error = read_with_path::<Order>("[]").expect_err("a list");
        assert_eq!(error, "invalid length 0, expected an object with 1 element");
    }
}
