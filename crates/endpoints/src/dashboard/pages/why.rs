//! Why a job is in its state, and when it starts.

use maud::{Markup, html};

use super::super::format::{As, count, time};
use crate::{Explained, Reason};

pub(super) fn section(explained: &Explained) -> Markup {
    let workers = &explained.workers;
    html! {
        section {
            h2 { "Why" }
            p.verdict { (explained.verdict) }
            ul.reasons { @for reason in &explained.reasons { (self::reason(reason)) } }
            p.quiet {
                @if let Some(position) = &explained.position {
                    @if !position.exact { "about " } (count(position.ahead)) " of its type ahead · "
                }
                (count(workers.live))
                @if workers.live == 1 { " live worker, " } @else { " live workers, " }
                (count(workers.taking)) " with a handler, "
                (count(workers.free)) @if workers.free == 1 { " free slot" } @else { " free slots" }
            }
            @if let Some(estimate) = &explained.estimate {
                p { "Expected start: " (time(estimate.from, As::Ago)) " to " (time(estimate.to, As::Ago)) ". " span.quiet { (estimate.basis) } }
            }
        }
    }
}

fn reason(reason: &Reason) -> Markup {
    html! {
        li {
            (reason.detail)
            @if let Some(since) = reason.since { " Since " (time(since, As::Time)) "." }
            @if let Some(until) = reason.until { " Until " (time(until, As::Time)) "." }
        }
    }
}
