//! Facts about a job that several pages show.

use maud::{Markup, html};

use super::super::format::{As, count, time};
use crate::{Waiting, WaitingReason, core::job::Progress};

/// A bar where the total is known, and the message.
pub(super) fn progress(progress: &Progress) -> Markup {
    html! {
        @if let Some(percent) = progress.percent {
            progress max="100" value=(format!("{percent:.1}")) aria-label="Progress" {}
            " " (format!("{percent:.0} %"))
        } @else {
            (count(progress.completed)) " done"
        }
        @if let Some(message) = &progress.message { " " (message) }
    }
}

/// Why a job waits, in a few words.
pub(super) fn waiting(waiting: &Waiting) -> Markup {
    let ahead = waiting.ahead.filter(|ahead| *ahead > 0).map(|ahead| format!(", {} ahead", count(ahead)));
    html! {
        @match waiting.reason {
            WaitingReason::Queued => "queued",
            WaitingReason::Delayed => "due",
            WaitingReason::NoWorker => "no live worker takes this type",
            WaitingReason::ConcurrencyLimit => "the type is at its limit",
            WaitingReason::Paused => "paused by an operator",
        }
        @match (waiting.reason, waiting.until) {
            (WaitingReason::Paused, Some(until)) => { " until " (time(until, As::Time)) }
            (_, Some(until)) => { " " (time(until, As::Ago)) }
            (_, None) => {}
        }
        (ahead.unwrap_or_default())
    }
}
