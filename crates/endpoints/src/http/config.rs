//! What an application configures for all routes.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::AtomicBool},
};

use axum::response::Response;

use super::{access::Access, endpoint::DeclaredEndpoint, owners::OwnerRule, responses::Hooks, route::Route};
use crate::health::HealthReport;

/// Writes the response of the health routes.
pub(crate) type HealthResponse = Box<dyn Fn(&HealthReport) -> Response + Send + Sync>;

/// Configuration of the HTTP layer, collected by the builder.
pub(crate) struct HttpConfig {
    pub(crate) endpoints: Vec<Arc<DeclaredEndpoint>>,
    pub(crate) access: Access,
    pub(crate) owner: Option<OwnerRule>,
    pub(crate) responses: Hooks,
    /// Defaults to JSON.
    pub(crate) health_response: Option<HealthResponse>,
    /// The path of the job list, in place of `/jobs`.
    pub(crate) jobs_path: Cow<'static, str>,
    /// [`Options::base_path`](crate::Options::base_path).
    pub(crate) base_path: Option<String>,
    /// Set when the submit routes are made. `/openapi.json` lists the declared endpoints only then.
    pub(crate) has_submit_routes: AtomicBool,
    /// Set when the monitoring routes are made. `/openapi.json` lists them only then.
    pub(crate) has_monitoring_routes: AtomicBool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            access: Access::closed(),
            owner: None,
            responses: Hooks::default(),
            health_response: None,
            jobs_path: Cow::Borrowed(Route::JOBS_PATH),
            base_path: None,
            has_submit_routes: AtomicBool::new(false),
            has_monitoring_routes: AtomicBool::new(false),
        }
    }
}
