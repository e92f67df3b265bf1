//! Validates a request before a job is stored.

use async_endpoints::{Problem, Submission, axum::http::StatusCode};

use crate::Loan;

/// 100 million, in cents.
const MAX_AMOUNT: u64 = 10_000_000_000;

pub(crate) async fn check(loan: Submission<Loan>) -> Result<Submission<Loan>, Problem> {
    let Loan { amount, margin, payment } = *loan.request();
    let rules = [
        ((1..=MAX_AMOUNT).contains(&amount), "/amount", "expected 1 to 10000000000"),
        ((0.0..=20.0).contains(&margin), "/margin", "expected 0 to 20"),
        ((1..=MAX_AMOUNT).contains(&payment), "/payment", "expected 1 to 10000000000"),
    ];
    let mut broken = rules.into_iter().filter(|(is_met, ..)| !is_met).peekable();
    if broken.peek().is_none() {
        return Ok(loan);
    }
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_LOAN", "The loan is invalid");
    Err(broken.fold(problem, |problem, (_, field, expected)| problem.with_error(field, expected)))
}
