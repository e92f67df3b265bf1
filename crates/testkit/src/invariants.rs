//! What must hold whatever was called: contradictions among answers, and between answers and what is stored.
//! Must not know how a store works.

use std::collections::{BTreeMap, BTreeSet};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobStore as _, JobView, Store, Timestamp,
    job::AttemptOutcome,
    limits::{ATTEMPTS_KEPT, KEY_SECONDS, PAGE_JOBS, SWEEP_JOBS},
    store::{Attempt, JobLookup, Lease, ListFilter, Page, Settled, Stats, StatsQuery},
};

use crate::checked::{Accepted, Checked, Record, Seen};

/// What the store says when all is quiet.
struct Now {
    at: Timestamp,
    found: BTreeMap<JobId, JobLookup>,
    all: Vec<JobView>,
    by_status: Vec<(JobStatus, Vec<JobView>)>,
    stats: Stats,
}

/// Finds everything wrong, and says all of it.
pub(crate) async fn verify<S: Store>(store: &Checked<S>) {
    let now = look(store).await;
    let mut wrong = Vec::new();
    {
        let record = store.record();
        for ((id, _), seen) in &record.seen {
            history(*id, seen, &mut wrong);
        }
        accepted(&record, &now, &mut wrong);
        keys(&record, &mut wrong);
        leases(&record, &now, &mut wrong);
        starts(&record, &mut wrong);
    }
    indexes(&now, &mut wrong);
    counts(&now, &mut wrong);
    assert!(wrong.is_empty(), "{} violations of the store contract:\n- {}", wrong.len(), wrong.join("\n- "));
}

/// Expired jobs go first: counts may hold them until they are pruned. Counts come before lists, lists before
/// jobs, because what is ended can only vanish meanwhile.
async fn look<S: Store>(store: &Checked<S>) -> Now {
    while store.prune(SWEEP_JOBS).await.expect("prune while verifying") >= SWEEP_JOBS {}
    let stats = store.stats(&StatsQuery::default()).await.expect("stats while verifying");
    let all = list_all(store, None).await;
    let mut by_status = Vec::new();
    for status in JobStatus::ALL {
        by_status.push((status, list_all(store, Some(status)).await));
    }
    let ids: BTreeSet<JobId> = store.record().accepted.keys().copied().chain(all.iter().map(|job| job.id)).collect();
    let mut found = BTreeMap::new();
    for id in ids {
        found.insert(id, store.get(id).await.expect("get while verifying"));
    }
    let at = store.stats(&StatsQuery::default()).await.expect("stats while verifying").now;
    Now { at, found, all, by_status, stats }
}

async fn list_all<S: Store>(store: &Checked<S>, status: Option<JobStatus>) -> Vec<JobView> {
    let filter = ListFilter { status, name: None };
    let (mut cursor, mut jobs) = (None, Vec::new());
    loop {
        let page = store.list(&filter, &Page { cursor, limit: PAGE_JOBS }).await.expect("list while verifying");
        jobs.extend(page.jobs);
        cursor = page.next;
        if cursor.is_none() {
            return jobs;
        }
    }
}

/// What must be equal of two answers that carry the same version.
fn comparable(view: &JobView, whole: bool) -> JobView {
    let result = if whole { view.result.clone() } else { None };
    JobView { ahead: None, result, ..view.clone() }
}

/// All that was seen of one job.
fn history(id: JobId, seen: &[Seen], wrong: &mut Vec<String>) {
    versions_never_fall(id, seen, wrong);
    let mut ordered: Vec<&Seen> = seen.iter().collect();
    ordered.sort_by_key(|one| one.view.version);
    for one in &ordered {
        alone(&one.view, wrong);
    }
    for pair in ordered.windows(2) {
        let whole = pair[0].whole && pair[1].whole;
        let (before, after) = (comparable(&pair[0].view, whole), comparable(&pair[1].view, whole));
        if before.version == after.version {
            if before != after {
                wrong.push(format!("{id}: two views with one version:\n  {before:?}\n  {after:?}"));
            }
        } else {
            follows(&before, &after, wrong);
        }
    }
    ended_for_ever(id, &ordered, wrong);
}

/// An answer that came before another call was made cannot be newer than that call's answer.
fn versions_never_fall(id: JobId, seen: &[Seen], wrong: &mut Vec<String>) {
    let mut answered: Vec<(u64, u64)> = seen.iter().map(|one| (one.answered_at, one.view.version)).collect();
    answered.sort_unstable();
    let mut highest = 0;
    for entry in &mut answered {
        highest = highest.max(entry.1);
        entry.1 = highest;
    }
    for one in seen {
        let before = answered.partition_point(|(answered, _)| *answered < one.asked_at);
        if before > 0 && answered[before - 1].1 > one.view.version {
            wrong.push(format!("{id}: version fell from {} to {}", answered[before - 1].1, one.view.version));
        }
    }
}

/// What must hold of every view for itself.
fn alone(view: &JobView, wrong: &mut Vec<String>) {
    let mut must = |holds: bool, rule: &str| {
        if !holds {
            wrong.push(format!("{}: {rule}: {view:?}", view.id));
        }
    };
    let (running, ended) = (view.status == JobStatus::InProgress, view.status.is_terminal());
    let starts = u64::from(view.retry_count) + u64::from(view.loss_count) + u64::from(view.release_count);
    must(u64::from(view.attempt) <= 1 + starts, "attempt ≤ 1 + retries + losses + releases");
    must(view.completed_at.is_some() == ended && view.expires_at.is_some() == ended, "times of an end, if ended");
    must(view.result.is_none() || view.status == JobStatus::Completed, "a result only if completed");
    must(view.status != JobStatus::Completed || view.error.is_none(), "no error if completed");
    must(!matches!(view.status, JobStatus::Failed | JobStatus::Canceled) || view.error.is_some(), "why it ended");
    must(view.started_at.is_some() == (view.attempt > 0), "started if there was an attempt");
    must(view.attempts.len() == ATTEMPTS_KEPT.min(view.attempt as usize), "the last attempts are remembered");
    must(view.attempts.last().is_none_or(|last| last.attempt == view.attempt), "the latest attempt comes last");
    let open = view.attempts.iter().filter(|attempt| attempt.ended_at.is_none()).count();
    must(open == usize::from(running), "one attempt without an end if it runs, else none");
    let completed = view.attempts.iter().filter(|attempt| attempt.outcome == Some(AttemptOutcome::Completed)).count();
    must(completed == usize::from(view.status == JobStatus::Completed), "completes once");
    let began = matches!(view.status, JobStatus::InProgress | JobStatus::Completed | JobStatus::Failed);
    must(!began || view.started_at >= view.scheduled_at, "no start before it is due");
    must(view.ahead.is_none() || view.status == JobStatus::Queued, "a place only while queued");
}

/// What must hold between an older and a newer view.
fn follows(before: &JobView, after: &JobView, wrong: &mut Vec<String>) {
    let mut must = |holds: bool, rule: &str| {
        if !holds {
            wrong.push(format!("{}: {rule}:\n  {before:?}\n  {after:?}", before.id));
        }
    };
    let counted = |view: &JobView| [view.attempt, view.retry_count, view.loss_count, view.release_count];
    let grew = counted(before).iter().zip(counted(after)).all(|(old, new)| *old <= new);
    must(grew, "counters never fall");
    must(before.last_updated_at <= after.last_updated_at, "time never falls");
    let fixed = |view: &JobView| {
        let who = (view.name.clone(), view.owner, view.created_at, view.trace.clone());
        (who, view.priority, view.max_retries, view.retry_of)
    };
    must(fixed(before) == fixed(after), "what was submitted never changes");
    must(before.retried_by.is_none() || before.retried_by == after.retried_by, "repeated once");
    must(before.cancel_requested_at.is_none() || before.cancel_requested_at == after.cancel_requested_at, "asked once");
    let same = JobView { version: after.version, ..comparable(before, true) };
    must(same != comparable(after, true), "the version moves only with what can be seen");
}

/// Nothing about an ended job changes, but that it was repeated.
fn ended_for_ever(id: JobId, ordered: &[&Seen], wrong: &mut Vec<String>) {
    let Some(end) = ordered.iter().position(|one| one.view.status.is_terminal()) else { return };
    for later in &ordered[end + 1..] {
        let whole = ordered[end].whole && later.whole;
        let before = comparable(&ordered[end].view, whole);
        let after = JobView { version: before.version, ..comparable(&later.view, whole) };
        if (JobView { retried_by: after.retried_by, ..before.clone() }) != after {
            wrong.push(format!("{id}: an ended job changed:\n  {before:?}\n  {after:?}"));
        }
    }
}

/// Whatever was accepted is there, or was long enough.
fn accepted(record: &Record, now: &Now, wrong: &mut Vec<String>) {
    for (id, Accepted { created_at, retention, .. }) in &record.accepted {
        let kept = now.at.since(*created_at);
        let may = |times: u32| retention.is_some_and(|retention| kept >= retention * times);
        match &now.found[id] {
            JobLookup::Found(_) => {}
            JobLookup::Gone { .. } if may(1) => {}
            JobLookup::NotFound if may(2) => {}
            lost => wrong.push(format!("{id}: accepted {kept:?} ago, now {lost:?}")),
        }
    }
}

/// A key means one job for a day at least.
fn keys(record: &Record, wrong: &mut Vec<String>) {
    let mut jobs: BTreeMap<_, Vec<(Timestamp, JobId)>> = BTreeMap::new();
    for (key, id, created_at) in &record.keys {
        jobs.entry(key).or_default().push((*created_at, *id));
    }
    for (key, mut jobs) in jobs {
        jobs.sort_unstable();
        jobs.dedup();
        for pair in jobs.windows(2) {
            if pair[1].0.since(pair[0].0).as_secs() < KEY_SECONDS {
                wrong.push(format!("key {key:?} made two jobs: {pair:?}"));
            }
        }
    }
}

/// A lease ends once, by its settlement or by a sweep.
fn leases(record: &Record, now: &Now, wrong: &mut Vec<String>) {
    let mut answers: BTreeMap<Lease, BTreeSet<JobStatus>> = BTreeMap::new();
    for (lease, settled) in &record.settled {
        if let Settled::Settled(status) = settled {
            answers.entry(*lease).or_default().insert(*status);
        }
    }
    for (lease, states) in answers.iter().filter(|(_, states)| states.len() > 1) {
        wrong.push(format!("{lease:?} settled to several states: {states:?}"));
    }
    let mut started: BTreeMap<(JobId, u32), Lease> = BTreeMap::new();
    let latest = |attempt: &&Attempt| {
        record.accepted.get(&attempt.lease.job).is_none_or(|job| job.created_at <= attempt.created_at)
    };
    for attempt in record.claims.iter().filter(latest) {
        if started.insert((attempt.lease.job, attempt.attempt), attempt.lease).is_some() {
            wrong.push(format!("{}: attempt {} started twice", attempt.lease.job, attempt.attempt));
        }
    }
    let mut taken = BTreeSet::new();
    for lost in &record.recovered {
        if !taken.insert((lost.id, lost.attempt)) {
            wrong.push(format!("{}: attempt {} was recovered twice", lost.id, lost.attempt));
        }
        if let Some(states) = started.get(&(lost.id, lost.attempt)).and_then(|lease| answers.get(lease)) {
            wrong.push(format!("{lost:?}, yet its lease settled: {states:?}"));
        }
    }
    for (attempt, lease) in &started {
        remembered(*attempt, answers.get(lease), taken.contains(attempt), now, wrong);
    }
}

/// The job remembers the end of an attempt as its worker was told.
fn remembered(
    (id, attempt): (JobId, u32),
    settled: Option<&BTreeSet<JobStatus>>,
    taken: bool,
    now: &Now,
    wrong: &mut Vec<String>,
) {
    let Some(JobLookup::Found(view)) = now.found.get(&id) else { return };
    let Some(kept) = view.attempts.iter().find(|kept| kept.attempt == attempt) else { return };
    let fits = |status: &JobStatus| {
        use AttemptOutcome as Out;
        matches!(
            (kept.outcome, status),
            (Some(Out::Completed), JobStatus::Completed)
                | (Some(Out::Retried), JobStatus::Scheduled)
                | (Some(Out::Failed), JobStatus::Failed)
                | (Some(Out::Canceled), JobStatus::Canceled)
                | (Some(Out::Released), JobStatus::Queued)
        )
    };
    if settled.is_some_and(|states| !states.iter().all(fits)) {
        wrong.push(format!("{id}: attempt {attempt} settled to {settled:?} but is remembered as {kept:?}"));
    }
    if taken && !matches!(kept.outcome, Some(AttemptOutcome::Lost | AttemptOutcome::Canceled)) {
        wrong.push(format!("{id}: attempt {attempt} was taken away but is remembered as {kept:?}"));
    }
}

/// Nothing starts before it was accepted, or due.
fn starts(record: &Record, wrong: &mut Vec<String>) {
    for Attempt { lease, created_at, runnable_since, started_at, .. } in &record.claims {
        let due = record.accepted.get(&lease.job).and_then(|job| job.due);
        if due.is_some_and(|due| *started_at < due) {
            wrong.push(format!("{}: due {due:?}, started {started_at}", lease.job));
        }
        if !(created_at <= runnable_since && runnable_since <= started_at) {
            wrong.push(format!(
                "{}: accepted {created_at}, runnable {runnable_since}, started {started_at}: out of order",
                lease.job
            ));
        }
    }
}

/// Each job is in exactly one index, the one of its state.
fn indexes(now: &Now, wrong: &mut Vec<String>) {
    let gone = |id: &JobId| !matches!(now.found.get(id), Some(JobLookup::Found(_)));
    let mut by_status: BTreeMap<JobId, JobStatus> = BTreeMap::new();
    for (status, jobs) in &now.by_status {
        for job in jobs {
            if job.status != *status {
                wrong.push(format!("{}: {} but listed as {status}", job.id, job.status));
            }
            if let Some(other) = by_status.insert(job.id, *status) {
                wrong.push(format!("{}: listed as {other} and as {status}", job.id));
            }
        }
    }
    let mut all = BTreeSet::new();
    for job in &now.all {
        if !all.insert(job.id) {
            wrong.push(format!("{}: listed twice", job.id));
        }
        if job.result.is_some() {
            wrong.push(format!("{}: listed with its result", job.id));
        }
    }
    for (id, lookup) in &now.found {
        let JobLookup::Found(job) = lookup else { continue };
        if !all.contains(id) {
            wrong.push(format!("{id}: not listed"));
        }
        if by_status.get(id) != Some(&job.status) {
            wrong.push(format!("{id}: {} but listed as {:?}", job.status, by_status.get(id)));
        }
    }
    for id in by_status.keys().filter(|id| !all.contains(id) && !gone(id)) {
        wrong.push(format!("{id}: listed by state, not by acceptance"));
    }
}

/// Counts are what the jobs say.
fn counts(now: &Now, wrong: &mut Vec<String>) {
    let mut said: BTreeMap<JobName, ([u64; 6], u64)> = BTreeMap::new();
    for job in &now.all {
        let (counts, never_started) = said.entry(job.name.clone()).or_default();
        counts[job.status as usize] += 1;
        *never_started += u64::from(job.status == JobStatus::Scheduled && job.attempt == 0);
    }
    // Ended jobs behind one that is kept longer are not pruned, and still counted.
    let gone = now.found.values().filter(|lookup| !matches!(lookup, JobLookup::Found(_))).count() as u64;
    for kind in &now.stats.types {
        let (counts, never_started) = said.remove(&kind.name).unwrap_or_default();
        for status in JobStatus::ALL {
            let (stored, listed) = (kind.count(status), counts[status as usize]);
            let spare = if status.is_terminal() { gone } else { 0 };
            if stored < listed || stored > listed + spare {
                wrong.push(format!("{}: {stored} {status} counted, {listed} listed", kind.name));
            }
        }
        if kind.never_started != never_started {
            wrong.push(format!("{}: {} never started, {never_started} listed", kind.name, kind.never_started));
        }
    }
    for name in said.keys() {
        wrong.push(format!("{name}: has jobs and no counts"));
    }
    if now.stats.quarantined > 0 {
        wrong.push(format!("{} entries put aside", now.stats.quarantined));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_endpoints_core::store::NewJob;

    use super::*;
    use crate::jobs::{error, job};

    /// The view of a fresh job in a version, as an answer from tick `at` to tick `at + 1`.
    fn seen(job: &NewJob, version: u64, at: u64) -> Seen {
        let view = job.view(Timestamp::from_micros(1_000), version, Some(0));
        Seen { asked_at: at, answered_at: at + 1, whole: true, view }
    }

    fn ended(job: &NewJob, version: u64, at: u64) -> Seen {
        let mut seen = seen(job, version, at);
        let time = Some(Timestamp::from_micros(2_000));
        (seen.view.status, seen.view.ahead) = (JobStatus::Canceled, None);
        (seen.view.completed_at, seen.view.expires_at, seen.view.error) = (time, time, Some(error("C")));
        seen
    }

    fn wrong(seen: &[Seen]) -> String {
        let mut wrong = Vec::new();
        history(seen[0].view.id, seen, &mut wrong);
        wrong.join("\n")
    }

    #[test]
    fn a_sound_history_passes() {
        let job = job("alpha", Duration::from_secs(9));
        let mut retried = ended(&job, 3, 20);
        retried.view.retried_by = Some(JobId::random());
        assert_eq!(wrong(&[seen(&job, 1, 0), seen(&job, 1, 5), ended(&job, 2, 10), retried]), "");
    }

    #[test]
    fn a_version_that_falls_is_found_unless_the_calls_overlap() {
        let job = job("alpha", Duration::from_secs(9));
        assert!(wrong(&[ended(&job, 2, 0), seen(&job, 1, 10)]).contains("version fell from 2 to 1"));
        let overlapping = Seen { asked_at: 0, answered_at: 11, ..seen(&job, 1, 10) };
        assert_eq!(wrong(&[ended(&job, 2, 0), overlapping]), "");
    }

    #[test]
    fn contradicting_views_are_found() {
        let job = job("alpha", Duration::from_secs(9));
        assert!(wrong(&[seen(&job, 1, 0), ended(&job, 1, 5)]).contains("two views with one version"));
        assert!(wrong(&[seen(&job, 1, 0), seen(&job, 2, 5)]).contains("only with what can be seen"));
        let mut later = ended(&job, 3, 20);
        later.view.error = Some(error("OTHER"));
        assert!(wrong(&[ended(&job, 2, 10), later]).contains("an ended job changed"));
        let mut risen = seen(&job, 2, 5);
        (risen.view.attempt, risen.view.retry_count) = (5, 3);
        assert!(wrong(&[risen.clone()]).contains("attempt ≤ 1"));
        risen.view.version = 1;
        assert!(wrong(&[risen, seen(&job, 2, 9)]).contains("counters never fall"));
    }
}
