//! Query parameters of the routes for operators and owners.

use std::ops::RangeInclusive;

use super::{codes, problem::Problem};
use crate::text::shortened;

/// Reads these parameters, each of which may occur once. No others are allowed.
pub(super) fn read<const N: usize>(query: &str, names: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let expected = if N == 0 { "no parameter".to_owned() } else { names.join(" or ") };
            return Err(invalid(format!("{:?} is unknown: expected {expected}.", shortened(&name))));
        };
        if values[at].replace(value.into_owned()).is_some() {
            return Err(invalid(format!("{name} must occur once.")));
        }
    }
    Ok(values)
}

/// Fails if there are parameters.
pub(super) fn none(query: &str) -> Result<(), Problem> {
    read(query, []).map(|[]| ())
}

/// Reads a number within bounds, written in digits alone.
pub(super) fn number(name: &str, text: &str, bounds: RangeInclusive<u64>) -> Result<u64, Problem> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_plain && bounds.contains(number));
    number.ok_or_else(|| invalid(format!("{name} must be {} to {}.", bounds.start(), bounds.end())))
}

pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    codes::INVALID_QUERY.with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_in_the_order_of_their_names() {
        let values = |query| read(query, ["window", "name"]).ok();
        assert_eq!(values(""), Some([None, None]));
        assert_eq!(values("name=a%20b"), Some([None, Some("a b".to_owned())]));
        assert_eq!(values("name=&window=5"), Some([Some("5".to_owned()), Some(String::new())]));
        for bad in ["name=a&name=b", "x=1", "Name=a", "name=a&=1"] {
            assert_eq!(values(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_parameter_is_named_with_those_that_exist() {
        let detail = |error: Problem| error.detail().unwrap_or_default().to_owned();
        assert_eq!(none("").map_err(detail), Ok(()));
        assert_eq!(none("a=1").map_err(detail), Err("\"a\" is unknown: expected no parameter.".to_owned()));
        let wrong = read("a=1", ["window", "name"]).map_err(detail);
        assert_eq!(wrong, Err("\"a\" is unknown: expected window or name.".to_owned()));
    }

    #[test]
    fn number_is_digits_within_bounds() {
        for (text, expected) in
            [("1", Some(1)), ("60", Some(60)), ("0", None), ("61", None), ("+1", None), ("", None), ("1.5", None)]
        {
            assert_eq!(number("window", text, 1..=60).ok(), expected, "{text:?}");
        }
    }
}
