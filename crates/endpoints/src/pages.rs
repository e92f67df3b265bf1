//! Tests the examples of the README and the pages.

#[doc = include_str!("../../../README.md")]
struct Readme;

#[doc = include_str!("../../../docs/alerts.md")]
struct Alerts;

#[doc = include_str!("../../../docs/coming-from-dotnet.md")]
struct ComingFromDotnet;

#[doc = include_str!("../../../docs/configuration.md")]
struct Configuration;

#[doc = include_str!("../../../docs/dashboard.md")]
struct Dashboard;

#[doc = include_str!("../../../docs/for-assistants.md")]
struct ForAssistants;

#[doc = include_str!("../../../docs/health.md")]
struct Health;

#[doc = include_str!("../../../docs/http.md")]
struct Http;

#[doc = include_str!("../../../docs/logging.md")]
struct Logging;

#[doc = include_str!("../../../docs/metrics.md")]
struct Metrics;

#[doc = include_str!("../../../docs/operate.md")]
struct Operate;

#[doc = include_str!("../../../docs/tracing.md")]
struct Tracing;

#[doc = include_str!("../../../docs/tutorial.md")]
struct Tutorial;

#[doc = include_str!("../../../docs/guides/authentication.md")]
struct AuthenticationGuide;

#[doc = include_str!("../../../docs/guides/endpoints.md")]
struct EndpointsGuide;

#[doc = include_str!("../../../docs/guides/errors.md")]
struct ErrorsGuide;

#[doc = include_str!("../../../docs/guides/from-code.md")]
struct FromCodeGuide;

#[doc = include_str!("../../../docs/guides/handlers.md")]
struct HandlersGuide;

#[doc = include_str!("../../../docs/guides/idempotency.md")]
struct IdempotencyGuide;

#[doc = include_str!("../../../docs/guides/long-jobs.md")]
struct LongJobsGuide;

#[doc = include_str!("../../../docs/guides/processes.md")]
struct ProcessesGuide;

#[doc = include_str!("../../../docs/guides/shutdown.md")]
struct ShutdownGuide;

#[doc = include_str!("../../../docs/guides/testing.md")]
struct TestingGuide;

#[doc = include_str!("../../../docs/guides/upgrading.md")]
struct UpgradingGuide;
