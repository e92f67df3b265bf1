//! Resource attributes from OpenTelemetry's standard variables.

use opentelemetry::KeyValue;

use crate::error::TelemetryError;

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const EXPECTED: &str = "key=value pairs with commas between them, and , = % in percent-encoding";

/// The attributes of `OTEL_RESOURCE_ATTRIBUTES`, then `service.name` if `OTEL_SERVICE_NAME` is set. Of two attributes with
/// one key, the later counts.
///
/// # Errors
/// A pair without `=` or key, or an invalid percent-encoding. OpenTelemetry's SDK takes neither decoding nor errors from the
/// specification.
pub(crate) fn from_vars(vars: impl Fn(&str) -> Option<String>) -> Result<Vec<KeyValue>, TelemetryError> {
    let pairs = vars(ATTRIBUTES).unwrap_or_default();
    let invalid = || TelemetryError::setting(ATTRIBUTES, pairs.clone(), EXPECTED);
    let entries = pairs.split(',').filter(|pair| !pair.trim().is_empty());
    let decoded = entries.map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (decode(key.trim())?, decode(value.trim())?);
        (!key.is_empty()).then(|| KeyValue::new(key, value))
    });
    let mut attributes = decoded.collect::<Option<Vec<_>>>().ok_or_else(invalid)?;
    attributes.extend(vars("OTEL_SERVICE_NAME").map(|name| KeyValue::new("service.name", name)));
    Ok(attributes)
}

/// Decodes percent-encoding. None if an encoding is incomplete or the result is no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attributes: &str, name: Option<&str>) -> Result<Vec<(String, String)>, TelemetryError> {
        let vars = |variable: &str| if variable == ATTRIBUTES { Some(attributes) } else { name };
        let read = from_vars(|variable| vars(variable).map(str::to_owned))?;
        Ok(read.into_iter().map(|KeyValue { key, value, .. }| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn attributes_are_decoded() {
        let read = read("a=1, b = x%2Cy%3dz%25 ,c=k%C3%A4se,d=,", None).expect("valid pairs");
        let expected = [("a", "1"), ("b", "x,y=z%"), ("c", "käse"), ("d", "")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn service_name_variable_comes_last() {
        let read = read("service.name=attribute", Some("variable")).expect("valid pairs");
        assert_eq!(read.last().map(|(_, name)| name.as_str()), Some("variable"));
    }

    #[test]
    fn invalid_attributes_are_reported() {
        for invalid in ["a", "=1", "a=%", "a=%2", "a=%zz", "a=%+1", "a=%ff"] {
            let error = read(invalid, None).expect_err(invalid).to_string();
            assert!(error.starts_with(&format!("invalid {ATTRIBUTES} {invalid:?}: expected ")), "{error}");
        }
    }
}
