//! `/dashboard/workers`: the workers of the fleet.

use maud::{Markup, html};

use super::super::{
    content::{Content, Failure, Refresh, Region, Section},
    format::{As, count, mark, short, time},
    table::{Column, table},
    view::View,
};
use crate::{JobName, core::store::LiveWorker, endpoints::RecentWorkers};

const COLUMNS: [Column; 9] = [
    ("Host", ""),
    ("Process", "number"),
    ("Version", ""),
    ("Up for", "number"),
    ("State", ""),
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

/// The slots of all live workers together.
fn slots(RecentWorkers { live, silent }: &RecentWorkers) -> Markup {
    let sum = |of: fn(&LiveWorker) -> u32| count(live.iter().map(|worker| u64::from(of(worker))).sum());
    html! {
        section aria-label="Slots of all live workers" {
            ul.counts {
                li { div { span.label { "Live workers" } b { (count(live.len() as u64)) } } }
                @if !silent.is_empty() { li { div { span.label { "Silent workers" } b { (count(silent.len() as u64)) } } } }
                li { div { span.label { "Busy" } b { (sum(|worker| worker.info.slots.busy)) } } }
                li { div { span.label { "Idle" } b { (sum(|worker| worker.info.slots.idle)) } } }
                li { div { span.label { "Leaked" } b { (sum(|worker| worker.info.slots.leaked)) } } }
            }
        }
    }
}

fn list(view: &View, workers: &RecentWorkers) -> Markup {
    let rows: Vec<Markup> = workers.all().map(|(worker, is_silent)| row(view, worker, is_silent)).collect();
    html! {
        section {
            h2 { "Workers" }
            @if rows.is_empty() { p.empty { "No worker is live. Jobs wait until one starts." } }
            @else { (table("Workers", &COLUMNS, &rows)) }
            @if !workers.silent.is_empty() {
                p.hint { "A silent worker is dead, frozen or cut off. Its jobs run elsewhere after their leases." }
            }
            p.hint { "A leaked slot is held by a handler that did not stop in time. A restart of its process frees it." }
        }
    }
}

/// Whether a worker is live, or since when it has sent no heartbeat.
pub(super) fn state(worker: &LiveWorker, is_silent: bool) -> Markup {
    html! {
        @if is_silent { (mark("Silent")) " for " (time(worker.last_heartbeat_at, As::Age)) }
        @else { span.status.healthy { "Live" } }
    }
}

fn row(view: &View, worker: &LiveWorker, is_silent: bool) -> Markup {
    let info = &worker.info;
    let id = info.id.to_string();
    let slots = info.slots;
    html! {
        tr id={ "worker-" (id) } {
            th scope="row" { (info.host) " " code title=(id) { (short(&id)) } }
            td.number { (info.pid) }
            td { (info.version) }
            td.number { (time(info.started_at, As::Age)) }
            td { (state(worker, is_silent)) }
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
