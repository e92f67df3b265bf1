//! What a health check is: its interface, its result, and the rules it runs under.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};

/// The error of a health check.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Default time limit of a check.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The status of a check, or of several: the worst one counts.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum HealthStatus {
    /// Does not work. The routes answer 503.
    Unhealthy,
    /// Works, and needs an operator's attention. The routes answer 200.
    Degraded,
    /// Works.
    Healthy,
}

impl HealthStatus {
    /// The status as text: `Healthy`, `Degraded` or `Unhealthy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "Unhealthy",
            Self::Degraded => "Degraded",
            Self::Healthy => "Healthy",
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// The status.
    pub status: HealthStatus,
    /// A description for operators.
    pub description: Option<String>,
    /// Facts for operators, by name.
    pub data: Map<String, Value>,
}

impl CheckResult {
    /// A healthy result.
    pub fn healthy() -> Self {
        Self { status: HealthStatus::Healthy, description: None, data: Map::new() }
    }

    /// A degraded result.
    pub fn degraded(description: impl Into<String>) -> Self {
        Self::of(HealthStatus::Degraded, description.into())
    }

    /// An unhealthy result.
    pub fn unhealthy(description: impl Into<String>) -> Self {
        Self::of(HealthStatus::Unhealthy, description.into())
    }

    pub(super) fn of(status: HealthStatus, description: String) -> Self {
        Self { status, description: Some(description), data: Map::new() }
    }

    /// A healthy result, or a degraded one if there are reasons.
    pub(super) fn degraded_by(reasons: &[String]) -> Self {
        if reasons.is_empty() { Self::healthy() } else { Self::degraded(reasons.join("; ")) }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }
}

/// A check of something that the service needs. Implemented for closures that return a future.
///
/// A check of a database and one of another service, with the clients that the application has anyway:
///
/// ```
/// # use std::time::Duration;
/// use async_endpoints::{AsyncEndpoints, MemoryStore, health::{BoxError, Check, CheckResult}};
///
/// # #[derive(Clone)] struct Pool;
/// # impl Pool { async fn execute(&self, _: &str) -> Result<(), std::io::Error> { Ok(()) } }
/// # fn endpoints(pool: Pool, client: reqwest::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let database = move || {
///     let pool = pool.clone();
///     async move { pool.execute("SELECT 1").await.map(|_| CheckResult::healthy()) }
/// };
/// let prices = move || {
///     let request = client.get("http://prices.internal/health");
///     async move { Ok::<_, BoxError>(CheckResult::healthy().with("http_status", request.send().await?.error_for_status()?.status().as_u16())) }
/// };
/// let endpoints = AsyncEndpoints::builder(MemoryStore::new())
///     .health_check("database", Check::new(database).tag("ready"))
///     .health_check("prices", Check::new(prices).timeout(Duration::from_secs(2)))
///     .build()?;
/// # Ok(()) }
/// ```
#[async_trait]
pub trait HealthCheck: Send + Sync + 'static {
    /// Checks once. An error means [`Check::failure_status`].
    ///
    /// The future is dropped when its time is over. It should not block its thread; a check that does is not started again
    /// until it has returned.
    async fn check(&self) -> Result<CheckResult, BoxError>;
}

#[async_trait]
impl<C, F, E> HealthCheck for C
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<CheckResult, E>> + Send,
    E: Into<BoxError>,
{
    async fn check(&self) -> Result<CheckResult, BoxError> {
        self().await.map_err(Into::into)
    }
}

/// A health check with the rules it runs under. See [`Builder::health_check`](crate::Builder::health_check).
#[derive(Clone)]
pub struct Check {
    pub(super) check: Arc<dyn HealthCheck>,
    pub(super) tags: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) failure_status: HealthStatus,
}

impl Check {
    /// A check without tags, with a time limit of 5 s. A failure is Unhealthy.
    pub fn new(check: impl HealthCheck) -> Self {
        let check = Arc::new(check);
        Self { check, tags: Vec::new(), timeout: TIMEOUT, failure_status: HealthStatus::Unhealthy }
    }

    /// Adds a tag. `/health/ready` runs the checks tagged `ready`.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets the time limit, after which the check has failed.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the status of an error, a panic or a timeout.
    #[must_use]
    pub const fn failure_status(mut self, status: HealthStatus) -> Self {
        self.failure_status = status;
        self
    }
}

impl<H: HealthCheck> From<H> for Check {
    fn from(check: H) -> Self {
        Self::new(check)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check: _, tags, timeout, failure_status } = self;
        let mut shown = f.debug_struct("Check");
        shown
            .field("tags", tags)
            .field("timeout", timeout)
            .field("failure_status", failure_status)
            .finish_non_exhaustive()
    }
}
