//! What calls say to scripts, and what scripts answer: arguments in the order of each script's header, answers as it says. Must not know
//! connections.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    job::{ErrorRecord, JobTerms, TraceContext},
    store::{
        Attempt, Claim, Claimed, Cursor, InsertOutcome, Lease, ListFilter, ListPage, NewJob, Outcome, Reclaimed,
        Recovered, Report, ReportedProgress, Settlement,
    },
};
use redis::Value;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    args::{Args, micros},
    fail::Fail,
    record::{self, Terms},
    reply::{self, Items, list, shown},
};

pub(crate) type Done<T> = Result<T, Fail>;

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// One answer for each that was asked.
pub(crate) fn each<T>(answers: Value, asked: usize, read: impl Fn(Value) -> Done<T>) -> Done<Vec<T>> {
    let answers = list(answers)?;
    if answers.len() != asked {
        return Err(Fail::Bad(format!("{} answers came for {asked}", answers.len())));
    }
    answers.map(read).collect()
}

pub(crate) fn new_job(job: &NewJob) -> Args {
    let args = Args::new().text(job.id).bytes(job.name.as_str()).maybe(job.key.as_ref().map(|key| key.as_str()));
    let args = args.maybe(job.owner.map(|owner| owner.0)).bytes(job.fingerprint.0);
    let JobTerms { priority, max_retries, max_losses, retention } = job.terms;
    let (priority, retention) = (priority.get(), micros(retention));
    let (payload, repeatable) = (job.payload.len(), u8::from(job.id_chosen || job.key.is_some()));
    let args = args.text(format_args!("{priority} {max_retries} {max_losses} {retention} {payload} {repeatable}"));
    let args = args.duration(job.delay);
    let args = match job.queue_limit {
        Some(limit) => args.text(limit),
        None => args.text(-1),
    };
    trace_args(args, job.trace.as_ref()).bytes(&job.payload)
}

pub(crate) fn trace_args(args: Args, trace: Option<&TraceContext>) -> Args {
    let tracestate = trace.and_then(|trace| trace.tracestate.as_ref());
    args.maybe(trace.map(|trace| &trace.traceparent)).maybe(tracestate)
}

pub(crate) fn inserted(answer: Value) -> Done<InsertOutcome> {
    let mut answer = list(answer)?;
    Ok(match answer.int()? {
        0 => {
            let created_at = Timestamp::from_micros(answer.int()?);
            InsertOutcome::Inserted { created_at, version: 1, ahead: u64::try_from(answer.int()?).ok() }
        }
        1 => InsertOutcome::Existing(record::lookup(answer.list()?)?),
        2 => InsertOutcome::Conflict,
        4 => return Err(Fail::Bad("the job that was accepted before has fields that cannot be read".to_owned())),
        _ => InsertOutcome::Full,
    })
}

pub(crate) fn list_args(filter: &ListFilter, cursor: Option<Cursor>, limit: usize) -> Args {
    let index = match filter.status {
        None => "accepted:",
        Some(JobStatus::Queued) => "queued:",
        Some(JobStatus::Scheduled) => "scheduled:",
        Some(JobStatus::InProgress) => "running:",
        Some(JobStatus::Completed) => "completed:",
        Some(JobStatus::Failed) => "failed:",
        Some(JobStatus::Canceled) => "canceled:",
    };
    let newest_first = filter.status.is_none_or(JobStatus::is_terminal);
    let args = Args::new().bytes(index).maybe(filter.status.map(|status| (status as u8).to_string()));
    let args = args.bytes(if newest_first { "1" } else { "" });
    let args = args.text(cursor.map_or(0, |cursor| cursor.since.as_micros()));
    let args =
        args.maybe(cursor.map(|cursor| cursor.score.to_string())).maybe(cursor.map(|cursor| cursor.id.to_string()));
    args.text(limit).maybe(filter.name.as_ref().map(JobName::as_str))
}

pub(crate) fn list_page(mut found: Items, before: Option<Cursor>) -> Done<ListPage> {
    let now = Timestamp::from_micros(found.int()?);
    let (score, id) = (found.bytes()?, found.bytes()?);
    // A job that cannot be read is left out; whoever asks for it alone is told.
    let jobs = found.list()?.filter_map(|job| list(job).and_then(record::listed).ok()).collect();
    let since = before.map_or(now, |cursor| cursor.since);
    let next =
        if id.is_empty() { None } else { Some(Cursor { since, score: reply::number(&score)?, id: record::id(&id)? }) };
    Ok(ListPage { jobs, next })
}

pub(crate) fn claimed(mut found: Items, claim: &Claim) -> Done<Claimed> {
    let now = Timestamp::from_micros(found.int()?);
    let next_claim = u64::try_from(found.int()?).ok().map(Duration::from_micros);
    // What cannot be read here, a later version may: its lease runs out.
    let attempts = found.list()?.filter_map(|one| list(one).and_then(|one| attempt(one, claim, now)).ok());
    Ok(Claimed { attempts: attempts.collect(), next_claim, now })
}

pub(crate) fn attempt(mut one: Items, claim: &Claim, now: Timestamp) -> Done<Attempt> {
    let job = record::id(&one.bytes()?)?;
    let want = claim.quotas.get(one.number::<usize>()?.wrapping_sub(1));
    let want = want.ok_or_else(|| Fail::Bad("a type was not asked for".to_owned()))?;
    let (attempt, retry_count, terms) = (one.number()?, one.number()?, Terms::read(&one.bytes()?)?);
    Ok(Attempt {
        lease: Lease { job, token: claim.token },
        name: want.name.clone(),
        attempt,
        retry_count,
        max_retries: terms.max_retries,
        priority: terms.priority,
        payload: one.bytes()?.into(),
        created_at: terms.created_at,
        runnable_since: Timestamp::from_micros(one.int()?),
        started_at: now,
        trace: record::trace(one.maybe_text()?, one.maybe_text()?),
        previous_span: one.maybe_text()?,
    })
}

/// Progress as scripts read it: completed, total, percent and `=`message between spaces; empty if there is none.
fn progress(reported: Option<&ReportedProgress>) -> String {
    let Some(ReportedProgress { completed, total, percent, message }) = reported else { return String::new() };
    let total = total.map(|total| total.to_string()).unwrap_or_default();
    let percent = percent.map(|percent| percent.to_string()).unwrap_or_default();
    // No message is not an empty one.
    let message = message.as_ref().map(|message| format!("={message}")).unwrap_or_default();
    format!("{completed} {total} {percent} {message}")
}

pub(crate) fn report_args(args: Args, report: &Report) -> Args {
    let args = args.text(report.lease.job).text(report.lease.token.0).bytes(progress(report.progress.as_ref()));
    let args = args.text(report.logs.len());
    report.logs.iter().fold(args, |args, line| args.text(line.bytes()).bytes(json(line)))
}

pub(crate) fn settle_args(settles: &[Settlement]) -> Args {
    // The same for all attempts of a worker, so it is sent once.
    let mut errors: Vec<&ErrorRecord> = Vec::new();
    let mut places = Vec::with_capacity(settles.len());
    for settle in settles {
        let known = errors.iter().position(|error| **error == settle.if_canceled);
        places.push(known.unwrap_or_else(|| {
            errors.push(&settle.if_canceled);
            errors.len() - 1
        }));
    }
    let args = errors.iter().fold(Args::new().text(errors.len()), |args, error| args.bytes(json(error)));
    settles.iter().zip(places).fold(args, |args, (settle, place)| {
        let args = args.text(settle.lease.job).text(settle.lease.token.0).text(settle.outcome.kind() as u8);
        let args = match &settle.outcome {
            Outcome::Completed { result } => args.bytes(result).text(0),
            Outcome::Retry { delay, error } => args.bytes(json(error)).duration(*delay),
            Outcome::Failed { error } | Outcome::Canceled { error } => args.bytes(json(error)).text(0),
            Outcome::Released => args.bytes("").text(0),
        };
        args.text(place + 1)
            .bytes(if settle.slow { "1" } else { "" })
            .maybe(settle.span.as_ref())
            .bytes(progress(settle.progress.as_ref()))
    })
}

pub(crate) fn reclaimed(mut found: Items) -> Done<Reclaimed> {
    if found.int()? == 0 {
        return Ok(Reclaimed::Waiting(Duration::from_micros(found.number()?)));
    }
    let more = found.int()? == 1;
    let recovered_at = Timestamp::from_micros(found.int()?);
    let recovered_of = |one| {
        let mut one = list(one)?;
        Done::Ok(Recovered {
            id: record::id(&one.bytes()?)?,
            name: record::name(one.bytes()?)?,
            attempt: one.number()?,
            status: record::status(one.int()?)?,
            created_at: Timestamp::from_micros(one.int()?),
            recovered_at,
            trace: record::trace(one.maybe_text()?, one.maybe_text()?),
        })
    };
    // What cannot be read was recovered all the same.
    Ok(Reclaimed::Done { recovered: found.filter_map(|one| recovered_of(one).ok()).collect(), more })
}

pub(crate) fn uuid(text: &str) -> Done<Uuid> {
    text.parse().map_err(|_| Fail::Bad(format!("\"{}\" is no token", shown(text.as_bytes()))))
}
