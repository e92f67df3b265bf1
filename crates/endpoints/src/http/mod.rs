//! The HTTP layer: declared endpoints, routes, requests, responses. Must not know workers or drivers.
//!
//! | file | contents |
//! |---|---|
//! | `endpoint`, `submission`, `choices` | what an application declares: endpoints, their validators and the choices of callers |
//! | `config`, `access`, `responses` | what an application configures for all routes |
//! | `route` | the list of routes |
//! | `routes` | the routers, and what all routes have in common |
//! | `submit` | accepting a job on a declared path |
//! | `from_parts` | accepting a job on a path of the application |
//! | `list`, `get`, `result`, `events`, `logs`, `cancel`, `retry` | the job routes, one each |
//! | `metrics`, `monitoring` | `/metrics`, `/metrics/jobs` |
//! | `health` | `/health`, `/health/ready` and `/health/live` |
//! | `ops` | `/ops/workers` |
//! | `alerts` | `/alerts` and the routes below it |
//! | `openapi` | `/openapi.json` |
//! | `call`, `headers`, `body` | reading requests |
//! | `document`, `job`, `problem`, `codes` | writing responses |

mod access;
mod alerts;
mod body;
mod call;
mod cancel;
mod choices;
mod codes;
mod config;
mod document;
mod endpoint;
mod events;
mod from_parts;
mod get;
mod headers;
mod health;
mod job;
mod list;
mod logs;
#[cfg(feature = "telemetry")]
mod metrics;
mod monitoring;
mod openapi;
mod ops;
mod problem;
mod responses;
mod result;
mod retry;
mod route;
mod routes;
mod submission;
mod submit;

pub(crate) use self::{
    access::owner_of, config::HttpConfig, endpoint::DeclaredEndpoint, openapi::is_own_operation, responses::Hooks,
    route::Route, routes::routes,
};
pub use self::{
    access::{Access, Owner},
    document::JobDocument,
    endpoint::Endpoint,
    problem::Problem,
    responses::Responses,
    submission::Submission,
};
