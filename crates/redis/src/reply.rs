//! Takes answers of scripts apart. Knows nothing of their meaning. Errors are logged, so they do not quote values: a value can be
//! a part of a request.

use redis::Value;

use crate::fail::Fail;

/// The items of a list, taken in order.
#[derive(Debug)]
pub(crate) struct Items(std::vec::IntoIter<Value>);

fn unexpected(value: &Value, expected: &str) -> Fail {
    let found = match value {
        Value::Nil => "nil",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "text",
        Value::Array(_) => "a list",
        _ => "a value of another kind",
    };
    Fail::Corrupt(format!("unexpected answer, {found}: expected {expected}"))
}

pub(crate) fn list(value: Value) -> Result<Items, Fail> {
    match value {
        Value::Array(items) => Ok(Items(items.into_iter())),
        other => Err(unexpected(&other, "a list")),
    }
}

pub(crate) fn int(value: Value) -> Result<i64, Fail> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(&other, "a number")),
    }
}

/// A number in the range of `T`.
pub(crate) fn ranged<T: TryFrom<i64>>(number: i64) -> Result<T, Fail> {
    T::try_from(number).map_err(|_| Fail::Corrupt(format!("number {number} is out of range")))
}

/// `None` for nil.
pub(crate) fn maybe(value: Value) -> Result<Option<Vec<u8>>, Fail> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Okay => Ok(Some(b"OK".to_vec())),
        other => Err(unexpected(&other, "text")),
    }
}

/// Decodes one answer for each of `count` items.
pub(crate) fn each<T>(answers: Value, count: usize, decode: impl Fn(Value) -> Result<T, Fail>) -> Result<Vec<T>, Fail> {
    let answers = list(answers)?;
    if answers.len() != count {
        return Err(Fail::Corrupt(format!("{} answers for {count} items", answers.len())));
    }
    answers.map(decode).collect()
}

impl Items {
    pub(crate) fn value(&mut self) -> Result<Value, Fail> {
        self.0.next().ok_or_else(|| Fail::Corrupt("the answer is too short".to_owned()))
    }

    pub(crate) fn int(&mut self) -> Result<i64, Fail> {
        int(self.value()?)
    }

    pub(crate) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, Fail> {
        ranged(self.int()?)
    }

    /// `None` for -1.
    pub(crate) fn maybe_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, Fail> {
        match self.int()? {
            -1 => Ok(None),
            number => ranged(number).map(Some),
        }
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

    /// `None` for empty text.
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
    String::from_utf8(bytes)
        .map_err(|error| Fail::Corrupt(format!("invalid text of {} bytes: expected UTF-8", error.as_bytes().len())))
}

/// Parses a value that is stored as text, a number or an id for example.
pub(crate) fn parse<T: std::str::FromStr>(bytes: &[u8], what: &str) -> Result<T, Fail> {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Fail::Corrupt(format!("invalid {what} of {} bytes", bytes.len())))
}

/// Parses a number that is stored as text.
pub(crate) fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, Fail> {
    parse(bytes, "number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_another_shape_is_corrupt() {
        let is_corrupt = |decoded: Result<(), Fail>| matches!(decoded, Err(Fail::Corrupt(_)));
        assert!(is_corrupt(list(Value::Int(1)).map(drop)));
        assert!(is_corrupt(each(Value::Array(vec![Value::Int(1)]), 2, int).map(drop)));
        let mut items = Items(vec![Value::Int(-1), Value::Int(-2)].into_iter());
        assert!(items.maybe_number::<u64>().is_ok_and(|number| number.is_none()));
        assert!(is_corrupt(items.maybe_number::<u64>().map(drop)));
        assert!(is_corrupt(items.int().map(drop)), "no item is left");
    }
}
