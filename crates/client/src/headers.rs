//! Headers that the caller sets.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::Error;

/// Adds a header. Its value may be secret, and is in neither errors nor debug output.
pub(crate) fn with(mut headers: HeaderMap, name: &str, value: &str) -> Result<HeaderMap, Error> {
    let invalid = |what, expected| Error::Invalid { what, value: name.to_owned(), expected };
    let header: HeaderName = name.parse().map_err(|_| invalid("header name", "a name such as x-tenant"))?;
    let mut value =
        HeaderValue::from_str(value).map_err(|_| invalid("value of header", "visible characters and spaces"))?;
    value.set_sensitive(true);
    headers.insert(header, value);
    Ok(headers)
}
