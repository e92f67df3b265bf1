//! Encodes the arguments of scripts and decodes their answers, in the order of each script's header. Knows nothing of
//! connections.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    job::{ErrorRecord, JobTerms, LogLine, TraceContext},
    store::{
        Attempt, CancelOutcome, Claim, Claimed, Cursor, Fenced, InsertOutcome, JobLookup, Lease, ListFilter, ListPage,
        NewJob, Outcome, PutOutcome, Reclaimed, Recovered, Renewed, Report, ReportedProgress, RetryOutcome, Role,
        RoleToken, Settled, Settlement,
    },
};
use redis::Value;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    args::{Args, micros},
    fail::Fail,
    record::{self, Terms},
    reply::{self, int, list, parse},
};

pub(crate) type Done<T> = Result<T, Fail>;

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn new_job(args: Args, job: &NewJob) -> Args {
    let args = args.text(job.id).bytes(job.name.as_str()).maybe(job.key.as_ref().map(|key| key.as_str()));
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
    trace_args(args, job.trace.as_ref()).bytes(&job.payload).maybe(job.owner_label.as_ref())
}

pub(crate) fn trace_args(args: Args, trace: Option<&TraceContext>) -> Args {
    let tracestate = trace.and_then(|trace| trace.tracestate.as_ref());
    args.maybe(trace.map(|trace| trace.traceparent.to_string())).maybe(tracestate)
}

pub(crate) fn inserted(answer: Value) -> Done<InsertOutcome> {
    let mut answer = list(answer)?;
    Ok(match answer.int()? {
        0 => {
            let created_at = Timestamp::from_micros(answer.int()?);
            InsertOutcome::Inserted { created_at, version: 1, ahead: answer.maybe_number()? }
        }
        1 => InsertOutcome::Existing(record::lookup(answer.value()?)?),
        2 => InsertOutcome::Conflict,
        3 => InsertOutcome::Full,
        4 => return Err(Fail::Unreadable("the existing job cannot be read".to_owned())),
        other => return Err(Fail::unknown(other)),
    })
}

pub(crate) fn versions(answers: Value, ids: usize) -> Done<Vec<Option<u64>>> {
    reply::each(answers, ids, |version| Ok(Some(reply::ranged(int(version)?)?).filter(|version| *version > 0)))
}

/// Arguments to check at most `entries` entries of the list and return at most `jobs` of their jobs.
pub(crate) fn list_args(filter: &ListFilter, cursor: Option<Cursor>, entries: usize, jobs: usize) -> Args {
    let index = match filter.status {
        None if filter.owner.is_some() => "owned:",
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
    let args = args.text(entries).text(jobs).maybe(filter.name.as_ref().map(JobName::as_str));
    let args = args.maybe(filter.owner.map(|owner| owner.0));
    let time = |time: Option<Timestamp>| time.map(|time| time.as_micros().to_string());
    let args = args.maybe(time(filter.since)).maybe(time(filter.until)).duration(ListFilter::ORDER_LEAD);
    args.maybe(filter.code.as_ref().map(|code| format!("={code}")))
        .maybe(filter.text.as_ref().map(|text| text.to_ascii_lowercase()))
}

pub(crate) fn list_page(answer: Value, before: Option<Cursor>) -> Done<ListPage> {
    let mut found = list(answer)?;
    let now = Timestamp::from_micros(found.int()?);
    let (score, id) = (found.bytes()?, found.bytes()?);
    // A page skips jobs that cannot be read; `get` returns their error.
    let jobs = found.list()?.filter_map(|job| record::listed(job).ok()).collect();
    let scanned = found.number()?;
    let since = before.map_or(now, |cursor| cursor.since);
    let next =
        if id.is_empty() { None } else { Some(Cursor { since, score: reply::number(&score)?, id: record::id(&id)? }) };
    Ok(ListPage { jobs, scanned, next })
}

pub(crate) fn claim_args(claim: &Claim, max: usize) -> Args {
    let args = Args::new().text(claim.token.0).text(claim.worker).duration(claim.lease).text(max).text(claim.max_bytes);
    args.items(&claim.quotas, |args, quota| args.bytes(quota.name.as_str()).text(quota.max))
}

pub(crate) fn claimed(answer: Value, claim: &Claim) -> Done<Claimed> {
    let mut found = list(answer)?;
    let now = Timestamp::from_micros(found.int()?);
    let next_claim = found.maybe_number()?.map(Duration::from_micros);
    // A job that cannot be read must not cost the others their attempts. Its lease expires.
    let attempts = found.list()?.filter_map(|one| attempt(one, claim, now).ok());
    Ok(Claimed { attempts: attempts.collect(), next_claim, now })
}

fn attempt(answer: Value, claim: &Claim, now: Timestamp) -> Done<Attempt> {
    let mut one = list(answer)?;
    let job = record::id(&one.bytes()?)?;
    let quota = one.number::<usize>()?;
    let quota = claim.quotas.get(quota.wrapping_sub(1)).ok_or_else(|| Fail::unknown(quota))?;
    let (attempt, retry_count, terms) = (one.number()?, one.number()?, Terms::read(&one.bytes()?)?);
    Ok(Attempt {
        lease: Lease { job, token: claim.token },
        name: quota.name.clone(),
        attempt,
        retry_count,
        max_retries: terms.max_retries,
        priority: terms.priority,
        payload: one.bytes()?.into(),
        created_at: terms.created_at,
        runnable_since: Timestamp::from_micros(one.int()?),
        started_at: now,
        trace: record::trace(one.maybe_text()?, one.maybe_text()?),
        previous_span: one.maybe_text()?.and_then(|text| text.parse().ok()),
        owner: record::digest(one.bytes()?)?,
        owner_label: one.maybe_text()?,
    })
}

pub(crate) fn renewed(answer: Value) -> Done<Renewed> {
    Ok(match int(answer)? {
        0 => Renewed::Held,
        1 => Renewed::CancelRequested,
        2 => Renewed::Lost,
        other => return Err(Fail::unknown(other)),
    })
}

/// Progress as scripts read it: completed, total, percent and `=`message between spaces; empty if there is none.
fn progress(reported: Option<&ReportedProgress>) -> String {
    let Some(ReportedProgress { completed, total, percent, message }) = reported else { return String::new() };
    let total = total.map(|total| total.to_string()).unwrap_or_default();
    let percent = percent.map(|percent| percent.to_string()).unwrap_or_default();
    // `=` tells an empty message from no message.
    let message = message.as_ref().map(|message| format!("={message}")).unwrap_or_default();
    format!("{completed} {total} {percent} {message}")
}

/// Log lines as scripts read them: for each its counted bytes, a space, its JSON and a line feed. JSON has no line feeds.
fn lines(lines: &[LogLine]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(format!("{} ", line.bytes()).as_bytes());
        text.extend_from_slice(json(line).as_ref());
        text.push(b'\n');
    }
    text
}

pub(crate) fn report_args(reports: &[Report]) -> Args {
    Args::new().items(reports, |args, report| {
        let args = args.text(report.lease.job).text(report.lease.token.0);
        args.bytes(progress(report.progress.as_ref())).bytes(lines(&report.logs))
    })
}

pub(crate) fn fenced(answer: Value) -> Done<Fenced> {
    Ok(match int(answer)? {
        0 => Fenced::Applied,
        1 => Fenced::Lost,
        other => return Err(Fail::unknown(other)),
    })
}

pub(crate) fn settle_args(settlements: &[Settlement]) -> Args {
    // The attempts of a worker usually share one error, which is sent once.
    let mut errors: Vec<&ErrorRecord> = Vec::new();
    let mut places = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let known = errors.iter().position(|error| **error == settlement.if_canceled);
        places.push(known.unwrap_or_else(|| {
            errors.push(&settlement.if_canceled);
            errors.len() - 1
        }));
    }
    let args = errors.iter().fold(Args::new().text(errors.len()), |args, error| args.bytes(json(error)));
    args.items(settlements.iter().zip(places), |args, (settlement, place)| {
        let args = args.text(settlement.lease.job).text(settlement.lease.token.0);
        let args = args.text(settlement.outcome.kind() as u8);
        let args = match &settlement.outcome {
            Outcome::Completed { result } => args.bytes(result).text(0),
            Outcome::Retry { delay, error } => args.bytes(json(error)).duration(*delay),
            Outcome::Failed { error } | Outcome::Canceled { error } => args.bytes(json(error)).text(0),
            Outcome::Released => args.bytes("").text(0),
        };
        args.text(place + 1)
            .bytes(if settlement.slow { "1" } else { "" })
            .maybe(settlement.span.map(String::from))
            .bytes(progress(settlement.progress.as_ref()))
            .bytes(lines(&settlement.logs))
    })
}

pub(crate) fn settled(answer: Value) -> Done<Settled> {
    match int(answer)? {
        -1 => Ok(Settled::Lost),
        status => record::status(status).map(Settled::Settled),
    }
}

pub(crate) fn canceled(answer: Value) -> Done<CancelOutcome> {
    let mut found = list(answer)?;
    Ok(match (found.int()?, record::lookup(found.value()?)?) {
        (0, JobLookup::Found(job)) => CancelOutcome::Canceled(job),
        (1, JobLookup::Found(job)) => CancelOutcome::Requested(job),
        (2, JobLookup::Found(job)) => CancelOutcome::Terminal(job),
        (3, JobLookup::Gone { owner }) => CancelOutcome::Gone { owner },
        (3, JobLookup::NotFound) => CancelOutcome::NotFound,
        (other, _) => return Err(Fail::unknown(other)),
    })
}

pub(crate) fn retried(answer: Value) -> Done<RetryOutcome> {
    let mut found = list(answer)?;
    Ok(match (found.int()?, record::lookup(found.value()?)?) {
        (0, JobLookup::Found(job)) => RetryOutcome::Created(job),
        (1, retried) => RetryOutcome::Existing(retried),
        (2, JobLookup::Found(job)) => RetryOutcome::NotEnded(job.status),
        (3, JobLookup::Found(_)) => RetryOutcome::Conflict,
        (4, JobLookup::Gone { owner }) => RetryOutcome::Gone { owner },
        (4, JobLookup::NotFound) => RetryOutcome::NotFound,
        (5, JobLookup::Found(job)) => return Err(Fail::Unreadable(format!("job {} has no payload", job.id))),
        (other, _) => return Err(Fail::unknown(other)),
    })
}

pub(crate) fn reclaimed(answer: Value) -> Done<Reclaimed> {
    let mut found = list(answer)?;
    match found.int()? {
        0 => return Ok(Reclaimed::Waiting(Duration::from_micros(found.number()?))),
        1 => {}
        other => return Err(Fail::unknown(other)),
    }
    let more = match found.int()? {
        0 => false,
        1 => true,
        other => return Err(Fail::unknown(other)),
    };
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
    // A job that cannot be read was recovered like the others, which must still be reported.
    Ok(Reclaimed::Done { recovered: found.filter_map(|one| recovered_of(one).ok()).collect(), more })
}

pub(crate) fn role_args(name: &str, holder: Uuid, ttl: Duration) -> Args {
    Args::new().bytes(name).text(holder).duration(ttl).text(Uuid::new_v4())
}

pub(crate) fn role(answer: Value) -> Done<Role> {
    let mut found = list(answer)?;
    Ok(match found.int()? {
        0 => Role::Held(RoleToken(uuid(&found.bytes()?)?)),
        1 => Role::Other(Duration::from_micros(found.number()?)),
        2 => Role::Resigned,
        other => return Err(Fail::unknown(other)),
    })
}

pub(crate) fn put(answer: Value, version: Uuid) -> Done<PutOutcome> {
    Ok(match int(answer)? {
        0 => PutOutcome::Stored(async_endpoints_core::store::DocVersion(version)),
        1 => PutOutcome::Stale,
        2 => PutOutcome::Fenced,
        other => return Err(Fail::unknown(other)),
    })
}

pub(crate) fn uuid(text: &[u8]) -> Done<Uuid> {
    parse(text, "token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_answers_are_errors() {
        let code = |code: i64| Value::Array(vec![Value::Int(code), Value::Array(vec![Value::Int(0)])]);
        for unknown in [-2, 9] {
            let number = || Value::Int(unknown);
            let decoded = [
                inserted(code(unknown)).map(drop),
                versions(Value::Array(vec![Value::Int(-1)]), 1).map(drop),
                renewed(number()).map(drop),
                fenced(number()).map(drop),
                settled(number()).map(drop),
                canceled(code(unknown)).map(drop),
                retried(code(unknown)).map(drop),
                reclaimed(code(unknown)).map(drop),
                role(code(unknown)).map(drop),
                put(number(), Uuid::nil()).map(drop),
            ];
            for (at, decoded) in decoded.into_iter().enumerate() {
                assert!(matches!(decoded, Err(Fail::Corrupt(_))), "{at}: {decoded:?}");
            }
        }
    }
}
