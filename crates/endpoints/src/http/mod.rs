//! The HTTP layer: declared endpoints, routes, requests, responses. Must not know workers or drivers.
//!
//! | file | contents |
//! |---|---|
//! | `endpoint`, `submission`, `choices` | what an application declares: endpoints, their validators and the choices of callers |
//! | `config`, `access`, `owners`, `responses` | what an application configures for all routes |
//! | `grant`, `loopback`, `site`, `session`, `login` | callers: their levels, this machine, other sites, sessions of browsers |
//! | `route` | the list of routes |
//! | `routes` | the routers, and what all routes have in common |
//! | `submit` | accepting a job on a declared path |
//! | `from_parts` | accepting a job on a path of the application |
//! | `list`, `get`, `result`, `events`, `logs`, `explain`, `request`, `cancel`, `retry` | the job routes, one each |
//! | `metrics`, `monitoring` | `/metrics`, `/metrics/jobs` |
//! | `health` | `/health`, `/health/ready` and `/health/live` |
//! | `ops`, `failures` | `/ops/workers`, `/ops/series`, `/ops/failures` |
//! | `types` | `/ops/types` and the routes below it |
//! | `audit` | `/ops/audit`, and the recording of operators' actions |
//! | `bulk` | `/ops/bulk` and the routes below it |
//! | `alerts` | `/alerts` and the routes below it |
//! | `openapi` | `/openapi.json` |
//! | `call`, `headers`, `query`, `body` | reading requests |
//! | `document`, `csv`, `job`, `problem`, `codes`, `compression` | writing responses |

mod access;
mod alerts;
mod audit;
mod body;
mod bulk;
mod call;
mod cancel;
mod choices;
mod codes;
#[cfg(any(feature = "dashboard", feature = "telemetry"))]
mod compression;
mod config;
mod csv;
mod document;
mod endpoint;
mod events;
mod explain;
mod failures;
mod from_parts;
mod get;
mod grant;
mod headers;
mod health;
mod job;
mod list;
#[cfg(feature = "dashboard")]
mod login;
mod logs;
mod loopback;
#[cfg(feature = "telemetry")]
mod metrics;
mod monitoring;
mod openapi;
mod ops;
mod owners;
mod problem;
mod query;
mod request;
mod responses;
mod result;
mod retry;
#[cfg(test)]
mod rights_tests;
mod route;
mod routes;
#[cfg(feature = "dashboard")]
mod session;
mod site;
mod submission;
mod submit;
mod types;

#[cfg(feature = "dashboard")]
pub(crate) use self::compression::{accepts_gzip, compressed, gzip};
pub use self::{
    access::Access,
    document::JobDocument,
    endpoint::Endpoint,
    grant::{AccessLevel, Grant},
    owners::Owner,
    problem::Problem,
    responses::Responses,
    submission::Submission,
};
/// What the dashboard needs to read requests, and to know and sign in their callers.
#[cfg(feature = "dashboard")]
pub(crate) use self::{
    call::prefix,
    csv::csv_for_operators,
    grant::Granted,
    headers::is_known,
    login::sign_in,
    session::end as sign_out,
    site::{check as check_site, is_foreign},
};
pub(crate) use self::{
    config::HttpConfig, endpoint::DeclaredEndpoint, openapi::is_own_operation, owners::owner_of, responses::Hooks,
    route::Route, routes::routes,
};
