//! Checks of what an application declares.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use async_endpoints_core::JobName;

use super::BuildError;
use crate::{
    endpoints::RouteGroup,
    health::{self, Check},
    http::{self, DeclaredEndpoint, Route},
    job_type::Rules,
    options::{OptionsError, SHORTEST_TIME, is_base_path},
};

/// The groups of the library's own routes, with the methods that return them.
const GROUPS: [(RouteGroup, &str); 2] =
    [(RouteGroup::Jobs, "job_routes()"), (RouteGroup::Monitoring, "monitoring_routes()")];

/// Rejects rules with which no job could run, or be read after its end.
pub(super) fn check_rules(name: &JobName, rules: &Rules) -> Result<(), BuildError> {
    let fail = |rule, value, expected| Err(BuildError::Rule { name: name.clone(), rule, value, expected });
    if rules.concurrency == Some(0) {
        return fail("concurrency", "0".to_owned(), "a number of attempts, 1 or more");
    }
    for (rule, time) in [("timeout", rules.timeout), ("retention", rules.retention)] {
        if let Some(time) = time.filter(|time| *time < SHORTEST_TIME) {
            return fail(rule, format!("{time:?}"), "a time of 1 ms or more");
        }
    }
    Ok(())
}

/// Rejects choices of callers that leave no choice.
pub(super) fn check_choices(endpoints: &[Arc<DeclaredEndpoint>]) -> Result<(), BuildError> {
    for endpoint in endpoints {
        let fail =
            |rule, value, expected| Err(BuildError::Rule { name: JobName::new(endpoint.name)?, rule, value, expected });
        if endpoint.choices.delay.is_some_and(|longest| longest.is_zero()) {
            return fail("allow_delay", "0".to_owned(), "a time above 0 s");
        }
        if let Some(range) = endpoint.choices.priority.as_ref().filter(|range| range.is_empty()) {
            let value = format!("{}..={}", range.start().get(), range.end().get());
            return fail("allow_priority", value, "a range from the lowest to the highest priority");
        }
    }
    Ok(())
}

pub(super) fn check_health_names(checks: &[(String, Check)]) -> Result<(), BuildError> {
    for (i, (name, _)) in checks.iter().enumerate() {
        let fail = |expected| Err(BuildError::HealthCheck { name: name.clone(), expected });
        if JobName::new(name).is_err() || name == health::SHUTDOWN {
            return fail("1–100 characters from A-Z a-z 0-9 . _ -, and not the name shutdown");
        }
        if checks[..i].iter().any(|(other, _)| other == name) {
            return fail("another name: there are two checks of this one");
        }
    }
    Ok(())
}

/// Operations of the OpenAPI document have unique names.
pub(super) fn check_operations(endpoints: &[Arc<DeclaredEndpoint>]) -> Result<(), BuildError> {
    let mut known = HashSet::new();
    for id in endpoints.iter().filter_map(|endpoint| endpoint.doc.operation_id.as_deref()) {
        if !known.insert(id) || http::is_own_operation(id) {
            return Err(BuildError::TwoOperations(id.to_owned()));
        }
    }
    Ok(())
}

/// The OpenAPI document refers to types by name, so each name must have one schema.
pub(super) fn check_schemas(endpoints: &[Arc<DeclaredEndpoint>]) -> Result<(), BuildError> {
    let mut known = HashMap::new();
    for (name, schema) in endpoints.iter().flat_map(|endpoint| &endpoint.schemas).flat_map(|schemas| &schemas.named) {
        if *known.entry(name).or_insert(schema) != schema {
            return Err(BuildError::TwoSchemas(name.clone()));
        }
    }
    Ok(())
}

/// Checks paths with axum's own matcher first, since axum panics at invalid paths.
pub(super) fn check_paths(endpoints: &[Arc<DeclaredEndpoint>], jobs_path: &str) -> Result<(), BuildError> {
    let jobs_fail = |expected: String| {
        let (name, value) = ("jobs_path".to_owned(), jobs_path.to_owned());
        Err(OptionsError { name, value, expected }.into())
    };
    if !is_base_path(jobs_path) || jobs_path.contains(['{', '}']) {
        return jobs_fail("a path such as /api/status, with a leading and without a trailing slash".to_owned());
    }
    let mut routes: matchit::Router<()> = matchit::Router::new();
    let jobs = Route::JOBS.map(|route| route.path_below(jobs_path));
    // Several monitoring routes may have one path.
    let monitoring: BTreeSet<_> = Route::MONITORING.iter().map(|route| route.path_below(jobs_path)).collect();
    let unknown =
        GROUPS.into_iter().flat_map(|(group, _)| Route::unknown_paths(group, jobs_path, true)).map(Cow::Owned);
    for own in jobs.into_iter().chain(monitoring).chain(unknown) {
        if let Err(error) = routes.insert(own.clone(), ()) {
            return jobs_fail(format!("a path beside the library's {own} ({error})"));
        }
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let fail = |other: Option<&Arc<DeclaredEndpoint>>, reason: String| BuildError::Path {
            method: endpoint.method.to_string(),
            path: endpoint.path.to_string(),
            name: endpoint.name.to_owned(),
            other: other.map(|other| format!("{}, {} {}", other.name, other.method, other.path)),
            reason,
        };
        if !endpoint.path.starts_with('/') {
            return Err(fail(None, "expected a path that begins with a slash".to_owned()));
        }
        if endpoint.path.split('/').any(|part| part.starts_with([':', '*'])) {
            return Err(fail(None, "expected {name} for a parameter, or {*name} for the rest of a path".to_owned()));
        }
        let before = &endpoints[..i];
        if let Some(same) = before.iter().find(|e| e.path == endpoint.path && e.method == endpoint.method) {
            return Err(fail(Some(same), "both have the same method and path".to_owned()));
        }
        if before.iter().any(|e| e.path == endpoint.path) {
            continue;
        }
        match routes.insert(endpoint.path.clone(), ()) {
            Ok(()) => {}
            Err(matchit::InsertError::Conflict { with }) => {
                if let Some(reason) = reserved(&with, jobs_path) {
                    return Err(fail(None, reason));
                }
                let other = before.iter().find(|e| e.path == with);
                return Err(fail(other, "a request could match both paths".to_owned()));
            }
            Err(error) => return Err(fail(None, error.to_string())),
        }
    }
    Ok(())
}

/// Why a path of the library is not free; none for other paths.
fn reserved(path: &str, jobs_path: &str) -> Option<String> {
    GROUPS.into_iter().find_map(|(group, method)| {
        let routes = if group == RouteGroup::Jobs { &Route::JOBS[..] } else { &Route::MONITORING[..] };
        let reserves = match routes.iter().find(|route| route.path_below(jobs_path) == path) {
            Some(route) => format!("the path for {} {path}", route.method()),
            None if Route::unknown_paths(group, jobs_path, true).iter().any(|unknown| unknown == path) => {
                format!("all paths of the form {path}")
            }
            None => return None,
        };
        Some(format!("{method} reserves {reserves}, choose another one"))
    })
}
