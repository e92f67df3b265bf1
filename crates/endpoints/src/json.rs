//! Reading JSON of clients, with a depth limit and with errors that name the field.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_path_to_error::{Path, Segment};

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

/// Why a text cannot be read as a type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The path of the field, such as `items[1]`; empty for the whole value.
    path: String,
    /// The JSON pointer of the field, such as `/items/1`.
    pub(crate) pointer: String,
    pub(crate) reason: String,
}

impl Misfit {
    /// The whole value does not fit.
    fn whole(reason: impl Into<String>) -> Self {
        Self { path: String::new(), pointer: String::new(), reason: reason.into() }
    }

    fn of(path: &Path, error: &serde_json::Error) -> Self {
        // The position in the text is left out in favor of the path.
        let reason = error.to_string();
        let reason = without_type_names(reason.split(" at line ").next().unwrap_or_default());
        let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let pointer = path.iter().filter_map(segment).chain(missing.map(escaped)).collect();
        let path = path.to_string();
        Self { path: if path == "." { String::new() } else { path }, pointer, reason }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.path, self.reason)
    }
}

/// A segment of a JSON pointer.
fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(escaped(key)),
        Segment::Enum { variant } => Some(escaped(variant)),
        Segment::Unknown => None,
    }
}

/// A member name as a segment of a JSON pointer (RFC 6901, 3).
fn escaped(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Reads a value; an error has the path of the field. Tracking the path is slower, so it is done in a second pass after an
/// error.
///
/// Rejects an array for a struct, which a derived `Deserialize` accepts as the values of the fields in their order.
pub(crate) fn read_with_path<T: DeserializeOwned>(text: &str) -> Result<T, Misfit> {
    if text.trim_start().starts_with('[') && is_struct::<T>() {
        return Err(Misfit::whole("invalid type: sequence, expected an object"));
    }
    read(text).or_else(|_| read_tracking_path(text))
}

fn read_tracking_path<T: DeserializeOwned>(text: &str) -> Result<T, Misfit> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| Misfit::of(error.path(), error.inner()))?;
    json.end().map_err(|error| Misfit::whole(error.to_string()))?;
    Ok(value)
}

/// For a field of a struct type: reads an object and rejects an array.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Object(PhantomData))
}

/// Checks that a text is JSON, of any shape.
pub(crate) fn check_syntax(text: &str) -> Result<(), Misfit> {
    read::<IgnoredAny>(text).map(drop).map_err(|error| Misfit::whole(error.to_string()))
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

/// Whether values of a type are read as a struct with named fields.
fn is_struct<T: DeserializeOwned>() -> bool {
    matches!(T::deserialize(Probe), Err(Probed { is_struct: true }))
}

/// A deserializer that fails with the kind of value that the type requests.
struct Probe;

#[derive(Debug)]
struct Probed {
    is_struct: bool,
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Probed;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Probed> {
        Err(Probed { is_struct: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Probed> {
        Err(Probed { is_struct: true })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Probed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Probed> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

impl Error for Probed {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self { is_struct: false }
    }
}

impl std::error::Error for Probed {}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether arrays and objects in a JSON text are nested deeper than [`MAX_DEPTH`].
pub(crate) fn is_too_deep(text: &[u8]) -> bool {
    // Most texts have fewer brackets than levels are allowed. Counting them costs a tenth of finding the depth.
    let opened: usize = text.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count_opened(chunk))).sum();
    opened > MAX_DEPTH && depth(text) > MAX_DEPTH
}

/// The number of opening brackets in at most 255 bytes. A sum of bytes is vectorized.
fn count_opened(text: &[u8]) -> u8 {
    text.iter().map(|byte| u8::from(matches!(byte, b'[' | b'{'))).sum()
}

/// The depth of nested arrays and objects in a JSON text.
fn depth(text: &[u8]) -> usize {
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
    fn only_deep_values_are_too_deep() {
        let levels = |n: usize| "[".repeat(n) + &"]".repeat(n);
        let wide = format!("[{}{{}}]", "{},".repeat(MAX_DEPTH));
        assert!(!is_too_deep(wide.as_bytes()) && !is_too_deep(levels(MAX_DEPTH).as_bytes()));
        assert!(is_too_deep(levels(MAX_DEPTH + 1).as_bytes()));
    }

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
        let refused = |text: &str| {
            let error = read_with_path::<Order>(text).expect_err(text);
            (error.to_string(), error.pointer)
        };
        let both = |text: &str, pointer: &str| (text.to_owned(), pointer.to_owned());
        let number = r#"items[1]: invalid type: string "two", expected u32"#;
        assert_eq!(refused(r#"{"items":[1,"two"]}"#), both(number, "/items/1"));
        assert_eq!(refused("{}"), both("missing field `items`", "/items"));
        assert_eq!(refused("null"), both("invalid type: null, expected an object", ""));
    }

    #[test]
    fn pointer_is_escaped() {
        type Numbers = std::collections::HashMap<String, u32>;
        let error = read_with_path::<Numbers>(r#"{"a/b~c":"x"}"#).expect_err("a string");
        assert_eq!(error.pointer, "/a~1b~0c");
    }

    #[test]
    fn array_is_no_struct() {
        #[derive(Debug, serde::Deserialize)]
        struct Sleep {
            #[expect(dead_code, reason = "only the shape is tested")]
            seconds: f64,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Wrapped(#[expect(dead_code, reason = "only the shape is tested")] Sleep);
        #[derive(Debug, serde::Deserialize)]
        struct Pair(u32, u32);
        let expected = "invalid type: sequence, expected an object";
        for text in ["[0]", " \n[0]", "[]"] {
            assert_eq!(read_with_path::<Sleep>(text).expect_err(text).to_string(), expected);
            assert_eq!(read_with_path::<Option<Sleep>>(text).expect_err(text).to_string(), expected);
            assert_eq!(read_with_path::<Box<Wrapped>>(text).expect_err(text).to_string(), expected);
        }
        assert!(read_with_path::<Sleep>(r#"{"seconds":0}"#).is_ok());
        assert!(matches!(read_with_path("[1,2]"), Ok(Pair(1, 2))));
        assert!(matches!(read_with_path("[1,2]"), Ok((1, 2))));
        assert!(read_with_path::<Vec<u32>>("[1]").is_ok() && read_with_path::<serde_json::Value>("[1]").is_ok());
    }
}
