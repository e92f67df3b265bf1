//! Invariants of any sequence of calls: checks recorded answers against each other and against the stored state.
//! Must not know how a store works.

use std::collections::{BTreeMap, BTreeSet};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobStore as _, JobView, Store, Timestamp,
    job::{AttemptOutcome, Digest},
    limits::{ATTEMPTS_KEPT, KEY_SECONDS, PAGE_JOBS, SWEEP_JOBS},
    store::{Attempt, JobLookup, Lease, ListFilter, Page, Settled, Stats, StatsQuery},
};

use crate::checked::{Accepted, Checked, Record, Seen};

/// The state of the store while no other call runs.
struct Now {
    at: Timestamp,
    found: BTreeMap<JobId, JobLookup>,
    all: Vec<JobView>,
    by_status: Vec<(JobStatus, Vec<JobView>)>,
    by_owner: Vec<(Digest, Vec<JobView>)>,
    stats: Stats,
}

impl<S: Store> Checked<S> {
    /// Compares all answers with each other and with the present state of the store. Call it when no other task uses the
    /// store.
    ///
    /// # Panics
    /// With all violations, if there are any.
    pub async fn verify(&self) {
        let now = read(self).await;
        let mut violations = Vec::new();
        {
            let record = self.record();
            for ((id, _), seen) in &record.seen {
                history(*id, seen, &mut violations);
            }
            accepted(&record, &now, &mut violations);
            keys(&record, &mut violations);
            leases(&record, &now, &mut violations);
            starts(&record, &mut violations);
        }
        indexes(&now, &mut violations);
        owners(&now, &mut violations);
        counts(&now, &mut violations);
        let (count, list) = (violations.len(), violations.join("\n- "));
        assert!(violations.is_empty(), "{count} violations of the store contract:\n- {list}");
    }
}

/// Prunes first, since counts may include expired jobs. Then reads counts, lists and jobs, in this order, because ended jobs
/// can only disappear meanwhile.
async fn read<S: Store>(store: &Checked<S>) -> Now {
    while store.prune(SWEEP_JOBS).await.expect("prune while verifying") >= SWEEP_JOBS {}
    let stats = store.stats(&StatsQuery::default()).await.expect("stats while verifying");
    let all = list_all(store, ListFilter::default()).await;
    let (mut by_status, mut by_owner) = (Vec::new(), Vec::new());
    for status in JobStatus::ALL {
        by_status.push((status, list_all(store, ListFilter { status: Some(status), ..ListFilter::default() }).await));
    }
    for owner in all.iter().filter_map(|job| job.owner).collect::<BTreeSet<Digest>>() {
        by_owner.push((owner, list_all(store, ListFilter { owner: Some(owner), ..ListFilter::default() }).await));
    }
    let ids: BTreeSet<JobId> = store.record().accepted.keys().copied().chain(all.iter().map(|job| job.id)).collect();
    let mut found = BTreeMap::new();
    for id in ids {
        found.insert(id, store.get(id).await.expect("get while verifying"));
    }
    let at = store.stats(&StatsQuery::default()).await.expect("stats while verifying").now;
    Now { at, found, all, by_status, by_owner, stats }
}

async fn list_all<S: Store>(store: &Checked<S>, filter: ListFilter) -> Vec<JobView> {
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

/// The fields that are equal in two views of the same version.
fn comparable(view: &JobView, whole: bool) -> JobView {
    let result = if whole { view.result.clone() } else { None };
    JobView { ahead: None, result, ..view.clone() }
}

/// Checks all views of one job.
fn history(id: JobId, seen: &[Seen], violations: &mut Vec<String>) {
    versions_never_fall(id, seen, violations);
    let mut ordered: Vec<&Seen> = seen.iter().collect();
    ordered.sort_by_key(|one| one.view.version);
    for one in &ordered {
        single_view(&one.view, violations);
    }
    for pair in ordered.windows(2) {
        let whole = pair[0].whole && pair[1].whole;
        let (before, after) = (comparable(&pair[0].view, whole), comparable(&pair[1].view, whole));
        if before.version == after.version {
            if before != after {
                violations.push(format!("{id}: two views with one version:\n  {before:?}\n  {after:?}"));
            }
        } else {
            successive_views(&before, &after, violations);
        }
    }
    ended_job(id, &ordered, violations);
}

/// Checks that an answer has no older version than any answer that arrived before its call.
fn versions_never_fall(id: JobId, seen: &[Seen], violations: &mut Vec<String>) {
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
            violations.push(format!("{id}: version fell from {} to {}", answered[before - 1].1, one.view.version));
        }
    }
}

/// Checks one view.
fn single_view(view: &JobView, violations: &mut Vec<String>) {
    let mut must = |holds: bool, rule: &str| {
        if !holds {
            violations.push(format!("{}: {rule}: {view:?}", view.id));
        }
    };
    let (running, ended) = (view.status == JobStatus::InProgress, view.status.is_terminal());
    let starts = u64::from(view.retry_count) + u64::from(view.loss_count) + u64::from(view.release_count);
    must(u64::from(view.attempt) <= 1 + starts, "attempt ≤ 1 + retries + losses + releases");
    must(
        view.completed_at.is_some() == ended && view.expires_at.is_some() == ended,
        "`completed_at` and `expires_at` are set if terminal",
    );
    must(view.result.is_none() || view.status == JobStatus::Completed, "only completed jobs have a result");
    must(view.status != JobStatus::Completed || view.error.is_none(), "completed jobs have no error");
    must(
        !matches!(view.status, JobStatus::Failed | JobStatus::Canceled) || view.error.is_some(),
        "failed and canceled jobs have an error",
    );
    must(view.started_at.is_some() == (view.attempt > 0), "`started_at` is set if there was an attempt");
    must(view.attempts.len() == ATTEMPTS_KEPT.min(view.attempt as usize), "the last attempts are kept");
    must(
        view.attempts.last().is_none_or(|last| last.attempt == view.attempt),
        "the latest attempt is the last of `attempts`",
    );
    let open = view.attempts.iter().filter(|attempt| attempt.ended_at.is_none()).count();
    must(open == usize::from(running), "one attempt is open if the job runs, else none");
    let completed = view.attempts.iter().filter(|attempt| attempt.outcome == Some(AttemptOutcome::Completed)).count();
    must(
        completed == usize::from(view.status == JobStatus::Completed),
        "one attempt completed if the job did, else none",
    );
    let began = matches!(view.status, JobStatus::InProgress | JobStatus::Completed | JobStatus::Failed);
    must(!began || view.started_at >= view.scheduled_at, "no start before the due time");
    must(view.ahead.is_none() || view.status == JobStatus::Queued, "`ahead` is set only for Queued jobs");
}

/// Checks an older and a newer view.
fn successive_views(before: &JobView, after: &JobView, violations: &mut Vec<String>) {
    let mut must = |holds: bool, rule: &str| {
        if !holds {
            violations.push(format!("{}: {rule}:\n  {before:?}\n  {after:?}", before.id));
        }
    };
    let counted = |view: &JobView| [view.attempt, view.retry_count, view.loss_count, view.release_count];
    let grew = counted(before).iter().zip(counted(after)).all(|(old, new)| *old <= new);
    must(grew, "counters never fall");
    must(before.last_updated_at <= after.last_updated_at, "`last_updated_at` never falls");
    let fixed = |view: &JobView| {
        let submission = (view.name.clone(), view.owner, view.created_at, view.trace.clone());
        let submission = (submission, view.owner_label.clone());
        (submission, view.priority, view.max_retries, view.retry_of)
    };
    must(fixed(before) == fixed(after), "submitted values never change");
    must(before.retried_by.is_none() || before.retried_by == after.retried_by, "`retried_by` is set once");
    must(
        before.cancel_requested_at.is_none() || before.cancel_requested_at == after.cancel_requested_at,
        "`cancel_requested_at` is set once",
    );
    let same = JobView { version: after.version, ..comparable(before, true) };
    must(same != comparable(after, true), "a new version has a visible change");
}

/// Checks that an ended job changes only in `retried_by`.
fn ended_job(id: JobId, ordered: &[&Seen], violations: &mut Vec<String>) {
    let Some(end) = ordered.iter().position(|one| one.view.status.is_terminal()) else { return };
    for later in &ordered[end + 1..] {
        let whole = ordered[end].whole && later.whole;
        let before = comparable(&ordered[end].view, whole);
        let after = JobView { version: before.version, ..comparable(&later.view, whole) };
        if (JobView { retried_by: after.retried_by, ..before.clone() }) != after {
            violations.push(format!("{id}: an ended job changed:\n  {before:?}\n  {after:?}"));
        }
    }
}

/// Checks that every accepted job exists, or existed for its retention.
fn accepted(record: &Record, now: &Now, violations: &mut Vec<String>) {
    for (id, Accepted { created_at, retention, .. }) in &record.accepted {
        let kept = now.at.since(*created_at);
        let may = |times: u32| retention.is_some_and(|retention| kept >= retention * times);
        match &now.found[id] {
            JobLookup::Found(_) => {}
            JobLookup::Gone { .. } if may(1) => {}
            JobLookup::NotFound if may(2) => {}
            lost => violations.push(format!("{id}: accepted {kept:?} ago, now {lost:?}")),
        }
    }
}

/// Checks that a key makes one job within `KEY_SECONDS`.
fn keys(record: &Record, violations: &mut Vec<String>) {
    let mut jobs: BTreeMap<_, Vec<(Timestamp, JobId)>> = BTreeMap::new();
    for (key, id, created_at) in &record.keys {
        jobs.entry(key).or_default().push((*created_at, *id));
    }
    for (key, mut jobs) in jobs {
        jobs.sort_unstable();
        jobs.dedup();
        for pair in jobs.windows(2) {
            if pair[1].0.since(pair[0].0).as_secs() < KEY_SECONDS {
                violations.push(format!("key {key:?} made two jobs: {pair:?}"));
            }
        }
    }
}

/// Checks that a lease ends once, by settlement or by reclaim.
fn leases(record: &Record, now: &Now, violations: &mut Vec<String>) {
    let mut answers: BTreeMap<Lease, BTreeSet<JobStatus>> = BTreeMap::new();
    for (lease, settled) in &record.settled {
        if let Settled::Settled(status) = settled {
            answers.entry(*lease).or_default().insert(*status);
        }
    }
    for (lease, states) in answers.iter().filter(|(_, states)| states.len() > 1) {
        violations.push(format!("{lease:?} settled to several states: {states:?}"));
    }
    let mut started: BTreeMap<(JobId, u32), Lease> = BTreeMap::new();
    let latest = |attempt: &&Attempt| {
        record.accepted.get(&attempt.lease.job).is_none_or(|job| job.created_at <= attempt.created_at)
    };
    for attempt in record.claims.iter().filter(latest) {
        if started.insert((attempt.lease.job, attempt.attempt), attempt.lease).is_some() {
            violations.push(format!("{}: attempt {} started twice", attempt.lease.job, attempt.attempt));
        }
    }
    let mut taken = BTreeSet::new();
    for lost in &record.recovered {
        if !taken.insert((lost.id, lost.attempt)) {
            violations.push(format!("{}: attempt {} was recovered twice", lost.id, lost.attempt));
        }
        if let Some(states) = started.get(&(lost.id, lost.attempt)).and_then(|lease| answers.get(lease)) {
            violations.push(format!("{lost:?}, yet its lease settled: {states:?}"));
        }
    }
    for (attempt, lease) in &started {
        recorded_outcome(*attempt, answers.get(lease), taken.contains(attempt), now, violations);
    }
}

/// Checks that the recorded outcome of an attempt is the one that its worker was answered.
fn recorded_outcome(
    (id, attempt): (JobId, u32),
    settled: Option<&BTreeSet<JobStatus>>,
    taken: bool,
    now: &Now,
    violations: &mut Vec<String>,
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
        violations.push(format!("{id}: attempt {attempt} settled to {settled:?} but is recorded as {kept:?}"));
    }
    if taken && !matches!(kept.outcome, Some(AttemptOutcome::Lost | AttemptOutcome::Canceled)) {
        violations.push(format!("{id}: attempt {attempt} was reclaimed but is recorded as {kept:?}"));
    }
}

/// Checks that no job starts before its acceptance or its due time.
fn starts(record: &Record, violations: &mut Vec<String>) {
    for Attempt { lease, created_at, runnable_since, started_at, .. } in &record.claims {
        let due = record.accepted.get(&lease.job).and_then(|job| job.due);
        if due.is_some_and(|due| *started_at < due) {
            violations.push(format!("{}: due {due:?}, started {started_at}", lease.job));
        }
        if !(created_at <= runnable_since && runnable_since <= started_at) {
            violations.push(format!(
                "{}: accepted {created_at}, runnable {runnable_since}, started {started_at}: out of order",
                lease.job
            ));
        }
    }
}

/// Checks that each job is in exactly one index, that of its state.
fn indexes(now: &Now, violations: &mut Vec<String>) {
    let gone = |id: &JobId| !matches!(now.found.get(id), Some(JobLookup::Found(_)));
    let mut by_status: BTreeMap<JobId, JobStatus> = BTreeMap::new();
    for (status, jobs) in &now.by_status {
        for job in jobs {
            if job.status != *status {
                violations.push(format!("{}: {} but listed as {status}", job.id, job.status));
            }
            if let Some(other) = by_status.insert(job.id, *status) {
                violations.push(format!("{}: listed as {other} and as {status}", job.id));
            }
        }
    }
    let mut all = BTreeSet::new();
    for job in &now.all {
        if !all.insert(job.id) {
            violations.push(format!("{}: listed twice", job.id));
        }
        if job.result.is_some() {
            violations.push(format!("{}: listed with its result", job.id));
        }
    }
    for (id, lookup) in &now.found {
        let JobLookup::Found(job) = lookup else { continue };
        if !all.contains(id) {
            violations.push(format!("{id}: not listed"));
        }
        if by_status.get(id) != Some(&job.status) {
            violations.push(format!("{id}: {} but listed as {:?}", job.status, by_status.get(id)));
        }
    }
    for id in by_status.keys().filter(|id| !all.contains(id) && !gone(id)) {
        violations.push(format!("{id}: listed by state, not by acceptance"));
    }
}

/// Checks that each job with an owner is in the index of this owner.
fn owners(now: &Now, violations: &mut Vec<String>) {
    let listed: BTreeSet<(Digest, JobId)> =
        now.by_owner.iter().flat_map(|(owner, jobs)| jobs.iter().map(|job| (*owner, job.id))).collect();
    for (owner, id) in &listed {
        if let Some(JobLookup::Found(job)) = now.found.get(id)
            && job.owner != Some(*owner)
        {
            violations.push(format!("{id}: owned by {:?} but listed of {owner:?}", job.owner));
        }
    }
    for lookup in now.found.values() {
        if let JobLookup::Found(job) = lookup
            && let Some(owner) = job.owner
            && !listed.contains(&(owner, job.id))
        {
            violations.push(format!("{}: not in the list of its owner", job.id));
        }
    }
}

/// Checks counts against the listed jobs.
fn counts(now: &Now, violations: &mut Vec<String>) {
    let mut listed_counts: BTreeMap<JobName, ([u64; 6], u64)> = BTreeMap::new();
    for job in &now.all {
        let (counts, never_started) = listed_counts.entry(job.name.clone()).or_default();
        counts[job.status as usize] += 1;
        *never_started += u64::from(job.status == JobStatus::Scheduled && job.attempt == 0);
    }
    // Expired jobs behind one with a longer retention are not pruned, and still counted.
    let gone = now.found.values().filter(|lookup| !matches!(lookup, JobLookup::Found(_))).count() as u64;
    for kind in &now.stats.types {
        let (counts, never_started) = listed_counts.remove(&kind.name).unwrap_or_default();
        for status in JobStatus::ALL {
            let (stored, listed) = (kind.count(status), counts[status as usize]);
            let spare = if status.is_terminal() { gone } else { 0 };
            if stored < listed || stored > listed + spare {
                violations.push(format!("{}: {stored} {status} counted, {listed} listed", kind.name));
            }
        }
        if kind.never_started != never_started {
            violations.push(format!("{}: {} never started, {never_started} listed", kind.name, kind.never_started));
        }
    }
    for name in listed_counts.keys() {
        violations.push(format!("{name}: has jobs and no counts"));
    }
    if now.stats.quarantined > 0 {
        violations.push(format!("{} entries quarantined", now.stats.quarantined));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_endpoints_core::store::NewJob;

    use super::*;
    use crate::jobs::{error, job};

    /// A view of a new job with this version, in an answer from tick `at` to tick `at + 1`.
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

    fn violations(seen: &[Seen]) -> String {
        let mut violations = Vec::new();
        history(seen[0].view.id, seen, &mut violations);
        violations.join("\n")
    }

    #[test]
    fn valid_history_has_no_violation() {
        let job = job("alpha", Duration::from_secs(9));
        let mut retried = ended(&job, 3, 20);
        retried.view.retried_by = Some(JobId::random());
        assert_eq!(violations(&[seen(&job, 1, 0), seen(&job, 1, 5), ended(&job, 2, 10), retried]), "");
    }

    #[test]
    fn falling_version_is_found_without_overlap() {
        let job = job("alpha", Duration::from_secs(9));
        assert!(violations(&[ended(&job, 2, 0), seen(&job, 1, 10)]).contains("version fell from 2 to 1"));
        let overlapping = Seen { asked_at: 0, answered_at: 11, ..seen(&job, 1, 10) };
        assert_eq!(violations(&[ended(&job, 2, 0), overlapping]), "");
    }

    #[test]
    fn contradictory_views_are_found() {
        let job = job("alpha", Duration::from_secs(9));
        assert!(violations(&[seen(&job, 1, 0), ended(&job, 1, 5)]).contains("two views with one version"));
        assert!(violations(&[seen(&job, 1, 0), seen(&job, 2, 5)]).contains("a new version has a visible change"));
        let mut later = ended(&job, 3, 20);
        later.view.error = Some(error("OTHER"));
        assert!(violations(&[ended(&job, 2, 10), later]).contains("an ended job changed"));
        let mut risen = seen(&job, 2, 5);
        (risen.view.attempt, risen.view.retry_count) = (5, 3);
        assert!(violations(&[risen.clone()]).contains("attempt ≤ 1"));
        risen.view.version = 1;
        assert!(violations(&[risen, seen(&job, 2, 9)]).contains("counters never fall"));
    }
}
