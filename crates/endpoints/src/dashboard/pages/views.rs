//! Filters of the list of jobs by name: some for all, and those that the browser keeps.

use maud::{Markup, html};

use super::super::view::View;

/// Names and queries.
const VIEWS: [(&str, &str); 4] = [
    ("Waiting", "status=Queued"),
    ("Running", "status=InProgress"),
    ("Failed, last ended first", "status=Failed"),
    ("Failed, accepted in the last hour", "status=Failed&since=1h"),
];

/// Links to filters. The script adds the user's own ones and shows the form that keeps the filter of the page.
pub(super) fn views(view: &View) -> Markup {
    html! {
        nav.views aria-label="Views" data-views=(view.link("/jobs")) {
            @for (name, query) in VIEWS {
                @let path = format!("/jobs?{query}");
                a href=(view.link(&path)) aria-current=[(view.at() == path).then_some("true")] { (name) }
            }
            details #save-view hidden {
                summary { "Save view…" }
                form {
                    label { "Name" input name="view" required maxlength="40" size="14" autocomplete="off"; }
                    button { "Save" }
                }
            }
            noscript { span.quiet { "To keep a filter, bookmark this page." } }
        }
    }
}
