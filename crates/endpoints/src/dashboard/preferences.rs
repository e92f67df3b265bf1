//! Theme and time zone. Cookies keep them, so that no script has to run before the page is drawn.

use axum::http::{HeaderMap, header};

use super::{
    content::{Done, Failure},
    parameters::{Form, own_path},
};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Preferences {
    pub(super) theme: Theme,
    pub(super) zone: Zone,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Theme {
    /// As the browser prefers.
    Auto,
    Light,
    Dark,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// The time zone of the browser, if scripts run.
    Local,
    Utc,
}

impl Theme {
    pub(super) const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

impl Zone {
    pub(super) const ALL: [Self; 2] = [Self::Local, Self::Utc];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Utc => "utc",
        }
    }
}

impl Preferences {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let theme = cookie(headers, "ae_theme").and_then(theme);
        let zone = cookie(headers, "ae_zone").and_then(zone);
        Self { theme: theme.unwrap_or(Theme::Auto), zone: zone.unwrap_or(Zone::Local) }
    }
}

fn theme(name: &str) -> Option<Theme> {
    Theme::ALL.into_iter().find(|theme| theme.name() == name)
}

fn zone(name: &str) -> Option<Zone> {
    Zone::ALL.into_iter().find(|zone| zone.name() == name)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Changes a preference and returns to the page.
pub(super) fn change(form: &Form) -> Result<Done, Failure> {
    let path = own_path(form, "back").unwrap_or_default();
    let mut cookies = Vec::new();
    // Without a path, the cookie is for the folder of this form's address, which is the dashboard.
    let set = |name: &str, value: &str| format!("{name}={value}; Max-Age=31536000; HttpOnly; SameSite=Strict");
    let invalid = |name: &str, expected: &str| Failure::Invalid(format!("invalid {name}: expected {expected}"));
    if let Some(name) = form.get("theme") {
        let theme = theme(name).ok_or_else(|| invalid("theme", "auto, light or dark"))?;
        cookies.push(set("ae_theme", theme.name()));
    }
    if let Some(name) = form.get("zone") {
        let zone = zone(name).ok_or_else(|| invalid("zone", "local or utc"))?;
        cookies.push(set("ae_zone", zone.name()));
    }
    Ok(Done::with_cookies(path, cookies))
}

#[cfg(test)]
mod tests {
    use super::{super::content::Answer, *};

    fn read(cookies: &str) -> (Theme, Zone) {
        let preferences =
            Preferences::read(&HeaderMap::from_iter([(header::COOKIE, cookies.parse().expect("a value"))]));
        (preferences.theme, preferences.zone)
    }

    #[test]
    fn cookies_are_read() {
        assert_eq!(read("a=b; ae_theme=dark; ae_zone=utc"), (Theme::Dark, Zone::Utc));
        assert_eq!(read("ae_theme=<script>; x"), (Theme::Auto, Zone::Local));
    }

    #[test]
    fn change_sets_cookies_and_stays_in_the_dashboard() {
        let opened = |form: &[u8]| match change(&Form::read(form)) {
            Ok(Done { answer: Answer::Open { path, cookies }, .. }) => Some((path, cookies.len())),
            _ => None,
        };
        assert_eq!(opened(b"theme=dark&back=/jobs?name=A"), Some(("/jobs?name=A".to_owned(), 1)));
        assert_eq!(opened(b"zone=utc&back=https://example.com"), Some((String::new(), 1)));
        assert_eq!(opened(b"zone=utc&back=/../../x"), Some((String::new(), 1)));
        assert_eq!(opened(b"theme=blue"), None);
    }
}
