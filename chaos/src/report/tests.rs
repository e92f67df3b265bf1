//! Each promise is found broken when it is.

use serde_json::json;

use super::*;
use crate::{
    diary::{Happened, before},
    fault::{Fault, Span, Who},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn line(second: i64, attempt: u64, process: u32, is_end: bool) -> Line {
    Line { at: at(second), job: "a".to_owned(), attempt, process, is_end }
}

fn happened(fault: Fault, process: Option<u32>, from: i64, until: i64) -> Happened {
    Happened { fault, process, from: at(from), until: at(until), alone: true }
}

fn job(attempts: &[&str]) -> Value {
    let lost = attempts.iter().filter(|outcome| **outcome == "lost").count();
    let all: Vec<Value> =
        attempts.iter().zip(1..).map(|(outcome, n)| json!({ "attempt": n, "outcome": outcome })).collect();
    json!({ "id": "a", "status": "Completed", "attempt": attempts.len(), "retryCount": 0, "lossCount": lost, "attempts": all })
}

/// The names of the promises that are broken, for one job that was accepted at second 10.
fn broken(pages: &Pages, lines: Vec<Line>, seen: Option<Value>, in_the_end: Option<Value>) -> Vec<&'static str> {
    let told = Accepted { id: "a".to_owned(), at: at(10) };
    let ended = seen.map(|seen| ("a".to_owned(), seen)).into_iter().collect();
    let heard = Heard { accepted: vec![told.clone()], ended, ..Heard::default() };
    let accepted = BTreeMap::from([("a", &told)]);
    let judge = Judge { pages, lines: by_job(lines), accepted, report: Report::default() };
    let jobs: Vec<Value> = in_the_end.into_iter().collect();
    let again = jobs.iter().map(|job| ("a".to_owned(), job.clone())).collect();
    let missing = if jobs.is_empty() { vec!["a".to_owned()] } else { Vec::new() };
    let report = judge.report(&heard, &jobs, &again, &missing);
    let mut names: Vec<_> =
        report.broken().iter().filter(|(_, broken)| !broken.is_empty()).map(|(name, _)| *name).collect();
    names.extend((!report.tail.is_empty()).then_some("tail"));
    names
}

const NOTHING: [&str; 0] = [];

#[test]
fn what_is_fine_is_fine() {
    let lines = vec![line(10, 1, 7, false), line(11, 1, 7, true)];
    assert_eq!(broken(&Pages::default(), lines, Some(job(&["completed"])), Some(job(&["completed"]))), NOTHING);
}

#[test]
fn lost_changed_and_uncounted() {
    let pages = Pages::default();
    assert_eq!(broken(&pages, vec![], None, None), ["lost"]);
    let (lost, done) = (job(&["lost", "completed"]), job(&["completed"]));
    assert_eq!(broken(&pages, vec![], Some(done.clone()), Some(lost)), ["changed after their end"]);
    let twice = vec![line(10, 1, 7, false), line(10, 1, 7, true), line(11, 1, 8, false), line(11, 1, 8, true)];
    assert_eq!(broken(&pages, twice, None, Some(done.clone())), ["run more often than was counted"]);
    let other = Line { job: "b".to_owned(), ..line(10, 1, 7, false) };
    assert_eq!(broken(&pages, vec![other], None, Some(done)), ["made twice"]);
    let settled = broken(&pages, vec![], None, Some(job(&["completed", "lost"])));
    assert_eq!(settled, ["settled twice"]);
}

#[test]
fn settled_while_its_last_attempt_ran() {
    let ended = |second: i64| {
        let mut job = job(&["lost", "completed"]);
        job["completedAt"] = json!(at(second).to_string());
        Some(job)
    };
    let pages = Pages { gone: HashMap::from([(7, at(12)), (8, at(22))]), ..Pages::default() };
    let lines = [line(10, 1, 7, false), line(20, 2, 8, false), line(24, 2, 8, true)];
    assert_eq!(broken(&pages, lines.to_vec(), None, ended(24)), NOTHING);
    assert_eq!(broken(&pages, lines.to_vec(), None, ended(21)), ["settled twice"]);
    assert_eq!(broken(&pages, lines[..2].to_vec(), None, ended(24)), ["settled twice"]);
    assert_eq!(broken(&pages, lines[..1].to_vec(), None, ended(24)), ["settled twice"]);
}

#[test]
fn a_handler_that_went_on() {
    let lines = |end| vec![line(10, 1, 7, false), line(20, 2, 8, false), line(21, 2, 8, true), line(end, 1, 7, true)];
    let done = || Some(job(&["lost", "completed"]));
    let pages = Pages::default();
    assert_eq!(broken(&pages, lines(21), None, done()), NOTHING);
    assert_eq!(broken(&pages, lines(30), None, done()), ["run on after another attempt had begun"]);
    assert_eq!(broken(&pages, lines(30)[..3].to_vec(), None, done()), ["run on after another attempt had begun"]);
    let killed = Pages { gone: HashMap::from([(7, at(12))]), ..Pages::default() };
    assert_eq!(broken(&killed, lines(30)[..3].to_vec(), None, done()), NOTHING);
    let frozen = happened(Fault::Freeze(Who::Works, Span::PastLease), Some(7), 11, 29);
    assert_eq!(broken(&Pages { happened: vec![frozen], ..Pages::default() }, lines(30), None, done()), NOTHING);
}

#[test]
fn a_promotion_may_cost_its_last_second_and_no_more() {
    let promoted = |from| Pages { happened: vec![happened(Fault::Promote, None, from, from)], ..Pages::default() };
    assert_eq!(broken(&promoted(10), vec![], None, None), ["tail"]);
    assert_eq!(broken(&promoted(11), vec![], None, None), ["tail"]);
    assert_eq!(broken(&promoted(12), vec![], None, None), ["lost"]);
    assert_eq!(broken(&promoted(9), vec![], None, None), ["lost"]);
}

#[test]
fn late_is_who_was_not_disturbed() {
    let pages = Pages { gone: HashMap::from([(7, at(12))]), ..Pages::default() };
    assert!(
        pages.is_disturbed(7, at(11), at(13))
            && !pages.is_disturbed(7, at(1), at(7))
            && !pages.is_disturbed(8, at(11), at(13))
    );
}

#[test]
fn coming_back_is_measured() {
    let outage = happened(Fault::KillStore, None, 20, 24);
    let cut = happened(Fault::CutOff(Who::Works, crate::proxy::Way::Cut), Some(7), 40, 52);
    let pages = Pages { happened: vec![outage, cut], killed: HashMap::from([(7, at(10))]), ..Pages::default() };
    let of = |lines: &[Line]| Recovery::of(&pages, lines, &[], at(100));
    let good = of(&[line(25, 1, 8, false), line(53, 1, 8, false), line(55, 2, 7, false)]);
    assert_eq!((good.after_outage, good.after_cut), (vec![Duration::from_secs(1)], vec![Duration::from_secs(3)]));
    let bad = of(&[line(30, 1, 8, false), line(53, 1, 8, false)]);
    assert_eq!((bad.late_after_outage.len(), bad.late_after_cut.len()), (1, 1));
    // A run that ended meanwhile says nothing.
    let ended = Recovery::of(&pages, &[line(25, 1, 8, false)], &[], at(55));
    assert_eq!((ended.late_after_outage.len(), ended.late_after_cut.len()), (0, 0));
    let mut lost = job(&["lost", "completed"]);
    lost["attempts"][1]["startedAt"] = json!(at(18).to_string());
    let killed = Recovery::of(&pages, &[line(9, 1, 7, false)], &[lost.clone()], at(100));
    assert_eq!((killed.cut_off, killed.after_kill), (1, vec![Duration::from_secs(8)]));
    lost["attempts"][1]["startedAt"] = json!(at(22).to_string());
    assert_eq!(Recovery::of(&pages, &[line(9, 1, 7, false)], &[lost], at(100)).cut_off, 0);
}

#[test]
fn quantiles_are_of_what_there_is() {
    let times: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
    assert_eq!(recovery::quantile(&times, 1.0), Some(Duration::from_secs(100)));
    assert_eq!(recovery::quantile(&[], 0.5), None);
    assert_eq!(before(at(5), Duration::from_secs(5)), at(0));
}
