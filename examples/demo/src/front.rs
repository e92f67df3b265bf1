//! The front door: what the demo prints at its start, and its page at `/`.

use std::fmt::Write;

use async_endpoints::{
    JobId,
    axum::{
        Router,
        http::{HeaderMap, HeaderName, HeaderValue, header},
        response::{Html, IntoResponse, Response},
        routing::get,
    },
};

use crate::settings::Settings;

const PAGE: &str = include_str!("front.html");

/// Path and description of each linked route.
const LINKS: [(&str, &str); 9] = [
    ("/dashboard", "pages for operators: jobs, job types, live"),
    ("/openapi.json", "the OpenAPI document of all routes"),
    ("/jobs", "the jobs, newest first"),
    ("/health", "health checks; also /health/live and /health/ready"),
    ("/metrics", "metrics for Prometheus"),
    ("/metrics/jobs", "counts, rates and percentiles of jobs as JSON"),
    ("/alerts", "alert rules and their states"),
    ("/ops/workers", "the live workers of all processes"),
    ("/ops/types", "the job types, with their counts, pauses and limits"),
];

/// What the front door depends on.
#[derive(Copy, Clone)]
pub(crate) struct Front {
    /// Whether this process accepts jobs.
    accepts: bool,
    /// Whether operators need a token.
    has_token: bool,
}

/// A command to try, and what it does.
type Command = (&'static str, String);

impl Front {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { accepts: settings.role.accepts(), has_token: settings.admin_token.is_some() }
    }

    /// The lines of the start. The first is the one that programs read.
    pub(crate) fn greeting(self, url: &str) -> String {
        let mut text = format!("listening on {url}\n");
        if self.accepts {
            text.push_str("\nIn another terminal:\n");
            for (what, command) in commands(url) {
                let _infallible = write!(text, "\n# {what}\n{command}\n");
            }
        }
        let _infallible = write!(
            text,
            "\nOpen {url}/dashboard for the jobs, and {url}/ for the API, health, metrics and alerts. Ctrl-C stops.\n"
        );
        text
    }

    /// The page at `/`.
    pub(crate) fn routes(self) -> Router {
        Router::new().route("/", get(async move |headers: HeaderMap| self.page(&headers)))
    }

    fn page(self, headers: &HeaderMap) -> Response {
        let security: [(HeaderName, HeaderValue); 3] = [
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
            ),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (security, Html(self.html(&host(headers)))).into_response()
    }

    fn html(self, host: &str) -> String {
        let mut links = String::new();
        for (path, what) in LINKS {
            let _infallible = writeln!(links, "    <li><a href=\"{path}\">{path}</a> <span>{what}</span></li>");
        }
        let access = match self.has_token {
            true => "All but the API document and the health status need the token in <code>AE_ADMIN_TOKEN</code>.",
            false => {
                "All of these answer requests from this machine only, except the API document and the health status."
            }
        };
        let attempts = if self.accepts { attempts(&format!("http://{host}")) } else { String::new() };
        PAGE.replace("{{TRY}}", &attempts).replace("{{LINKS}}", &links).replace("{{ACCESS}}", access)
    }
}

/// The commands as HTML.
fn attempts(url: &str) -> String {
    let mut html = "  <h2>Try it</h2>\n".to_owned();
    for (what, command) in commands(url) {
        let command = escaped(&command);
        let _infallible = writeln!(
            html,
            "  <figure><figcaption>{what}</figcaption><pre tabindex=\"0\"><code>{command}</code></pre></figure>"
        );
    }
    html
}

/// Three commands that work as they are. The second chooses the job's id, so that the third can name it.
fn commands(url: &str) -> [Command; 3] {
    let id = JobId::random();
    let json = "-H 'content-type: application/json'";
    [
        (
            "process the days with rain, and wait for the result",
            format!("curl -s {url}/api/process-data {json} -H 'prefer: wait=10' -d '{{\"category\": \"rain\"}}'"),
        ),
        (
            "start a job of 20 seconds, answered at once",
            format!("curl -s {url}/api/sleep {json} -H 'x-async-request-id: {id}' -d '{{\"seconds\": 20}}'"),
        ),
        ("follow that job to its end", format!("curl -sN {url}/jobs/{id}/events")),
    ]
}

/// The address that the browser used.
fn host(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if is_host { host.to_owned() } else { "localhost:8080".to_owned() }
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Front = Front { accepts: true, has_token: false };

    #[test]
    fn greeting_begins_with_the_address() {
        let greeting = ALL.greeting("http://127.0.0.1:8080");
        assert!(greeting.starts_with("listening on http://127.0.0.1:8080\n"), "{greeting}");
        assert_eq!(greeting.lines().filter(|line| line.starts_with("curl ")).count(), 3);
        let worker = Front { accepts: false, has_token: false }.greeting("http://127.0.0.1:8080");
        assert!(!worker.contains("curl") && worker.contains("Open http://127.0.0.1:8080/dashboard "), "{worker}");
    }

    #[test]
    fn page_shows_no_foreign_host() {
        for (sent, shown) in
            [("demo.local:81", "demo.local:81"), ("a\"><script>", "localhost:8080"), ("", "localhost:8080")]
        {
            let headers = HeaderMap::from_iter([(header::HOST, sent.parse().expect("a value"))]);
            assert!(ALL.html(&host(&headers)).contains(&format!("curl -s http://{shown}/api/process-data ")));
        }
    }

    #[test]
    fn page_has_no_placeholder_left() {
        for front in [ALL, Front { accepts: false, has_token: true }] {
            let html = front.html("localhost");
            assert!(!html.contains("{{"), "{html}");
            assert_eq!(html.contains("Try it"), front.accepts);
        }
    }
}
