//! What a page knows of the request.

use axum::http::{HeaderMap, Uri};

pub(super) use super::parameters::{Form, Parameters};
use super::preferences::Preferences;
use crate::{AccessLevel, AsyncEndpoints, http::Granted};

/// The path of the dashboard.
pub(super) const PATH: &str = "/dashboard";

/// A request for a page.
pub(super) struct View {
    pub(super) endpoints: AsyncEndpoints,
    /// What the caller may do, and who it is.
    pub(super) caller: Granted,
    pub(super) preferences: Preferences,
    /// The path below `/dashboard`: empty, or with a leading slash.
    path: String,
    query: Parameters,
}

impl View {
    /// `at` is a path below `/dashboard`, with its query.
    pub(super) fn new(endpoints: &AsyncEndpoints, caller: Granted, headers: &HeaderMap, at: &str) -> Self {
        let (path, query) = at.split_once('?').unwrap_or((at, ""));
        Self {
            endpoints: endpoints.clone(),
            caller,
            preferences: Preferences::read(headers),
            path: path.to_owned(),
            query: Parameters::read(query.as_bytes()),
        }
    }

    /// Whether the caller may use actions.
    pub(super) fn may_operate(&self) -> bool {
        self.caller.level >= AccessLevel::Operate
    }

    /// The segments of the path below `/dashboard`.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.split('/').skip(1).collect()
    }

    /// A value of the query; `None` if it is missing or empty.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }

    /// A link to a path below `/dashboard`, relative to the page.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}dashboard{path}", "../".repeat(self.path.matches('/').count()))
    }

    /// A link to a path below `/dashboard` with this query.
    pub(super) fn link_to(&self, path: &str, query: &[(&str, &str)]) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        self.link(&format!("{path}?{query}"))
    }

    /// A link to this page with these values of the query in place of the page's own. `None` removes a value.
    pub(super) fn link_with(&self, changes: &[(&str, Option<&str>)]) -> String {
        self.link(&self.at_with(changes))
    }

    /// The path of this page below `/dashboard`, with its query.
    pub(super) fn at(&self) -> String {
        self.at_with(&[])
    }

    /// The path of this page below `/dashboard` with these values of the query in place of the page's own.
    pub(super) fn at_with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let is_kept =
            |name: &str, value: &str| !value.is_empty() && changes.iter().all(|(changed, _)| *changed != name);
        let own = self.query.iter();
        let kept = own.filter(|(name, value)| is_kept(name, value));
        let new = changes.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept.chain(new)).finish();
        if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) }
    }
}

/// The path and query of a request below `/dashboard`.
pub(super) fn at(uri: &Uri) -> &str {
    let whole = uri.path_and_query().map_or("", |whole| whole.as_str());
    whole.strip_prefix(PATH).unwrap_or_default()
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
    use crate::MemoryStore;

    fn view(at: &str) -> View {
        let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints");
        View::new(&endpoints, Granted::default(), &HeaderMap::new(), at)
    }

    #[test]
    fn links_are_relative_to_the_page() {
        assert_eq!(view("").link("/jobs"), "dashboard/jobs");
        assert_eq!(view("/jobs?name=A").link(""), "../dashboard");
        assert_eq!(view("/jobs/7").link("/jobs"), "../../dashboard/jobs");
        assert_eq!(view("").link_to("/jobs", &[("name", "A"), ("code", "&x")]), "dashboard/jobs?name=A&code=%26x");
    }

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

    #[test]
    fn link_changes_values_of_the_query() {
        let view = view("/jobs?name=A&cursor=7&code=&q=a%26b");
        assert_eq!(view.at(), "/jobs?name=A&cursor=7&q=a%26b");
        assert_eq!(view.link_with(&[("cursor", None), ("name", Some("B C"))]), "../dashboard/jobs?q=a%26b&name=B+C");
        assert_eq!((view.param("q"), view.param("code"), view.param("x")), (Some("a&b"), None, None));
    }
}
