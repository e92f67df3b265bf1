//! The service of `docs/tutorial.md`: repayment plans of loans. The page builds it in ten steps.

mod check;
mod errors;
#[cfg(test)]
mod tests;
mod users;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_endpoints::{
    Access, AsyncEndpoints, BuildError, Builder, Endpoint, JobContext, JobError, JobType, Options, SqliteStore,
    Telemetry,
};
use axum::{Router, middleware::from_fn};
use serde::{Deserialize, Serialize};

use crate::errors::PlanError;

/// Money is in cents, rates are percent per year.
#[derive(Serialize, Deserialize)]
struct Loan {
    amount: u64,
    margin: f64,
    payment: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    months: u32,
    interest: u64,
}

const PLAN: JobType<Loan, Plan> = JobType::new("Plan").errors::<PlanError>();

/// What the handler depends on.
struct Bank {
    rate_file: PathBuf,
}

impl Bank {
    /// The base rate, which another program writes.
    async fn base_rate(&self) -> Result<f64, PlanError> {
        let text = tokio::fs::read_to_string(&self.rate_file).await?;
        text.trim().parse().map_err(|_| PlanError::InvalidRate(text))
    }
}

async fn plan(ctx: JobContext<Loan>, bank: Arc<Bank>) -> Result<Plan, JobError> {
    let loan = ctx.request();
    let rate = bank.base_rate().await? + loan.margin;
    let mut plan = Plan { months: 0, interest: 0 };
    let mut debt = loan.amount;
    while debt > 0 {
        ctx.check_canceled()?;
        let interest = (debt as f64 * rate / 1200.0).round() as u64;
        if interest >= loan.payment {
            Err(PlanError::NeverRepaid { interest, payment: loan.payment })?;
        }
        debt = (debt + interest).saturating_sub(loan.payment);
        plan.months += 1;
        plan.interest += interest;
        ctx.progress().set(loan.amount.saturating_sub(debt), loan.amount);
        tokio::time::sleep(Duration::from_millis(50)).await; // stands for slow work
    }
    Ok(plan)
}

/// The service. The builder has what differs between production and tests.
fn service(builder: Builder, bank: Bank) -> Result<(AsyncEndpoints, Router), BuildError> {
    let endpoints = builder
        .endpoint(Endpoint::post("/api/plans", PLAN).validate(check::check).layer(from_fn(users::authenticate)))
        .handler_with(PLAN, Arc::new(bank), plan)
        .owner(|request| users::user_of(&request.headers).map(|user| user.name))
        .access(Access::when(|request| users::user_of(&request.headers).is_some_and(|user| user.is_operator)))
        .build()?;
    let app = Router::new()
        .merge(endpoints.submit_routes())
        .merge(endpoints.job_routes().layer(from_fn(users::authenticate)))
        .merge(endpoints.monitoring_routes());
    Ok((endpoints, app))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = Telemetry::from_env()?;
    let builder = AsyncEndpoints::builder(SqliteStore::open("loans.db").await?)
        .options(Options::from_env("LOANS_")?)
        .telemetry(&telemetry);
    let (endpoints, app) = service(builder, Bank { rate_file: "base-rate.txt".into() })?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
