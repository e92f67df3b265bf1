//! Names and values of queries and forms.

/// Decoded names and values of a query or form.
pub(super) struct Parameters(Vec<(String, String)>);

/// The fields of a form.
pub(super) type Form = Parameters;

impl Parameters {
    pub(super) fn read(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The last value of this name; `None` if it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }
}

/// The path of a form's field, if it is a path below `/dashboard`. Browsers resolve `..` and read a backslash as a slash, so a
/// path with these could lead elsewhere.
pub(super) fn own_path(form: &Form, name: &str) -> Option<String> {
    let path = form.get(name).filter(|path| path.starts_with('/'))?;
    let plain = path.split(['?', '#']).next().unwrap_or_default().to_lowercase().replace("%2e", ".");
    let is_above = plain.split('/').any(|segment| segment == "." || segment == "..");
    (!is_above && !path.contains(|c: char| c == '\\' || c.is_control())).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_path_stays_below_the_dashboard() {
        let own = |path: &str| {
            let form = form_urlencoded::Serializer::new(String::new()).append_pair("back", path).finish();
            own_path(&Form::read(form.as_bytes()), "back").is_some()
        };
        for path in ["/jobs", "/jobs?q=../..&code=a%2Fb", "/jobs/7", "/types/a..b", "//jobs", "/"] {
            assert!(own(path), "{path}");
        }
        for path in [
            "",
            "jobs",
            "https://example.com/",
            "/..",
            "/../../x",
            "/jobs/../../x",
            "/./x",
            "/%2e%2E/x",
            "/.%2e/x",
            "/..\\x",
            "/.\t./x",
            "/..?q=a",
            "/..#a",
        ] {
            assert!(!own(path), "{path}");
        }
    }
}
