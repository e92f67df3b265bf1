//! Fields whose values are never written.

/// Written instead of the value.
pub(crate) const REDACTED: &str = "[redacted]";

const NAMES: [&str; 8] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "password", "token", "secret"];
const SUFFIXES: [&str; 3] = ["-password", "-token", "-secret"];

/// Whether the value of a field is never logged: credentials by their usual names. Case, and `_` for `-`, make no difference.
/// Of a dotted name, the last part counts.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.as_bytes();
    let last = name.iter().rposition(|byte| *byte == b'.').map_or(name, |dot| &name[dot + 1..]);
    NAMES.iter().any(|secret| is_same(last, secret))
        || SUFFIXES.iter().any(|suffix| {
            let start = last.len().checked_sub(suffix.len());
            start.is_some_and(|start| is_same(&last[start..], suffix))
        })
}

fn is_same(name: &[u8], secret: &str) -> bool {
    let normal = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == secret.len() && name.iter().map(normal).eq(secret.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_secret() {
        for name in ["authorization", "Proxy_Authorization", "set-cookie", "x_api_key", "password", "TOKEN"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["db_password", "refresh-token", "client_secret", "http.request.header.authorization"] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn similar_names_are_no_secrets() {
        for name in ["", "tokens", "token_count", "author", "passwords", "cookie_size", "mytoken", "secret.length"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
