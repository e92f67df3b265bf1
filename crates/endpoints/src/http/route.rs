//! The list of the library's own routes: paths, methods and who may use them.

use std::borrow::Cow;

use axum::http::Method;

use super::grant::AccessLevel;
use crate::{
    endpoints::{AsyncEndpoints, RouteGroup},
    options::Options,
};

/// The library's own routes: job routes and monitoring routes. The routers, the OpenAPI document, the reserved paths and
/// the tests are made from these lists.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    List,
    Job,
    Result,
    Events,
    Logs,
    Explain,
    Request,
    Cancel,
    Retry,
    OpenApi,
    Metrics,
    JobMetrics,
    Workers,
    Series,
    Types,
    PauseType,
    ResumeType,
    LimitType,
    UnlimitType,
    Failures,
    Audit,
    Bulks,
    Bulk,
    PreviewBulk,
    StartBulk,
    StopBulk,
    Alerts,
    Silence,
    EndSilence,
    TestAlerts,
    Health,
    Ready,
    Live,
}

/// Who may use a route.
#[derive(Copy, Clone)]
pub(super) enum Audience {
    Callers,
    /// Operators, and under an owner rule the owners of jobs.
    Owners,
    Operators,
}

impl Route {
    pub(crate) const JOBS: [Self; 10] = [
        Self::List,
        Self::Job,
        Self::Result,
        Self::Events,
        Self::Logs,
        Self::Explain,
        Self::Request,
        Self::Cancel,
        Self::Retry,
        Self::OpenApi,
    ];

    pub(crate) const MONITORING: [Self; 23] = [
        Self::Metrics,
        Self::JobMetrics,
        Self::Workers,
        Self::Series,
        Self::Types,
        Self::PauseType,
        Self::ResumeType,
        Self::LimitType,
        Self::UnlimitType,
        Self::Failures,
        Self::Audit,
        Self::Bulks,
        Self::Bulk,
        Self::PreviewBulk,
        Self::StartBulk,
        Self::StopBulk,
        Self::Alerts,
        Self::Silence,
        Self::EndSilence,
        Self::TestAlerts,
        Self::Health,
        Self::Ready,
        Self::Live,
    ];

    /// The path of the job list, unless the application chooses another one.
    pub(crate) const JOBS_PATH: &'static str = "/jobs";

    /// The path, with the application's own path of the job list.
    pub(crate) fn path_below(self, jobs_path: &str) -> Cow<'static, str> {
        match self.path().strip_prefix(Self::JOBS_PATH) {
            Some(rest) if jobs_path != Self::JOBS_PATH => format!("{jobs_path}{rest}").into(),
            _ => self.path().into(),
        }
    }

    /// The paths of each group that no route has: below those of a job, and all others below `/ops` and `/alerts`. Below
    /// `/health` and `/metrics`, applications have routes of their own.
    pub(crate) fn unknown_paths(group: RouteGroup, jobs_path: &str, has_alerts: bool) -> Vec<String> {
        let (ops, alerts) = (["/ops", "/ops/", "/ops/{*rest}"], has_alerts.then_some("/alerts/{*rest}"));
        match group {
            RouteGroup::Submit => Vec::new(),
            RouteGroup::Jobs => vec![format!("{jobs_path}/{{id}}/{{*rest}}")],
            RouteGroup::Monitoring => ops.into_iter().chain(alerts).map(str::to_owned).collect(),
        }
    }

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::List => Self::JOBS_PATH,
            Self::Job => "/jobs/{id}",
            Self::Result => "/jobs/{id}/result",
            Self::Events => "/jobs/{id}/events",
            Self::Logs => "/jobs/{id}/logs",
            Self::Explain => "/jobs/{id}/explain",
            Self::Request => "/jobs/{id}/request",
            Self::Cancel => "/jobs/{id}/cancel",
            Self::Retry => "/jobs/{id}/retry",
            Self::OpenApi => "/openapi.json",
            Self::Metrics => "/metrics",
            Self::JobMetrics => "/metrics/jobs",
            Self::Workers => "/ops/workers",
            Self::Series => "/ops/series",
            Self::Types => "/ops/types",
            Self::PauseType => "/ops/types/{name}/pause",
            Self::ResumeType => "/ops/types/{name}/resume",
            Self::LimitType | Self::UnlimitType => "/ops/types/{name}/limit",
            Self::Failures => "/ops/failures",
            Self::Audit => "/ops/audit",
            Self::Bulks | Self::StartBulk => "/ops/bulk",
            Self::PreviewBulk => "/ops/bulk/preview",
            Self::Bulk | Self::StopBulk => "/ops/bulk/{id}",
            Self::Alerts => "/alerts",
            Self::Silence => "/alerts/silences",
            Self::EndSilence => "/alerts/silences/{id}",
            Self::TestAlerts => "/alerts/test",
            Self::Health => "/health",
            Self::Ready => "/health/ready",
            Self::Live => "/health/live",
        }
    }

    pub(crate) fn method(self) -> Method {
        match self {
            Self::Cancel | Self::Retry | Self::Silence | Self::TestAlerts => Method::POST,
            Self::PreviewBulk | Self::StartBulk => Method::POST,
            Self::PauseType | Self::ResumeType => Method::POST,
            Self::LimitType => Method::PUT,
            Self::EndSilence | Self::StopBulk | Self::UnlimitType => Method::DELETE,
            _ => Method::GET,
        }
    }

    /// The level that operators need: reads need `view`, changes need `operate`.
    pub(super) fn level(self) -> AccessLevel {
        if self.method().is_safe() { AccessLevel::View } else { AccessLevel::Operate }
    }

    /// The name of the operator's action in the audit trail; none for a read.
    pub(super) const fn action(self) -> Option<&'static str> {
        match self {
            Self::Cancel => Some("job.cancel"),
            Self::Retry => Some("job.retry"),
            Self::PauseType => Some("type.pause"),
            Self::ResumeType => Some("type.resume"),
            Self::LimitType => Some("type.limit"),
            Self::UnlimitType => Some("type.unlimit"),
            Self::Silence => Some("silence.create"),
            Self::EndSilence => Some("silence.delete"),
            Self::TestAlerts => Some("alerts.test"),
            Self::PreviewBulk => Some("bulk.preview"),
            Self::StartBulk => Some("bulk.start"),
            Self::StopBulk => Some("bulk.stop"),
            _ => None,
        }
    }

    /// The field of the body that names what the action acts on, for a path without a parameter.
    pub(super) const fn target_field(self) -> Option<&'static str> {
        match self {
            Self::Silence => Some("rule"),
            Self::StartBulk => Some("preview"),
            _ => None,
        }
    }

    /// Whether the route fails at a query. Routes with parameters check them as they read them. Routes of callers ignore what
    /// they do not know, because rules of the application may read it.
    pub(super) fn refuses_queries(self, options: &Options) -> bool {
        let has_parameters = matches!(self, Self::List | Self::Series | Self::Failures);
        !has_parameters && !matches!(self.audience(options), Audience::Callers)
    }

    /// Whether the route exists. Without telemetry, or with the application's own meter provider, there is nothing to scrape.
    pub(super) fn exists(self, endpoints: &AsyncEndpoints) -> bool {
        match self {
            Self::Metrics => endpoints.is_scraped(),
            Self::Alerts | Self::Silence | Self::EndSilence | Self::TestAlerts => endpoints.has_alerts(),
            _ => true,
        }
    }

    pub(super) const fn audience(self, options: &Options) -> Audience {
        match self {
            Self::Job | Self::Result | Self::Events | Self::Explain | Self::Cancel | Self::OpenApi => Audience::Callers,
            Self::Logs if options.expose_logs => Audience::Callers,
            Self::List | Self::Retry => Audience::Owners,
            Self::Logs | Self::Request | Self::Metrics | Self::JobMetrics => Audience::Operators,
            Self::Workers | Self::Failures | Self::Audit => Audience::Operators,
            Self::Series | Self::Types | Self::PauseType | Self::ResumeType => Audience::Operators,
            Self::LimitType | Self::UnlimitType => Audience::Operators,
            Self::Alerts | Self::Silence | Self::EndSilence | Self::TestAlerts => Audience::Operators,
            Self::Bulks | Self::Bulk | Self::PreviewBulk | Self::StartBulk | Self::StopBulk => Audience::Operators,
            // They show the checks to operators alone.
            Self::Health | Self::Ready | Self::Live => Audience::Callers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_an_action_and_needs_operate() {
        for route in Route::JOBS.into_iter().chain(Route::MONITORING) {
            let is_change = !route.method().is_safe();
            assert_eq!(route.action().is_some(), is_change, "{route:?}");
            assert_eq!(route.level() == AccessLevel::Operate, is_change, "{route:?}");
        }
    }
}
