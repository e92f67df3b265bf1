//! The pages and actions by their paths.

mod bulk;
mod charts;
mod failures;
mod filter;
mod health;
mod job;
mod job_type;
mod jobs;
mod jobs_csv;
mod logs;
mod operations;
mod overview;
mod parts;
mod timeline;
mod type_table;
mod types;
mod views;
mod why;
mod workers;

pub(super) use self::jobs_csv::file as jobs_csv;
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
        ["types"] => types::page(view).await,
        ["types", name] => job_type::page(view, name).await,
        ["workers"] => workers::page(view).await,
        ["failures"] => failures::page(view).await,
        ["health"] => health::page(view).await,
        ["operations"] => operations::page(view).await,
        _ => Err(page_of_action(view).map_or(Failure::NoPage, Failure::Moved)),
    }
}

/// Whether the page shows that the store does not answer, next to other data.
pub(super) fn shows_outages(view: &View) -> bool {
    *view.segments() == ["health"]
}

/// The page with the form of an action. It is the browser's address when it shows the result of the action, or why the action
/// was refused.
pub(super) fn page_of_action(view: &View) -> Option<String> {
    match *view.segments() {
        ["login" | "logout" | "preferences"] => Some(String::new()),
        ["jobs", id, ..] => action(view, &Form::read(b"")).map(|_| format!("/jobs/{id}")),
        ["types", name, ..] => action(view, &Form::read(b"")).map(|_| format!("/types/{name}")),
        [page @ ("health" | "operations"), ..] => action(view, &Form::read(b"")).map(|_| format!("/{page}")),
        _ => None,
    }
}

/// The action of a form at the path of the view, as the audit trail names it. A form without one does nothing.
pub(super) fn action(view: &View, form: &Form) -> Option<Action> {
    let senders = view.endpoints.alert_senders();
    let (name, target) = match *view.segments() {
        ["jobs", id, "cancel"] => ("job.cancel", Some(id)),
        ["jobs", id, "retry"] => ("job.retry", Some(id)),
        ["types", name, "pause"] => ("type.pause", Some(name)),
        ["types", name, "resume"] => ("type.resume", Some(name)),
        ["types", name, "limit"] => ("type.limit", Some(name)),
        ["types", name, "unlimit"] => ("type.unlimit", Some(name)),
        ["health", "silences"] => ("silence.create", form.get("rule")),
        ["health", "silences", id, "end"] => ("silence.delete", Some(id)),
        ["health", "test"] => ("alerts.test", senders.as_deref()),
        ["operations", "preview"] => ("bulk.preview", None),
        ["operations", "start"] => ("bulk.start", form.get("preview")),
        ["operations", id, "stop"] => ("bulk.stop", Some(id)),
        _ => return None,
    };
    // The fields `rule` and `preview` are targets.
    let others = form.iter().filter(|(name, value)| !value.is_empty() && !["rule", "preview"].contains(name));
    let values = others.map(|(name, value)| (name.to_owned(), value.into())).collect();
    Some(Action { who: view.caller.who.to_string(), name, target: target.map(str::to_owned), values })
}

/// Does what a form at the path of the view says.
pub(super) async fn act(view: &View, form: &Form) -> Result<Done, Failure> {
    match *view.segments() {
        ["jobs", id, "cancel"] => job::cancel(view, id).await,
        ["jobs", id, "retry"] => job::retry(view, id).await,
        ["types", name, "pause"] => job_type::pause(view, name, form).await,
        ["types", name, "resume"] => job_type::resume(view, name).await,
        ["types", name, "limit"] => job_type::limit(view, name, form).await,
        ["types", name, "unlimit"] => job_type::unlimit(view, name).await,
        ["health", "silences"] => health::silence(view, form).await,
        ["health", "silences", id, "end"] => health::end_silence(view, id).await,
        ["health", "test"] => Ok(health::test(view).await),
        ["operations", "preview"] => bulk::preview(view, form).await,
        ["operations", "start"] => bulk::start(view, form).await,
        ["operations", id, "stop"] => bulk::stop(view, id).await,
        _ => Err(Failure::NoPage),
    }
}
