//! What a page returns.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use axum::http::StatusCode;
use maud::{Markup, html};

use crate::{JobId, JobStatus, JobView, ListError, StoreError, audit::OK};

/// A page without its frame.
pub(super) struct Content {
    pub(super) title: String,
    /// The entry of the navigation that the page belongs to.
    pub(super) section: Section,
    pub(super) regions: Vec<Region>,
    pub(super) refresh: Refresh,
}

/// When the live stream renders a page again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Refresh {
    /// What changes the page, at most four times a second.
    pub(super) watch: Watch,
    /// The longest time between two renders.
    pub(super) every: Duration,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Nothing,
    /// Any job, after this number of changes.
    Jobs(u64),
    /// A job that has another version than this one.
    Job(JobId, u64),
}

impl Refresh {
    /// With the statistics, which are read every five seconds.
    pub(super) const STATISTICS: Self = Self { watch: Watch::Nothing, every: Duration::from_secs(5) };

    /// With each change of any job after this number of changes.
    pub(super) const fn of_jobs(changes: u64) -> Self {
        Self { watch: Watch::Jobs(changes), every: Duration::from_secs(5) }
    }

    /// With each change of this job, and once a second while it runs: a log line does not change the job.
    pub(super) fn of_job(job: &JobView) -> Self {
        let every = if job.status == JobStatus::InProgress { 1 } else { 5 };
        Self { watch: Watch::Job(job.id, job.version), every: Duration::from_secs(every) }
    }
}

/// A part of a page with an id. The live stream sends a region when its HTML has changed, so the HTML must not contain the
/// present time.
pub(super) struct Region {
    /// Unique on the page, and the same each time that the page is rendered.
    pub(super) id: &'static str,
    pub(super) html: Markup,
    /// Fixed regions are not sent again. For forms.
    pub(super) is_live: bool,
}

impl Region {
    pub(super) const fn new(id: &'static str, html: Markup) -> Self {
        Self { id, html, is_live: true }
    }

    pub(super) const fn fixed(id: &'static str, html: Markup) -> Self {
        Self { id, html, is_live: false }
    }

    pub(super) fn render(&self) -> Markup {
        html! { div.region id=(self.id) data-live[self.is_live] { (self.html) } }
    }

    pub(super) fn hash(&self) -> u64 {
        hash(&self.html.0)
    }
}

impl Content {
    /// Identifies what the live regions show.
    pub(super) fn tag(&self) -> String {
        let hashes: Vec<u64> = self.live().map(Region::hash).collect();
        format!("{:016x}", hash(&hashes))
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(|region| region.is_live)
    }
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An entry of the navigation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Jobs,
    Types,
    Workers,
    Failures,
    Health,
    Operations,
}

impl Section {
    pub(super) const ALL: [Self; 7] =
        [Self::Overview, Self::Jobs, Self::Types, Self::Workers, Self::Failures, Self::Health, Self::Operations];

    /// The path below `/dashboard`, and the text of the link.
    pub(super) const fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Overview => ("", "Overview"),
            Self::Jobs => ("/jobs", "Jobs"),
            Self::Types => ("/types", "Types"),
            Self::Workers => ("/workers", "Workers"),
            Self::Failures => ("/failures", "Failures"),
            Self::Health => ("/health", "Health and alerts"),
            Self::Operations => ("/operations", "Operations"),
        }
    }
}

/// Why a page cannot be shown, or an action not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("There is no such page.")]
    NoPage,
    #[error("There is no job with this id. Ended jobs are deleted after their retention.")]
    NoJob,
    /// A text, and the code of the problem that the operator route answers with.
    #[error("{0}")]
    NotFound(&'static str, &'static str),
    #[error("{0}")]
    Invalid(String),
    /// The page is at another path below `/dashboard`.
    #[error("The page is at {0}.")]
    Moved(String),
    #[error("The dashboard has pages and forms. Use GET, HEAD or POST.")]
    Method,
    #[error("The action was sent by another site.")]
    CrossSite,
    #[error("You have the level view. Actions need the level operate.")]
    ViewOnly,
    #[error("The dashboard is closed to you.")]
    NoAccess,
    /// The caller has no session, or sent a wrong token. After the login, the browser opens the path `back`.
    #[error("Sign in with a token of this service.")]
    SignIn { why: Option<&'static str>, back: String },
    /// A link of another site: the browser sends the session when this page loads itself again.
    #[error("The page loads again.")]
    Again,
    #[error("The job store did not answer: {0}")]
    Store(#[from] StoreError),
    #[error("The page failed. The log of this process has the reason.")]
    Panic,
}

impl Failure {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::NoPage | Self::NoJob | Self::NotFound(..) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Moved(_) => StatusCode::SEE_OTHER,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::CrossSite | Self::ViewOnly | Self::NoAccess => StatusCode::FORBIDDEN,
            Self::SignIn { .. } => StatusCode::UNAUTHORIZED,
            Self::Again => StatusCode::OK,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The outcome of a failed action in the audit trail: the code of the problem that the operator route answers with.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::NoPage => "NOT_FOUND",
            Self::NoJob => "JOB_NOT_FOUND",
            Self::NotFound(_, code) => code,
            Self::Invalid(_) | Self::Moved(_) => "INVALID_REQUEST",
            Self::Method => "METHOD_NOT_ALLOWED",
            Self::CrossSite => "CROSS_SITE_REQUEST",
            Self::ViewOnly | Self::NoAccess => "FORBIDDEN",
            Self::SignIn { .. } | Self::Again => "UNAUTHORIZED",
            Self::Store(_) => "STORE_UNAVAILABLE",
            Self::Panic => "INTERNAL_ERROR",
        }
    }

    pub(super) const fn title(&self) -> &'static str {
        match self {
            Self::NoPage | Self::NoJob | Self::NotFound(..) => "Not found",
            Self::Invalid(_) => "Invalid request",
            Self::Moved(_) => "Moved",
            Self::Method => "Method not allowed",
            Self::CrossSite | Self::ViewOnly | Self::NoAccess => "Refused",
            Self::SignIn { .. } => "Sign in",
            Self::Again => "Loading",
            Self::Store(_) => "The job store is not available",
            Self::Panic => "Internal error",
        }
    }
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Store(error) => Self::Store(error),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// What an action did.
pub(super) struct Done {
    pub(super) answer: Answer,
    /// The outcome of the action in the audit trail.
    pub(super) outcome: &'static str,
    /// The id of what the action made, for the audit trail.
    pub(super) made: Option<String>,
}

/// What the browser shows after an action.
pub(super) enum Answer {
    /// The page at a path below `/dashboard`. A reload repeats no action.
    Open {
        path: String,
        /// Cookies to set.
        cookies: Vec<String>,
    },
    /// A result that is not kept.
    Show(StatusCode, Content),
}

impl Done {
    pub(super) fn open(path: impl Into<String>) -> Self {
        Self { answer: Answer::Open { path: path.into(), cookies: Vec::new() }, outcome: OK, made: None }
    }

    /// Opens a path below `/dashboard` with new cookies.
    pub(super) const fn with_cookies(path: String, cookies: Vec<String>) -> Self {
        Self { answer: Answer::Open { path, cookies }, outcome: OK, made: None }
    }

    pub(super) const fn show(content: Content) -> Self {
        Self { answer: Answer::Show(StatusCode::OK, content), outcome: OK, made: None }
    }

    /// Shows a form with invalid values, to correct them.
    pub(super) const fn refused(failure: &Failure, content: Content) -> Self {
        Self { answer: Answer::Show(failure.status(), content), outcome: failure.code(), made: None }
    }

    /// Names what the action made.
    pub(super) fn made(self, id: &impl ToString) -> Self {
        Self { made: Some(id.to_string()), ..self }
    }

    /// Says that the action had no effect, with the code of the problem that the operator route answers with.
    pub(super) fn without_effect(self, code: &'static str) -> Self {
        Self { outcome: code, ..self }
    }
}
