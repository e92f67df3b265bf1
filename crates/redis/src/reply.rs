//! Answers of scripts, taken apart. Must not know what they mean.

use redis::Value;

use crate::fail::Fail;

/// The items of a list, taken in order.
#[derive(Debug)]
pub(crate) struct Items(std::vec::IntoIter<Value>);

fn unexpected(value: &Value, expected: &str) -> Fail {
    let shown: String = format!("{value:?}").chars().take(200).collect();
    Fail::Bad(format!("{expected} was expected, not {shown}"))
}

pub(crate) fn list(value: Value) -> Result<Items, Fail> {
    match value {
        Value::Array(items) => Ok(Items(items.into_iter())),
        other => Err(unexpected(&other, "a list")),
    }
}

pub(crate) fn int(value: &Value) -> Result<i64, Fail> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(unexpected(other, "a number")),
    }
}

/// None for nil.
pub(crate) fn maybe(value: Value) -> Result<Option<Vec<u8>>, Fail> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Okay => Ok(Some(b"OK".to_vec())),
        other => Err(unexpected(&other, "text")),
    }
}

impl Items {
    pub(crate) fn value(&mut self) -> Result<Value, Fail> {
        self.0.next().ok_or_else(|| Fail::Bad("an answer was too short".to_owned()))
    }

    pub(crate) fn int(&mut self) -> Result<i64, Fail> {
        int(&self.value()?)
    }

    /// A number that counts something.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, Fail> {
        let number = self.int()?;
        T::try_from(number).map_err(|_| Fail::Bad(format!("{number} is out of range")))
    }

    pub(crate) fn maybe(&mut self) -> Result<Option<Vec<u8>>, Fail> {
        maybe(self.value()?)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Fail> {
        Ok(self.maybe()?.unwrap_or_default())
    }

    pub(crate) fn text(&mut self) -> Result<String, Fail> {
        text(self.bytes()?)
    }

    /// None if it is empty.
    pub(crate) fn maybe_text(&mut self) -> Result<Option<String>, Fail> {
        Ok(Some(self.text()?).filter(|text| !text.is_empty()))
    }

    pub(crate) fn list(&mut self) -> Result<Self, Fail> {
        list(self.value()?)
    }
}

impl Iterator for Items {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Items {}

pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Fail> {
    String::from_utf8(bytes).map_err(|error| Fail::Bad(format!("\"{}\" is no text", shown(error.as_bytes()))))
}

/// The beginning of what is stored, for an error's text.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(100);
    let more = if end < bytes.len() { "…" } else { "" };
    format!("{}{more}", bytes[..end].escape_ascii())
}

/// A number written as text.
pub(crate) fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, Fail> {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Fail::Bad(format!("\"{}\" is no number", shown(bytes))))
}
