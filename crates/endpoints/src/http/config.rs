//! What an application configures for all routes.

use std::sync::{Arc, atomic::AtomicBool};

use super::{
    access::{Access, OwnerRule},
    endpoint::DeclaredEndpoint,
    responses::{Responses, Unchanged},
};

/// Configuration of the HTTP layer, collected by the builder.
pub(crate) struct HttpConfig {
    pub(crate) endpoints: Vec<Arc<DeclaredEndpoint>>,
    pub(crate) access: Access,
    pub(crate) owner: Option<OwnerRule>,
    pub(crate) responses: Box<dyn Responses>,
    /// [`Options::base_path`](crate::Options::base_path).
    pub(crate) base_path: Option<String>,
    /// Set when the submit routes are made. `/openapi.json` lists the declared endpoints only then.
    pub(crate) has_submit_routes: AtomicBool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            access: Access::closed(),
            owner: None,
            responses: Box::new(Unchanged),
            base_path: None,
            has_submit_routes: AtomicBool::new(false),
        }
    }
}
