//! Makes each call of a sequence on the store and on the model, and compares the answers.
//! Must not know how the model decides.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_endpoints_core::{
    Clock as _, JobId, JobStatus, JobView, Priority, Store,
    job::LogLine,
    store::{
        CancelOutcome, Claim, Fenced, InsertOutcome, JobLookup, Lease, LeaseToken, ListFilter, NewJob, Outcome, Page,
        Reclaim, Reclaimed, Recovered, Report, ReportedProgress, RetryAs, RetryOutcome, Settled, Settlement, TypeQuota,
        WorkerId,
    },
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    compare::{Comparison, answered, odd, same},
    ops::{CODES, ListOp, NewJobOp, Op, OutcomeOp, TEXTS},
    shared::Shared,
    state::{Expect, Model},
    stats,
};
use crate::{
    Fixture, ManualClock,
    jobs::{self, digest, error, traceparent},
};

/// The time that passes before each call. With it and the odd milliseconds of every duration here, no two times are equal by
/// chance: the contract leaves the order at equal times open.
const STEP: Duration = Duration::from_millis(7);

pub(super) struct Drive {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: ManualClock,
    pub(super) model: Model,
    shared: Shared,
    ids: Vec<JobId>,
    leases: Vec<Lease>,
    /// The model's and the store's version of each job, as last compared.
    versions: BTreeMap<JobId, (u64, u64)>,
    number: u64,
}

impl Drive {
    pub(super) fn new(fixture: &Fixture) -> Self {
        let clock = fixture.time.clock().expect("the model test needs a manual clock").clone();
        Self {
            store: Arc::clone(&fixture.store),
            clock,
            model: Model::default(),
            shared: Shared::default(),
            ids: Vec::new(),
            leases: Vec::new(),
            versions: BTreeMap::new(),
            number: 0,
        }
    }

    /// Runs a sequence, then compares everything once more.
    pub(super) async fn run(&mut self, ops: &[Op]) -> Comparison {
        self.pass(Duration::ZERO);
        self.warm().await?;
        for (at, op) in ops.iter().enumerate() {
            self.pass(STEP);
            let about = |wrong| format!("call {at}, {op:?}: {wrong}");
            self.step(op).await.map_err(about)?;
            self.check_one(at).await.map_err(about)?;
        }
        for at in 0..self.ids.len() {
            self.check_one(at).await.map_err(|wrong| format!("at the end: {wrong}"))?;
        }
        for status in [None].into_iter().chain(JobStatus::ALL.map(Some)) {
            for owner in [None, Some(0), Some(1)] {
                let op = ListOp { owner, limit: 50, ..ListOp::default() };
                self.list(status, &op).await.map_err(|wrong| format!("at the end: {wrong}"))?;
            }
        }
        self.stats().await.map_err(|wrong| format!("at the end: {wrong}"))
    }

    async fn step(&mut self, op: &Op) -> Comparison {
        match op {
            Op::Insert(new) => self.insert(new).await,
            Op::Claim { alpha, beta, max, bytes, lease } => self.claim([*alpha, *beta], *max, *bytes, *lease).await,
            Op::Settle { lease, outcome, progress, lines } => self.settle(*lease, outcome, *progress, *lines).await,
            Op::Renew { leases, lease } => self.renew(leases, *lease).await,
            Op::Report { lease, progress, lines } => self.report(*lease, *progress, *lines).await,
            Op::Cancel { job } => self.cancel(*job).await,
            Op::Retry { job, taken } => self.retry(*job, *taken).await,
            Op::Reclaim { limit } => self.reclaim(*limit).await,
            Op::Prune { limit } => self.prune((*limit).into()).await,
            Op::Get { job } => self.check_one((*job).into()).await,
            Op::Versions => self.all_versions().await,
            Op::List(op) => self.list(op.status.map(|at| JobStatus::ALL[usize::from(at)]), op).await,
            Op::Logs { job, after, limit } => self.logs(*job, *after, *limit).await,
            Op::Payload { job } => self.payload(*job).await,
            Op::Stats => self.stats().await,
            Op::Pass { seconds } => {
                self.pass(Duration::from_secs((*seconds).into()));
                Ok(())
            }
            Op::Day => self.day().await,
            Op::Role { name, holder, ttl } => {
                self.shared.role(&*self.store, self.model.now, *name, *holder, *ttl).await
            }
            Op::Document { version, role } => self.shared.document(&*self.store, self.model.now, *version, *role).await,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.model.now = self.clock.now();
    }

    fn id(&self, at: u8) -> JobId {
        // An unknown id if there is no job yet.
        if self.ids.is_empty() { JobId(Uuid::from_u128(1)) } else { self.ids[usize::from(at) % self.ids.len()] }
    }

    fn lease(&self, at: u8) -> Lease {
        // At most the last eight, so that most numbers select a recent lease.
        let token = LeaseToken(Uuid::from_u128(2));
        let back = usize::from(at) % self.leases.len().clamp(1, 8);
        self.leases.iter().rev().nth(back).copied().unwrap_or(Lease { job: self.id(at), token })
    }

    fn fresh(&mut self) -> Uuid {
        self.number += 1;
        Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(self.number))
    }

    /// Puts the model's version into a view of the store, if both changed or neither did since the last comparison.
    fn fit(&mut self, view: &mut JobView) -> Comparison {
        let Some(at) = self.model.at(view.id) else { return Err(format!("unknown to the model: {view:?}")) };
        let job = &self.model.jobs[at];
        let now = (job.view.version, view.version);
        if let Some(before) = self.versions.insert(view.id, now)
            && (now.0.cmp(&before.0) != now.1.cmp(&before.1))
        {
            return Err(format!("{}: the model's and the store's version were {before:?} and are {now:?}", view.id));
        }
        view.version = now.0;
        if job.error_open && view.error.is_none() {
            view.error.clone_from(&job.view.error);
        }
        Ok(())
    }

    fn fit_lookup(&mut self, lookup: &mut JobLookup) -> Comparison {
        if let JobLookup::Found(view) = lookup { self.fit(view) } else { Ok(()) }
    }

    async fn check_one(&mut self, at: usize) -> Comparison {
        let id = self.id(u8::try_from(at % 256).unwrap_or(0));
        let mut found = self.store.get(id).await.map_err(answered)?;
        self.fit_lookup(&mut found)?;
        same("get", &found, &self.model.lookup(id))
    }

    /// Sweeps until a fresh store no longer pauses.
    async fn warm(&mut self) -> Comparison {
        for _ in 0..20 {
            let sweep = Reclaim { lease: Duration::from_secs(2), ..Self::sweeper(1) };
            if let Reclaimed::Done { .. } = self.store.reclaim(&sweep).await.map_err(answered)? {
                return Ok(());
            }
            self.pass(Duration::from_secs(1));
        }
        Err("a sweep waits longer than a lease".to_owned())
    }

    /// A sweep whose lease is longer than all steps of time, so that it never pauses.
    fn sweeper(limit: u8) -> Reclaim {
        let lease = Duration::from_secs(1_000 * 24 * 3600);
        Reclaim { limit: limit.into(), lease, lost: error("WORKER_LOST"), canceled: error("JOB_CANCELED") }
    }

    fn new_job(&mut self, op: &NewJobOp) -> NewJob {
        let (name, kept) = if op.beta { ("beta", odd(90, 11)) } else { ("alpha", odd(40, 11)) };
        let fresh = JobId(self.fresh());
        let mut job = jobs::job(name, kept);
        job.id = op.taken.map_or(fresh, |at| self.id(at));
        job.payload = Model::payload(op.size);
        job.terms.priority = Priority::new(op.priority);
        job.terms.max_losses = op.losses.into();
        job.delay = if op.delay == 0 { Duration::ZERO } else { odd(op.delay, 3) };
        job.queue_limit = op.limit.map(u64::from);
        job.key = op.key.map(|number| jobs::key(&format!("key-{number}")));
        job.owner = op.owner.map(digest);
        job.owner_label = op.owner.map(|number| format!("owner {number}"));
        job.fingerprint = digest(op.fingerprint);
        job
    }

    async fn insert(&mut self, op: &NewJobOp) -> Comparison {
        let job = self.new_job(op);
        let known = [self.model.keyed(&job), self.model.at(job.id)];
        if known.into_iter().flatten().any(|at| self.model.unclear(&self.model.jobs[at])) {
            return Ok(());
        }
        let mut answer = self.store.insert(job.clone()).await.map_err(answered)?;
        let expected = self.model.insert(&job);
        match &mut answer {
            InsertOutcome::Inserted { version, .. } => {
                self.versions.insert(job.id, (1, *version));
                *version = 1;
                if !self.ids.contains(&job.id) {
                    self.ids.push(job.id);
                }
            }
            InsertOutcome::Existing(lookup) => self.fit_lookup(lookup)?,
            InsertOutcome::Conflict | InsertOutcome::Full => {}
        }
        same("insert", &answer, &expected)
    }

    async fn claim(&mut self, quotas: [u8; 2], max: u8, bytes: u16, lease: u8) -> Comparison {
        let quotas = ["alpha", "beta"].into_iter().zip(quotas).filter(|(_, n)| *n > 0);
        let timeout = Duration::from_secs(60);
        let claim = Claim {
            worker: WorkerId(self.fresh()),
            token: LeaseToken(self.fresh()),
            quotas: quotas.map(|(name, n)| TypeQuota { name: jobs::name(name), max: n.into(), timeout }).collect(),
            max: max.into(),
            max_bytes: bytes.into(),
            lease: odd(lease, 5),
        };
        let answer = self.store.claim(&claim).await.map_err(answered)?;
        let (attempts, next) = self.model.claim(&claim);
        self.leases.extend(attempts.iter().map(|attempt| attempt.lease));
        same("attempts", &answer.attempts, &attempts)?;
        same("the next claim", &answer.next_claim, &next)?;
        same("the time", &answer.now, &self.model.now)
    }

    async fn settle(&mut self, lease: u8, op: &OutcomeOp, progress: bool, lines: u8) -> Comparison {
        let lease = self.lease(lease);
        let outcome = match op {
            OutcomeOp::Complete => Outcome::Completed { result: Bytes::from_static(b"{}") },
            OutcomeOp::Retry { seconds } => Outcome::Retry { delay: odd(*seconds, 3), error: error("AGAIN") },
            OutcomeOp::Fail => Outcome::Failed { error: error("FAILED") },
            OutcomeOp::Cancel => Outcome::Canceled { error: error("BY_HANDLER") },
            OutcomeOp::Release => Outcome::Released,
        };
        let number = self.fresh();
        let span = (!number.as_u128().is_multiple_of(3)).then(|| traceparent(number.as_u128(), 1, 0));
        let progress = progress.then(|| self.progress());
        let logs = self.lines(lines);
        let settle = Settlement { span, progress, logs, ..Settlement::new(lease, outcome, error("IF_CANCELED")) };
        let answer = self.store.settle(std::slice::from_ref(&settle)).await.map_err(answered)?;
        match (self.model.settle(&settle), answer.as_slice()) {
            (Expect::Settled(status) | Expect::Either(status), [Settled::Settled(stored)]) if status == *stored => {
                Ok(())
            }
            (Expect::Lost | Expect::Either(_), [Settled::Lost]) => Ok(()),
            (expected, answer) => Err(format!("settle\n  store: {answer:?}\n  model: {expected:?}")),
        }
    }

    async fn renew(&mut self, leases: &[u8], lasts: u8) -> Comparison {
        let leases: Vec<Lease> = leases.iter().map(|at| self.lease(*at)).collect();
        let lasts = odd(lasts, 5);
        let heartbeat = async_endpoints_core::store::Heartbeat {
            worker: jobs::worker(WorkerId(Uuid::from_u128(3))),
            ttl: Duration::from_secs(9),
        };
        let answer = self.store.renew(&heartbeat, &leases, lasts).await.map_err(answered)?;
        let expected: Vec<_> = leases.iter().map(|lease| self.model.renew(*lease, lasts)).collect();
        same("renew", &answer, &expected)
    }

    /// A new, distinct progress.
    fn progress(&mut self) -> ReportedProgress {
        self.number += 1;
        let message = (!self.number.is_multiple_of(3)).then(|| format!("Step {}", self.number));
        ReportedProgress { completed: self.number, total: None, percent: Some(0.5), message }
    }

    /// That many new lines.
    fn lines(&self, count: u8) -> Vec<LogLine> {
        (0..count).map(|line| jobs::line(format!("{}.{line}", self.number))).collect()
    }

    async fn report(&mut self, lease: u8, progress: bool, lines: u8) -> Comparison {
        let lease = self.lease(lease);
        let progress = progress.then(|| self.progress());
        let logs = self.lines(lines);
        let report = Report { lease, progress, logs };
        let answer = self.store.report(std::slice::from_ref(&report)).await.map_err(answered)?;
        let expected = if self.model.report(&report) { Fenced::Applied } else { Fenced::Lost };
        same("report", &answer, &vec![expected])
    }

    async fn cancel(&mut self, job: u8) -> Comparison {
        let (id, why) = (self.id(job), error("JOB_CANCELED"));
        let mut answer = self.store.cancel(id, &why).await.map_err(answered)?;
        let expected = self.model.cancel(id, &why);
        if let CancelOutcome::Canceled(view) | CancelOutcome::Requested(view) | CancelOutcome::Terminal(view) =
            &mut answer
        {
            self.fit(view)?;
        }
        same("cancel", &answer, &expected)
    }

    async fn retry(&mut self, job: u8, taken: Option<u8>) -> Comparison {
        let (of, fresh) = (self.id(job), JobId(self.fresh()));
        let id = taken.map_or(fresh, |at| self.id(at));
        if self.model.at(id).is_some_and(|at| self.model.unclear(&self.model.jobs[at])) {
            return Ok(());
        }
        let new = RetryAs { id, trace: None };
        let mut answer = self.store.retry(of, &new).await.map_err(answered)?;
        let expected = self.model.retry(of, &new);
        match &mut answer {
            RetryOutcome::Created(view) => {
                self.fit(view)?;
                if !self.ids.contains(&id) {
                    self.ids.push(id);
                }
            }
            RetryOutcome::Existing(lookup) => self.fit_lookup(lookup)?,
            _ => {}
        }
        same("retry", &answer, &expected)
    }

    async fn reclaim(&mut self, limit: u8) -> Comparison {
        let sweep = Self::sweeper(limit);
        let answer = self.store.reclaim(&sweep).await.map_err(answered)?;
        let Reclaimed::Done { recovered, more } = answer else { return Err(format!("{answer:?} after a warm-up")) };
        let mut expired = self.model.expired_leases();
        let count = expired.len().min(limit.into());
        same("reclaimed leases", &recovered.len(), &count)?;
        same("more", &more, &(expired.len() > count))?;
        for one in &recovered {
            // Leases of one claim expire together, and may be reclaimed in any order.
            let oldest = expired[0].0;
            let found = expired.iter().position(|(expires, id)| *expires == oldest && *id == one.id);
            let Some(found) = found else { return Err(format!("{one:?}: not the oldest of {expired:?}")) };
            expired.remove(found);
            let status = self.model.lose(one.id, &sweep.lost, &sweep.canceled);
            let view = &self.model.jobs[self.model.at(one.id).expect("an expired lease has a job")].view;
            let expected = Recovered {
                id: one.id,
                name: view.name.clone(),
                attempt: view.attempt,
                status,
                created_at: view.created_at,
                recovered_at: view.last_updated_at,
                trace: view.trace.clone(),
            };
            same("recovered", one, &expected)?;
        }
        Ok(())
    }

    async fn prune(&mut self, limit: u32) -> Comparison {
        let count = self.store.prune(limit).await.map_err(answered)?;
        if count > limit {
            return Err(format!("pruned {count} of at most {limit}"));
        }
        if count < limit {
            self.model.pruned();
        }
        Ok(())
    }

    /// Advances more than a day and prunes completely, so that ids and keys are free again.
    async fn day(&mut self) -> Comparison {
        self.pass(Duration::from_secs(25 * 3600));
        let mut quiet = 0;
        while quiet < 2 {
            let count = self.store.prune(100).await.map_err(answered)?;
            quiet = if count == 0 { quiet + 1 } else { 0 };
        }
        self.model.forget();
        let model = &self.model;
        self.versions.retain(|id, _| model.at(*id).is_some());
        Ok(())
    }

    async fn all_versions(&mut self) -> Comparison {
        let versions = self.store.versions(&self.ids).await.map_err(answered)?;
        let there = |found: &JobLookup| matches!(found, JobLookup::Found(_));
        let expected: Vec<bool> = self.ids.iter().map(|id| there(&self.model.lookup(*id))).collect();
        let found: Vec<bool> = versions.iter().map(Option::is_some).collect();
        same("known versions", &found, &expected)?;
        for (id, version) in self.ids.clone().into_iter().zip(versions) {
            let JobLookup::Found(view) = self.store.get(id).await.map_err(answered)? else { continue };
            same("version", &Some(view.version), &version)?;
        }
        Ok(())
    }

    async fn list(&mut self, status: Option<JobStatus>, op: &ListOp) -> Comparison {
        let accepted = |at| self.model.at(self.id(at)).map(|at| self.model.jobs[at].view.created_at);
        let filter = ListFilter {
            status,
            name: op.beta.map(|beta| jobs::name(if beta { "beta" } else { "alpha" })),
            owner: op.owner.map(digest),
            code: op.code.map(|at| CODES[usize::from(at)].to_owned()),
            since: op.since.and_then(accepted),
            until: op.until.and_then(accepted),
            text: op.text.map(|at| TEXTS[usize::from(at)].to_owned()),
        };
        let limit = op.limit.into();
        let (mut cursor, mut items) = (None, Vec::new());
        loop {
            let page = self.store.list(&filter, &Page { cursor, limit }).await.map_err(answered)?;
            if page.jobs.len() > limit as usize || page.jobs.len() > page.scanned as usize {
                return Err(format!("{} jobs of {} in a page of {limit}", page.jobs.len(), page.scanned));
            }
            items.extend(page.jobs);
            cursor = page.next;
            if cursor.is_none() || items.len() > 500 {
                break;
            }
        }
        let mut expected = self.model.list(&filter);
        if filter.code.is_some() || filter.text.is_some() {
            // Their error may be there or not, so they may be in the list or not.
            let is_open = |id: JobId| self.model.at(id).is_some_and(|at| self.model.jobs[at].error_open);
            expected.retain(|one| !is_open(one.3));
            items.retain(|item| !is_open(item.id));
        }
        self.listed(items, &expected)
    }

    fn listed(&mut self, mut items: Vec<JobView>, expected: &[(i64, i64, u64, JobId)]) -> Comparison {
        let place = |id: JobId| expected.iter().find(|one| one.3 == id).map(|one| (one.0, one.1, one.2));
        let places: Vec<_> = items.iter().map(|item| place(item.id)).collect();
        let wanted: Vec<_> = expected.iter().map(|one| Some((one.0, one.1, one.2))).collect();
        same("the order of the list", &places, &wanted)?;
        let mut ids: Vec<JobId> = items.iter().map(|item| item.id).collect();
        ids.sort_unstable();
        ids.dedup();
        same("jobs listed once", &ids.len(), &expected.len())?;
        for item in &mut items {
            self.fit(item)?;
            item.ahead = None;
            let at = self.model.at(item.id).expect("`fit` found the job");
            let view = JobView { ahead: None, result: None, ..self.model.view(at) };
            same("an item of the list", item, &view)?;
        }
        Ok(())
    }

    async fn logs(&mut self, job: u8, after: u8, limit: u8) -> Comparison {
        let id = self.id(job);
        let lines = self.store.logs(id, after.into(), limit.into()).await.map_err(answered)?;
        let kept = self.model.at(id).map(|at| &self.model.jobs[at]).filter(|job| self.model.readable(job));
        let kept = kept.map(|job| job.logs.clone()).unwrap_or_default();
        let expected: Vec<_> = kept.into_iter().filter(|line| line.line > after.into()).take(limit.into()).collect();
        same("logs", &lines, &expected)
    }

    async fn payload(&mut self, job: u8) -> Comparison {
        let id = self.id(job);
        let payload = self.store.payload(id).await.map_err(answered)?;
        let kept = self.model.at(id).map(|at| &self.model.jobs[at]).filter(|job| self.model.readable(job));
        let kept = kept.filter(|job| job.view.status != JobStatus::Completed).map(|job| job.new.payload.clone());
        same("the payload", &payload, &kept)
    }

    async fn stats(&mut self) -> Comparison {
        stats::compare(&*self.store, &self.model).await
    }
}
