//! Buttons that preview a bulk operation.

use maud::{Markup, html};

use super::{super::view::View, filter::Filter};

/// A button that previews an action on all jobs of a filter. The preview asks for the confirmation.
pub(super) fn button(view: &View, action: &str, text: &str, filter: &[(&str, String)]) -> Markup {
    html! {
        @if view.may_operate() {
            form method="post" action=(view.link("/operations/preview")) {
                input type="hidden" name="action" value=(action);
                @for (name, value) in filter { input type="hidden" name=(name) value=(value); }
                button { (text) }
            }
        }
    }
}

/// The buttons of a job list, for all jobs that match its filter.
pub(super) fn buttons(view: &View, filter: &Filter<'_>) -> Markup {
    let filter = filter.fields();
    let (can_retry, can_cancel) = match view.param("status") {
        None => (true, true),
        Some("Queued" | "Scheduled" | "InProgress") => (false, true),
        Some("Failed" | "Canceled") => (true, false),
        Some(_) => (false, false),
    };
    html! {
        @if view.may_operate() && (can_retry || can_cancel) {
            div.actions role="group" aria-label="All matching jobs" {
                span { "All matching jobs:" }
                @if can_retry { (button(view, "retry", "Retry…", &filter)) }
                @if can_cancel { (button(view, "cancel", "Cancel…", &filter)) }
            }
        }
    }
}
