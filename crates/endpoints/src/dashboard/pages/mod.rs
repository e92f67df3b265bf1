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
use crate::audit::Action;

/// The page at the path of the view.
pub(super) async fn content(view: &View) -> Result<Content, Failure> {
    match *view.segments() {
        [] => overview::page(view).await,
        ["jobs"] => jobs::page(view).await,
        ["jobs", id] => job::page(view, id).await,
        _ => Err(Failure::NoPage),
    }
}

/// The action of a form at the path of the view, as the audit trail names it. A form without one does nothing.
pub(super) fn action(view: &View) -> Option<Action> {
    let (name, target) = match *view.segments() {
        ["jobs", id, "cancel"] => ("job.cancel", id),
        ["jobs", id, "retry"] => ("job.retry", id),
        _ => return None,
    };
    Some(Action { who: view.caller.who.to_string(), name, target: Some(target.to_owned()) })
}

/// Does what a form at the path of the view says.
pub(super) async fn act(view: &View, _form: &Form) -> Result<Done, Failure> {
    match *view.segments() {
        ["jobs", id, "cancel"] => job::cancel(view, id).await,
        ["jobs", id, "retry"] => job::retry(view, id).await,
        _ => Err(Failure::NoPage),
    }
}
