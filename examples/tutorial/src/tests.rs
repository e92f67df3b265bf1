#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use async_endpoints::{AsyncEndpoints, CancellationReason, DomainError, JobContext, JobError, MemoryStore};
use async_endpoints_client::{Client, Error};
use tokio::net::TcpListener;

use crate::{Bank, Loan, Plan, errors::PlanError, plan, service};

fn bank() -> Bank {
    Bank { rate_file: "base-rate.txt".into() }
}

#[tokio::test]
async fn loan_is_repaid_with_interest() {
    let ctx = JobContext::for_test(Loan { amount: 120_000, margin: 3.5, payment: 50_000 });
    assert_eq!(plan(ctx, Arc::new(bank())).await.unwrap(), Plan { months: 3, interest: 1_058 });
}

/// The error of the domain, which `?` passed on as the source.
fn domain_error(error: &JobError) -> &PlanError {
    error.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn payment_below_the_interest_is_never_repaid() {
    let ctx = JobContext::for_test(Loan { amount: 120_000, margin: 3.5, payment: 1 });
    let error = plan(ctx, Arc::new(bank())).await.unwrap_err();
    assert!(matches!(domain_error(&error), PlanError::NeverRepaid { interest: 600, payment: 1 }));
}

#[tokio::test]
async fn missing_rate_is_retried() {
    let ctx = JobContext::for_test(Loan { amount: 120_000, margin: 3.5, payment: 50_000 });
    let error = plan(ctx, Arc::new(Bank { rate_file: "missing".into() })).await.unwrap_err();
    let error = domain_error(&error).job_error(); // what callers see
    assert_eq!((error.code(), error.is_retryable()), ("RATE_UNAVAILABLE", true));
}

#[tokio::test]
async fn canceled_plan_stops() {
    let ctx = JobContext::for_test(Loan { amount: 120_000, margin: 3.5, payment: 50_000 });
    let ctx = ctx.with_cancellation(CancellationReason::Canceled);
    assert_eq!(plan(ctx, Arc::new(bank())).await.unwrap_err().code(), "JOB_CANCELED");
}

/// Starts the service over a store in memory, on a free port.
async fn start() -> (AsyncEndpoints, String) {
    let (endpoints, app) = service(AsyncEndpoints::builder(MemoryStore::new()), bank()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = endpoints.clone();
    tokio::spawn(async move { serving.serve(listener, app).await });
    (endpoints, url)
}

#[tokio::test]
async fn callers_see_their_own_plans_only() {
    let (endpoints, url) = start().await;
    let ada = Client::builder(&url).bearer_token("ada-secret").build().unwrap();
    let bob = Client::builder(&url).bearer_token("bob-secret").build().unwrap();

    let loan = Loan { amount: 120_000, margin: 3.5, payment: 50_000 };
    let job = ada.submit::<_, Plan>("/api/plans", &loan).await.unwrap();
    assert_eq!(job.wait().await.unwrap(), Plan { months: 3, interest: 1_058 });

    let error = bob.job::<Plan>(job.id()).state().await.unwrap_err();
    assert_eq!(error.code(), Some("JOB_NOT_FOUND"));
    endpoints.shutdown();
}

#[tokio::test]
async fn invalid_loan_is_refused() {
    let (endpoints, url) = start().await;
    let ada = Client::builder(&url).bearer_token("ada-secret").build().unwrap();
    let loan = Loan { amount: 0, margin: 3.5, payment: 50_000 };
    let error = ada.submit::<_, Plan>("/api/plans", &loan).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { status, .. } if *status == 422), "{error}");
    assert_eq!(error.code(), Some("INVALID_LOAN"));
    endpoints.shutdown();
}

#[tokio::test]
async fn caller_without_token_is_refused() {
    let (endpoints, url) = start().await;
    let loan = Loan { amount: 120_000, margin: 3.5, payment: 50_000 };
    let submission = Client::new(&url).unwrap().submit::<_, Plan>("/api/plans", &loan).await;
    assert_eq!(submission.unwrap_err().code(), Some("UNAUTHORIZED"));
    endpoints.shutdown();
}
