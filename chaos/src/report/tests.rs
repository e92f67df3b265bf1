//! Each kind of violation is detected.

use serde_json::json;

use super::*;
use crate::{
    fault::{Fault, Replication, Span, Target},
    history::{FaultEvent, before},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn line(second: i64, attempt: u64, process: u32, is_end: bool) -> Line {
    Line { at: at(second), job: "a".to_owned(), attempt, process, is_end }
}

fn event(fault: Fault, process: Option<u32>, from: i64, until: i64) -> FaultEvent {
    FaultEvent { fault, process, from: at(from), until: at(until), alone: true }
}

fn job(attempts: &[&str]) -> Value {
    let lost = attempts.iter().filter(|outcome| **outcome == "lost").count();
    let all: Vec<Value> =
        attempts.iter().zip(1..).map(|(outcome, n)| json!({ "attempt": n, "outcome": outcome })).collect();
    json!({ "id": "a", "status": "Completed", "attempt": attempts.len(), "retryCount": 0, "lossCount": lost, "attempts": all })
}

/// The violations for one job that was accepted at second 10.
fn violations(
    history: &FaultHistory,
    lines: Vec<Line>,
    seen: Option<Value>,
    in_the_end: Option<Value>,
) -> Vec<&'static str> {
    let accepted_job = Accepted { id: "a".to_owned(), at: at(10) };
    let ended = seen.map(|seen| ("a".to_owned(), seen)).into_iter().collect();
    let clients = ClientLog { accepted: vec![accepted_job.clone()], ended, ..ClientLog::default() };
    let accepted = BTreeMap::from([("a", &accepted_job)]);
    let checker = Checker { history, lines: by_job(lines), accepted, report: Report::default() };
    let jobs: Vec<Value> = in_the_end.into_iter().collect();
    let again = jobs.iter().map(|job| ("a".to_owned(), job.clone())).collect();
    let missing = if jobs.is_empty() { vec!["a".to_owned()] } else { Vec::new() };
    let report = checker.report(&clients, &jobs, &again, &missing);
    let mut names: Vec<_> =
        report.violations().iter().filter(|(_, found)| !found.is_empty()).map(|(name, _)| *name).collect();
    names.extend((!report.lost_by_failover.is_empty()).then_some("lost by failover"));
    names
}

const NOTHING: [&str; 0] = [];

#[test]
fn completed_job_has_no_violation() {
    let lines = vec![line(10, 1, 7, false), line(11, 1, 7, true)];
    assert_eq!(
        violations(&FaultHistory::default(), lines, Some(job(&["completed"])), Some(job(&["completed"]))),
        NOTHING
    );
}

#[test]
fn wrong_job_records_are_violations() {
    let history = FaultHistory::default();
    assert_eq!(violations(&history, vec![], None, None), ["lost"]);
    let (lost, done) = (job(&["lost", "completed"]), job(&["completed"]));
    assert_eq!(violations(&history, vec![], Some(done.clone()), Some(lost)), ["changed after their end"]);
    let twice = vec![line(10, 1, 7, false), line(10, 1, 7, true), line(11, 1, 8, false), line(11, 1, 8, true)];
    assert_eq!(violations(&history, twice, None, Some(done.clone())), ["run more often than counted"]);
    let other = Line { job: "b".to_owned(), ..line(10, 1, 7, false) };
    assert_eq!(violations(&history, vec![other], None, Some(done)), ["duplicated"]);
    let settled = violations(&history, vec![], None, Some(job(&["completed", "lost"])));
    assert_eq!(settled, ["settled twice"]);
}

#[test]
fn completion_before_the_last_end_is_a_violation() {
    let ended = |second: i64| {
        let mut job = job(&["lost", "completed"]);
        job["completedAt"] = json!(at(second).to_string());
        Some(job)
    };
    let history = FaultHistory { gone: HashMap::from([(7, at(12)), (8, at(22))]), ..FaultHistory::default() };
    let lines = [line(10, 1, 7, false), line(20, 2, 8, false), line(24, 2, 8, true)];
    assert_eq!(violations(&history, lines.to_vec(), None, ended(24)), NOTHING);
    assert_eq!(violations(&history, lines.to_vec(), None, ended(21)), ["settled twice"]);
    assert_eq!(violations(&history, lines[..2].to_vec(), None, ended(24)), ["settled twice"]);
    assert_eq!(violations(&history, lines[..1].to_vec(), None, ended(24)), ["settled twice"]);
}

#[test]
fn overlapping_handler_is_a_violation() {
    let lines = |end| vec![line(10, 1, 7, false), line(20, 2, 8, false), line(21, 2, 8, true), line(end, 1, 7, true)];
    let done = || Some(job(&["lost", "completed"]));
    let history = FaultHistory::default();
    assert_eq!(violations(&history, lines(21), None, done()), NOTHING);
    assert_eq!(violations(&history, lines(30), None, done()), ["still running after the next attempt started"]);
    assert_eq!(
        violations(&history, lines(30)[..3].to_vec(), None, done()),
        ["still running after the next attempt started"]
    );
    let killed = FaultHistory { gone: HashMap::from([(7, at(12))]), ..FaultHistory::default() };
    assert_eq!(violations(&killed, lines(30)[..3].to_vec(), None, done()), NOTHING);
    let frozen = event(Fault::Freeze(Target::Working, Span::PastLease), Some(7), 11, 29);
    assert_eq!(
        violations(&FaultHistory { events: vec![frozen], ..FaultHistory::default() }, lines(30), None, done()),
        NOTHING
    );
}

#[test]
fn promotion_excuses_its_last_second_only_if_replication_is_asynchronous() {
    let promoted = |replication, from| FaultHistory {
        events: vec![event(Fault::Promote(replication), None, from, from)],
        ..FaultHistory::default()
    };
    for (from, expected) in [(9, "lost"), (10, "lost by failover"), (11, "lost by failover"), (12, "lost")] {
        assert_eq!(violations(&promoted(Replication::Asynchronous, from), vec![], None, None), [expected]);
        assert_eq!(violations(&promoted(Replication::Synchronous, from), vec![], None, None), ["lost"]);
    }
}

#[test]
fn stop_disturbs_its_process_only() {
    let history = FaultHistory { gone: HashMap::from([(7, at(12))]), ..FaultHistory::default() };
    assert!(
        history.is_disturbed(7, at(11), at(13))
            && !history.is_disturbed(7, at(1), at(7))
            && !history.is_disturbed(8, at(11), at(13))
    );
}

#[test]
fn recovery_times_are_measured() {
    let outage = event(Fault::KillStore, None, 20, 24);
    let cut = event(Fault::CutOff(Target::Working, crate::proxy::LinkState::Cut), Some(7), 40, 52);
    let history =
        FaultHistory { events: vec![outage, cut], killed: HashMap::from([(7, at(10))]), ..FaultHistory::default() };
    let of = |lines: &[Line]| Recovery::of(&history, lines, &[], at(100));
    let good = of(&[line(25, 1, 8, false), line(53, 1, 8, false), line(55, 2, 7, false)]);
    assert_eq!((good.after_outage, good.after_cut), (vec![Duration::from_secs(1)], vec![Duration::from_secs(3)]));
    let bad = of(&[line(30, 1, 8, false), line(53, 1, 8, false)]);
    assert_eq!((bad.late_after_outage.len(), bad.late_after_cut.len()), (1, 1));
    // After the last submission no recovery is expected.
    let ended = Recovery::of(&history, &[line(25, 1, 8, false)], &[], at(55));
    assert_eq!((ended.late_after_outage.len(), ended.late_after_cut.len()), (0, 0));
    let mut lost = job(&["lost", "completed"]);
    lost["attempts"][1]["startedAt"] = json!(at(18).to_string());
    let killed = Recovery::of(&history, &[line(9, 1, 7, false)], &[lost.clone()], at(100));
    assert_eq!((killed.interrupted, killed.after_kill), (1, vec![Duration::from_secs(8)]));
    lost["attempts"][1]["startedAt"] = json!(at(22).to_string());
    assert_eq!(Recovery::of(&history, &[line(9, 1, 7, false)], &[lost], at(100)).interrupted, 0);
}

#[test]
fn quantile_of_no_values_is_none() {
    let times: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
    assert_eq!(recovery::quantile(&times, 1.0), Some(Duration::from_secs(100)));
    assert_eq!(recovery::quantile(&[], 0.5), None);
    assert_eq!(before(at(5), Duration::from_secs(5)), at(0));
}
