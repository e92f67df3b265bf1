//! `/dashboard/workers`: the live workers of the fleet.

use maud::{Markup, html};

use super::super::{
    content::{Content, Failure, Refresh, Region, Section},
    format::{As, count, short, time},
    table::{Column, table},
    view::View,
};
use crate::{JobName, core::store::LiveWorker};

const COLUMNS: [Column; 9] = [
    ("Host", ""),
    ("Process", "number"),
    ("Version", ""),
    ("Up for", "number"),
    ("Heartbeat", ""),
    ("Busy", "number"),
    ("Idle", "number"),
    ("Leaked", "number"),
    ("Running jobs", "wide"),
];

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let workers = view.endpoints.recent_workers().await?;
    Ok(Content {
        title: "Workers".to_owned(),
        section: Section::Workers,
        regions: vec![Region::new("slots", slots(&workers)), Region::new("workers", list(view, &workers))],
        refresh: Refresh::STATISTICS,
    })
}

/// The slots of all workers together.
fn slots(workers: &[LiveWorker]) -> Markup {
    let sum = |of: fn(&LiveWorker) -> u32| count(workers.iter().map(|worker| u64::from(of(worker))).sum());
    html! {
        section aria-label="Slots of all workers" {
            ul.counts {
                li { div { span.label { "Workers" } b { (count(workers.len() as u64)) } } }
                li { div { span.label { "Busy" } b { (sum(|worker| worker.info.slots.busy)) } } }
                li { div { span.label { "Idle" } b { (sum(|worker| worker.info.slots.idle)) } } }
                li { div { span.label { "Leaked" } b { (sum(|worker| worker.info.slots.leaked)) } } }
            }
        }
    }
}

fn list(view: &View, workers: &[LiveWorker]) -> Markup {
    let rows: Vec<Markup> = workers.iter().map(|worker| row(view, worker)).collect();
    html! {
        section {
            h2 { "Live workers" }
            @if rows.is_empty() { p.empty { "No worker lives. Jobs wait until one starts." } }
            @else { (table("Live workers", &COLUMNS, &rows)) }
            p.hint { "A leaked slot is held by a handler that did not stop in time. A restart of its process frees it." }
        }
    }
}

fn row(view: &View, LiveWorker { info, last_heartbeat_at }: &LiveWorker) -> Markup {
    let id = info.id.to_string();
    let slots = info.slots;
    html! {
        tr id={ "worker-" (id) } {
            th scope="row" { span title=(id) { @if info.host.is_empty() { (short(&id)) } @else { (info.host) } } }
            td.number { (info.pid) }
            td { (info.version) }
            td.number { (time(info.started_at, As::Age)) }
            td { (time(*last_heartbeat_at, As::Ago)) }
            td.number { (slots.busy) }
            td.number { (slots.idle) }
            td.number { @if slots.leaked > 0 { span.status.lost { (slots.leaked) } } @else { "0" } }
            td.wide {
                ul.list { @for of_type in &info.types { li { (running(view, &of_type.name, of_type.running, of_type.limit)) } } }
            }
        }
    }
}

/// How many attempts of a type a worker runs, with a link to the type's running jobs.
fn running(view: &View, name: &JobName, running: u32, limit: u32) -> Markup {
    html! {
        @if running > 0 { a href=(view.link(&format!("/jobs?status=InProgress&name={name}"))) { (name) } }
        @else { (name) }
        " " (running) " of " (limit)
    }
}
