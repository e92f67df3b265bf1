//! Parts that forms have in common.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use super::{
    content::Failure,
    view::{Form, View},
};
use crate::{Timestamp, text::shortened};

const HOUR: u64 = 60 * 60;

/// The spans of time that an operator chooses from, in seconds. A span means the same in all time zones.
const SPANS: [(u64, &str); 7] = [
    (HOUR / 4, "15 minutes"),
    (HOUR, "1 hour"),
    (4 * HOUR, "4 hours"),
    (8 * HOUR, "8 hours"),
    (24 * HOUR, "1 day"),
    (3 * 24 * HOUR, "3 days"),
    (7 * 24 * HOUR, "7 days"),
];

/// A choice of how long something lasts. `endless` is the name of no end, if that is possible.
pub(super) fn span(endless: Option<&str>) -> Markup {
    html! {
        label {
            "For"
            select name="for" {
                @if let Some(endless) = endless { option value="" { (endless) } }
                @for (seconds, name) in SPANS { option value=(seconds) { (name) } }
            }
        }
    }
}

/// The end of the chosen span, which begins now. None if it has no end.
pub(super) fn end_of_span(form: &Form) -> Result<Option<Timestamp>, Failure> {
    let Some(text) = form.get("for") else { return Ok(None) };
    let span = SPANS.into_iter().find(|(seconds, _)| seconds.to_string() == text);
    let (seconds, _) =
        span.ok_or_else(|| Failure::Invalid(format!("invalid for {:?}: expected a listed span", shortened(text))))?;
    Ok(Some(Timestamp::from(SystemTime::now()) + Duration::from_secs(seconds)))
}

/// What the last action did: the text of the name in the query.
pub(super) fn notice(view: &View, texts: &[(&str, &str)]) -> Markup {
    let named = view.param("notice");
    let text = texts.iter().find(|(name, _)| named == Some(name));
    html! { @if let Some((_, text)) = text { p.notice role="status" { (text) } } }
}

/// A form behind a disclosure, which asks for a confirmation without scripts. `id` is unique on the page.
pub(super) fn confirmed(id: &str, name: &str, action: &str, fields: &Markup) -> Markup {
    html! {
        details.action id=(id) {
            summary { (name) "…" }
            form method="post" action=(action) { (fields) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_is_one_of_the_list() {
        let end = |form: &str| end_of_span(&Form::read(form.as_bytes()));
        let before = Timestamp::from(SystemTime::now());
        let hour = end("for=3600").expect("valid").expect("an end");
        assert!(hour >= before + Duration::from_secs(HOUR) && hour <= before + Duration::from_secs(HOUR + 60));
        assert_eq!(end("for=").expect("valid"), None);
        for bad in ["for=1", "for=x", "for=-900", "for=%3Cb%3E"] {
            assert!(matches!(end(bad), Err(Failure::Invalid(_))), "{bad}");
        }
    }
}
