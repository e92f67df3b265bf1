//! What a page knows of the request.

use std::sync::Arc;

use axum::http::{HeaderMap, Uri};
use tokio::time::Instant;

pub(super) use super::parameters::{Form, Parameters};
use super::{preferences::Preferences, recent_lists::RecentLists};
use crate::{AccessLevel, AsyncEndpoints, http::Granted};

/// The path of the dashboard.
pub(super) const PATH: &str = "/dashboard";

/// A request for a page.
pub(super) struct View {
    pub(super) endpoints: AsyncEndpoints,
    pub(super) lists: Arc<RecentLists>,
    /// The page shows all changes up to this time.
    pub(super) as_of: Instant,
    /// Number of changes of jobs when the request came.
    pub(super) changes: u64,
    /// What the caller may do, and who it is.
    pub(super) caller: Granted,
    pub(super) preferences: Preferences,
    /// The path below `/dashboard`: empty, or with a leading slash.
    path: String,
    query: Parameters,
}

impl View {
    /// `at` is a path below `/dashboard`, with its query.
    pub(super) fn new(
        endpoints: &AsyncEndpoints,
        lists: &Arc<RecentLists>,
        caller: Granted,
        headers: &HeaderMap,
        at: &str,
    ) -> Self {
        let (path, query) = at.split_once('?').unwrap_or((at, ""));
        Self {
            endpoints: endpoints.clone(),
            lists: lists.clone(),
            as_of: Instant::now(),
            changes: endpoints.job_changes_so_far(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    fn view(at: &str) -> View {
        let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints");
        View::new(&endpoints, &Arc::new(RecentLists::new(&endpoints)), Granted::default(), &HeaderMap::new(), at)
    }

    #[test]
    fn links_are_relative_to_the_page() {
        assert_eq!(view("").link("/jobs"), "dashboard/jobs");
        assert_eq!(view("/jobs?name=A").link(""), "../dashboard");
        assert_eq!(view("/jobs/7").link("/jobs"), "../../dashboard/jobs");
        assert_eq!(view("").link_to("/jobs", &[("name", "A"), ("code", "&x")]), "dashboard/jobs?name=A&code=%26x");
    }

    #[test]
    fn link_changes_values_of_the_query() {
        let view = view("/jobs?name=A&cursor=7&code=&q=a%26b");
        assert_eq!(view.at(), "/jobs?name=A&cursor=7&q=a%26b");
        assert_eq!(view.link_with(&[("cursor", None), ("name", Some("B C"))]), "../dashboard/jobs?q=a%26b&name=B+C");
        assert_eq!((view.param("q"), view.param("code"), view.param("x")), (Some("a&b"), None, None));
    }
}
