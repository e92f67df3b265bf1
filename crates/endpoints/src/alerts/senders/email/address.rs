//! Addresses of mails: one sender, and recipients separated by commas.

use lettre::message::Mailbox;

use super::super::SettingError;

/// The address of the sender.
pub(super) fn sender(text: &str) -> Result<Mailbox, SettingError> {
    parse("sender address", text)
}

/// The addresses of recipients, each once. At least one.
pub(super) fn recipients(text: &str) -> Result<Vec<Mailbox>, SettingError> {
    let mut all: Vec<Mailbox> = Vec::new();
    for part in split(text) {
        let mailbox = parse("recipient address", part)?;
        if all.iter().all(|other| other.email != mailbox.email) {
            all.push(mailbox);
        }
    }
    Ok(all)
}

fn parse(setting: &'static str, text: &str) -> Result<Mailbox, SettingError> {
    let text = text.trim();
    let invalid = |reason: &str| SettingError { setting, value: Some(text.to_owned()), reason: reason.to_owned() };
    if text.chars().any(char::is_control) {
        return Err(invalid("it contains a control character"));
    }
    let mailbox: Mailbox = text
        .parse()
        .map_err(|_| invalid("expected an address such as ops@example.com or \"On call\" <ops@example.com>"))?;
    let email: &str = mailbox.email.as_ref();
    // Few servers take other addresses, and these would refuse the mail for all recipients.
    email.is_ascii().then_some(()).ok_or_else(|| invalid("expected an address of ASCII characters"))?;
    Ok(mailbox)
}

/// The parts between commas that are not in quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_separated_by_commas_outside_quotes() {
        for (text, expected) in [
            ("a@example.com", &["a@example.com"][..]),
            (" a@example.com,b@localhost ", &["a@example.com", "b@localhost"]),
            (r#""Ops, \"A\" team" <a@example.com>, B <b@example.com>"#, &["a@example.com", "b@example.com"]),
            ("a@example.com, A <a@example.com>", &["a@example.com"]),
        ] {
            let parsed = recipients(text).unwrap();
            let emails: Vec<&str> = parsed.iter().map(|mailbox| mailbox.email.as_ref()).collect();
            assert_eq!(emails, expected, "{text}");
        }
        let named = recipients(r#""Ops, Berlin" <a@example.com>"#).unwrap();
        assert_eq!(named[0].name.as_deref(), Some("Ops, Berlin"));
    }

    #[test]
    fn invalid_address_is_named() {
        for (text, culprit) in [
            ("", r#""""#),
            ("a@example.com,", r#""""#),
            ("a@example.com, ops", r#""ops""#),
            ("a@example.com b@example.com", r#""a@example.com b@example.com""#),
            ("Ops, Berlin <a@example.com>", r#""Ops""#),
            ("ö@example.com", r#""ö@example.com""#),
            ("a@example.com\r\nBcc: b@example.com", r#""a@example.com\r\nBcc: b@example.com""#),
            (r#""A" <a@example.com"#, r#""\"A\" <a@example.com""#),
        ] {
            let error = recipients(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid recipient address {culprit}: ")), "{text}: {error}");
        }
        assert!(
            sender("nowhere").unwrap_err().to_string().starts_with(r#"invalid sender address "nowhere": expected"#)
        );
    }
}
