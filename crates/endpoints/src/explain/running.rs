//! Where and how a job runs.

use async_endpoints_core::{Timestamp, store::LiveWorker};

use super::{
    Facts, Found, Reason, ReasonCode, Viewer,
    text::{duration, reason},
};
use crate::capacity::is_silent;

pub(super) fn reasons(facts: &Facts<'_>) -> Found {
    let started = facts.job.started_at.unwrap_or(facts.now());
    let worker = worker(facts);
    let lost = lease_not_renewed(facts, worker, started);
    let canceling = facts.job.cancel_requested_at.map(|at| {
        let detail = "Its worker asks the handler to stop, and drops it 5 seconds later. A result still counts.";
        reason(ReasonCode::CancelRequested, detail).since(at)
    });
    let overdue = timeout_at(facts, started).filter(|at| *at <= facts.now()).map(|at| {
        let detail = format!("The timeout passed {} ago.", duration(facts.now().since(at)));
        reason(ReasonCode::Overdue, detail).since(at)
    });
    let running = running(facts, worker, started);
    let verdict = match (&lost, &canceling, &overdue) {
        (Some(lost), ..) => silent(facts, lost),
        (None, Some(_), _) => format!("Attempt {} runs, and was asked to stop.", facts.job.attempt),
        (None, None, Some(_)) => format!("Attempt {} runs past its timeout.", facts.job.attempt),
        (None, None, None) => {
            let percent = facts.job.progress.as_ref().and_then(|progress| progress.percent);
            let done = percent.map(|percent| format!(", {percent:.0} % done")).unwrap_or_default();
            let run_time = duration(facts.now().since(started));
            format!("Attempt {} has run for {run_time}{done}.", facts.job.attempt)
        }
    };
    (verdict, [lost, canceling, overdue, Some(running)].into_iter().flatten().collect())
}

/// The live worker that runs the job.
fn worker<'a>(facts: &Facts<'a>) -> Option<&'a LiveWorker> {
    let id = facts.last_attempt()?.worker?;
    facts.stats.workers.iter().find(|live| live.info.id == id)
}

fn timeout_at(facts: &Facts<'_>, started: Timestamp) -> Option<Timestamp> {
    facts.timeout.map(|timeout| started + timeout)
}

fn running(facts: &Facts<'_>, worker: Option<&LiveWorker>, started: Timestamp) -> Reason {
    let at = match (facts.last_attempt().and_then(|attempt| attempt.worker), worker, facts.viewer) {
        (_, Some(live), Viewer::Operator) => {
            let info = &live.info;
            let host = if info.host.is_empty() { "an unknown host" } else { &info.host };
            let age = duration(facts.now().since(live.last_heartbeat_at));
            format!(" on worker {}, process {} on {host}. The worker's last heartbeat is {age} old", info.id, info.pid)
        }
        (_, Some(live), Viewer::Caller) => {
            let age = duration(facts.now().since(live.last_heartbeat_at));
            format!(" on worker {}. The worker's last heartbeat is {age} old", live.info.id)
        }
        (Some(id), None, _) => format!(" on worker {id}, which is not live"),
        (None, None, _) => String::new(),
    };
    let mut detail = format!("Attempt {} runs{at}.", facts.job.attempt);
    if let Some(progress) = &facts.job.progress {
        let total = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let age = duration(facts.now().since(progress.updated_at));
        detail.push_str(&format!(" Its progress, {age} old, is {}{total}.", progress.completed));
    }
    match timeout_at(facts, started) {
        Some(at) if at > facts.now() => {
            detail.push_str(&format!(" It times out in {}.", duration(at.since(facts.now()))));
        }
        _ => {}
    }
    reason(ReasonCode::Running, detail).since(started).until(timeout_at(facts, started))
}

/// A heartbeat renews all leases of its worker. A claim begins a lease, too.
fn lease_not_renewed(facts: &Facts<'_>, worker: Option<&LiveWorker>, started: Timestamp) -> Option<Reason> {
    // The entry of a dead worker expires after two leases. A worker that has just started may have no entry yet.
    let last_heartbeat = worker.map_or(started, |live| live.last_heartbeat_at.max(started));
    let (now, expires) = (facts.now(), last_heartbeat + facts.lease);
    if expires > now && (worker.is_none() || !is_silent(last_heartbeat, now, facts.lease)) {
        return None;
    }
    let heartbeat = match worker {
        Some(live) => format!("is {} old", duration(now.since(live.last_heartbeat_at))),
        None => "has expired".to_owned(),
    };
    let sweep = if expires > now { "first sweep after the lease expires" } else { "next sweep" };
    let detail = format!(
        "The last heartbeat of its worker {heartbeat}, and leases last {}. The {sweep} returns the job to its queue, or fails it \
         if it was lost too often.",
        duration(facts.lease)
    );
    let until = worker.map(|_| expires);
    Some(reason(ReasonCode::LeaseNotRenewed, detail).since(worker.map(|live| live.last_heartbeat_at)).until(until))
}

/// The verdict about a job whose worker is silent.
fn silent(facts: &Facts<'_>, lost: &Reason) -> String {
    let now = facts.now();
    let silent = match lost.since {
        Some(since) => format!("has been silent for {}", duration(now.since(since))),
        None => "is not live".to_owned(),
    };
    match lost.until.filter(|expires| *expires > now) {
        Some(expires) => {
            let left = duration(expires.since(now));
            format!(
                "The worker of the job {silent}. If it stays silent, the job is recovered when its lease expires in {left}."
            )
        }
        None => format!("The worker of the job {silent}, and its lease has expired: the job is to be recovered."),
    }
}
