//! The pages and actions by their paths.

mod filter;
mod job;
mod jobs;
mod logs;
mod overview;
mod timeline;

use super::{
    content::{Content, Done, Failure},
    view::{Form, View},
};

/// The page at the path of the view.
pub(super) async fn content(view: &View) -> Result<Content, Failure> {
    match *view.segments() {
        [] => overview::page(view).await,
        ["jobs"] => jobs::page(view).await,
        ["jobs", id] => job::page(view, id).await,
        _ => Err(Failure::NoPage),
    }
}

/// Does what a form at the path of the view says.
pub(super) async fn act(view: &View, _form: &Form) -> Result<Done, Failure> {
    match *view.segments() {
        ["jobs", id, "cancel"] => job::cancel(view, id).await,
        ["jobs", id, "retry"] => job::retry(view, id).await,
        _ => Err(Failure::NoPage),
    }
}
