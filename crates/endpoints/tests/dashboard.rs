//! The pages of the dashboard over HTTP.
#![cfg(feature = "dashboard")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use async_endpoints::{
    Access, AccessLevel, AsyncEndpoints, Builder, DashboardOptions, Endpoint, InstanceColor, JobContext, JobError,
    JobId, JobType, Options, axum::Router,
};
use reqwest::{Client, Response, StatusCode, header, redirect::Policy};
use serde_json::json;
use support::{Service, builder, ended, flaky_store, quick, store};

const ECHO: JobType<String, String> = JobType::new("Echo");
const REFUSE: JobType<String, ()> = JobType::new("Refuse").max_retries(0);
const LATER: JobType<(), ()> = JobType::new("Later");

/// Texts that would become markup without escaping.
const CORPUS: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "</textarea><svg/onload=alert(1)>",
    "{{constructor.constructor('alert(1)')()}}",
    "</title><style>*{display:none}</style>",
];

async fn echo(ctx: JobContext<String>) -> Result<String, JobError> {
    ctx.progress().message(ctx.request().clone());
    Ok(ctx.request().clone())
}

async fn refuse(ctx: JobContext<String>) -> Result<(), JobError> {
    Err(JobError::permanent("REFUSED", ctx.request().clone()))
}

fn declare(builder: Builder) -> Builder {
    builder
        .endpoint(Endpoint::post("/echo", ECHO))
        .endpoint(Endpoint::post("/refuse", REFUSE))
        .handler(ECHO, echo)
        .handler(REFUSE, refuse)
        .handled_elsewhere(LATER)
}

async fn start() -> Service {
    start_with(declare).await
}

async fn start_with(build: impl FnOnce(Builder) -> Builder) -> Service {
    let store = store();
    let endpoints = build(builder(&store)).build().unwrap();
    serve(store, endpoints, "").await
}

async fn serve(store: support::TestStore, endpoints: AsyncEndpoints, prefix: &str) -> Service {
    let own = support::routes(&endpoints).merge(endpoints.monitoring_routes()).merge(endpoints.dashboard_routes());
    let app = if prefix.is_empty() { own } else { Router::new().nest(prefix, own) };
    Service::serve_app(store, endpoints, app).await
}

fn without_redirects() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

async fn page(service: &Service, path: &str) -> String {
    let response = get(service, path).await;
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    text
}

async fn get(service: &Service, path: &str) -> Response {
    service.client.get(service.url(path)).send().await.unwrap()
}

async fn post(service: &Service, path: &str, form: &str) -> Response {
    let request = without_redirects().post(service.url(path)).body(form.to_owned());
    request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap()
}

/// A failed job, whose page has most parts.
async fn failed(service: &Service) -> JobId {
    let id = service.submit("/refuse", json!("no paper")).await;
    ended(&service.endpoints, id).await;
    id
}

/// The values of an attribute.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    html.split(&start).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// Every page, with jobs in several states.
async fn pages(service: &Service) -> Vec<String> {
    let id = failed(service).await;
    let done = service.submit("/echo", json!("done")).await;
    ended(&service.endpoints, done).await;
    let waiting = service.endpoints.submit(LATER, ()).await.unwrap().job.id;
    let jobs = [id, done, waiting].map(|id| format!("/dashboard/jobs/{id}"));
    let fixed = [
        "/dashboard",
        "/dashboard/jobs",
        "/dashboard/jobs?status=Failed&name=Refuse",
        "/dashboard/types",
        "/dashboard/types/Refuse",
        "/dashboard/workers",
        "/dashboard/failures",
        "/dashboard/health",
        "/dashboard/operations",
    ];
    fixed.into_iter().map(str::to_owned).chain(jobs).collect()
}

#[tokio::test]
async fn pages_have_security_headers_and_nothing_inline() {
    let service = start().await;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                  form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    for path in pages(&service).await.iter().map(String::as_str).chain(["/dashboard/none", "/dashboard/assets/x"]) {
        let response = get(&service, path).await;
        for (name, expected) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(
                response.headers().get(name).map(|value| value.as_bytes()),
                Some(expected.as_bytes()),
                "{path}: {name}"
            );
        }
        let html = response.text().await.unwrap();
        assert!(!html.contains("<style") && attributes(&html, "style").is_empty(), "{path}");
        assert!(html.matches("<script").count() <= 1 && !html.contains("javascript:"), "{path}");
        assert!(
            !html.split(" on").skip(1).any(|rest| rest.split('=').next().is_some_and(|name| name.len() < 12
                && name.chars().all(char::is_alphabetic)
                && rest[name.len()..].starts_with("=\""))),
            "{path}"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn links_resolve_below_any_prefix() {
    for prefix in ["", "/v1/internal"] {
        let store = store();
        let endpoints = declare(builder(&store)).build().unwrap();
        let service = serve(store, endpoints, prefix).await;
        let id = support::found(&service.endpoints, service.endpoints.submit(ECHO, "a".into()).await.unwrap().job.id)
            .await
            .id;
        ended(&service.endpoints, id).await;
        let mut seen = BTreeSet::new();
        let mut open = vec![service.url(&format!("{prefix}/dashboard"))];
        while let Some(url) = open.pop().filter(|_| seen.len() < 60) {
            if !seen.insert(url.clone()) {
                continue;
            }
            let response = service.client.get(&url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{url}");
            let is_page = response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html");
            let (base, text) = (response.url().clone(), response.text().await.unwrap());
            if is_page {
                for name in ["href", "src"] {
                    let links = attributes(&text, name).into_iter().filter(|link| !link.starts_with('#'));
                    open.extend(links.map(|link| base.join(&link.replace("&amp;", "&")).unwrap().to_string()));
                }
            }
        }
        assert!(seen.iter().any(|url| url.ends_with(&format!("{prefix}/dashboard/jobs/{id}"))), "{seen:?}");
        assert!(seen.iter().any(|url| url.ends_with(".css")) && seen.iter().any(|url| url.ends_with(".js")));
        service.stop().await;
    }
}

#[tokio::test]
async fn text_of_jobs_is_escaped() {
    let service = start().await;
    for text in CORPUS {
        // Attributes are in double quotes, so a text without these and without brackets is harmless as it is.
        let is_harmless = !text.contains(['<', '"']);
        let check = |html: &str, path: &str| assert!(is_harmless || !html.contains(text), "{path}: {text}");
        let id = service.submit("/refuse", json!(text)).await;
        ended(&service.endpoints, id).await;
        for path in [format!("/dashboard/jobs/{id}"), "/dashboard/jobs".to_owned()] {
            let html = page(&service, &path).await;
            check(&html, &path);
            assert!(
                html.contains(
                    &text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
                ),
                "{path}: {text}"
            );
        }
        let query: String = encoded(text);
        for path in [
            format!("/dashboard/jobs?name={query}"),
            format!("/dashboard/jobs?q={query}"),
            format!("/dashboard/jobs/{query}"),
        ] {
            let html = get(&service, &path).await.text().await.unwrap();
            check(&html, &path);
        }
    }
    service.stop().await;
}

/// Percent-encodes everything but letters and digits.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[tokio::test]
async fn closed_dashboard_refuses_all_routes() {
    let service = start_with(|builder| declare(builder).access(Access::closed())).await;
    let id = service.submit("/echo", json!("a")).await;
    ended(&service.endpoints, id).await;
    for path in ["/dashboard", "/dashboard/jobs", &format!("/dashboard/jobs/{id}"), "/dashboard/live?at=/jobs"] {
        let response = get(&service, path).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(!response.text().await.unwrap().contains("Echo"), "{path}");
    }
    for path in ["/preferences", &format!("/jobs/{id}/cancel"), &format!("/jobs/{id}/retry"), "/none"] {
        let response = post(&service, &format!("/dashboard{path}"), "theme=dark").await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn token_begins_a_session_with_its_level() {
    let tokens = [("write", AccessLevel::Operate), ("read", AccessLevel::View)];
    let service = start_with(|builder| declare(builder).access(Access::tokens(tokens))).await;
    let id = service.endpoints.submit(LATER, ()).await.unwrap().job.id;
    let page = format!("/dashboard/jobs/{id}");
    let response = get(&service, &page).await;
    assert_eq!(
        (response.status(), &response.headers()[header::WWW_AUTHENTICATE]),
        (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
    );
    let html = response.text().await.unwrap();
    assert!(
        html.contains("type=\"password\"")
            && html.contains(&format!("value=\"/jobs/{id}\""))
            && !html.contains("Later"),
        "{html}"
    );
    let response = post(&service, "/dashboard/login", "token=wrong").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.text().await.unwrap().contains("The token is wrong."));
    for (token, canceled) in [("read", StatusCode::FORBIDDEN), ("write", StatusCode::SEE_OTHER)] {
        let response = post(&service, "/dashboard/login", &format!("token={token}&back=/jobs/{id}")).await;
        assert_eq!(
            (response.status(), &response.headers()[header::LOCATION]),
            (StatusCode::SEE_OTHER, &format!("../dashboard/jobs/{id}").parse().unwrap())
        );
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let with_session = |request: reqwest::RequestBuilder| request.header("cookie", cookie.clone());
        let html = with_session(service.client.get(service.url(&page))).send().await.unwrap().text().await.unwrap();
        assert!(html.contains("Sign out"), "{html}");
        assert_eq!(html.contains("Cancel the job"), token == "write", "{html}");
        let cancel = without_redirects().post(service.url(&format!("{page}/cancel")));
        assert_eq!(with_session(cancel).send().await.unwrap().status(), StatusCode::FORBIDDEN, "no origin");
        let cancel = without_redirects().post(service.url(&format!("{page}/cancel")));
        let cancel = with_session(cancel).header("sec-fetch-site", "same-origin");
        assert_eq!(cancel.send().await.unwrap().status(), canceled, "{token}");
    }
    let response = post(&service, &format!("/dashboard/jobs/{id}/cancel"), "").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let html = response.text().await.unwrap();
    let back = format!("name=\"back\" value=\"/jobs/{id}\"");
    assert!(html.contains("The action was not done.") && html.contains(&back), "{html}");
    let response = post(&service, "/dashboard/logout", "").await;
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    service.stop().await;
}

#[tokio::test]
async fn link_of_another_site_loads_the_page_again() {
    let service = start_with(|builder| declare(builder).access(Access::token("secret"))).await;
    let response =
        service.client.get(service.url("/dashboard/jobs")).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let html = response.text().await.unwrap();
    assert!(html.contains("<meta http-equiv=\"refresh\" content=\"0\">") && !html.contains("Type"), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn form_of_another_site_is_refused() {
    let service = start().await;
    let id = service.endpoints.submit(LATER, ()).await.unwrap().job.id;
    let request = without_redirects().post(service.url(&format!("/dashboard/jobs/{id}/cancel")));
    let response = request.header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(!support::found(&service.endpoints, id).await.status.is_terminal());
    service.stop().await;
}

#[tokio::test]
async fn job_is_canceled_and_retried_by_forms() {
    let service = start().await;
    let id = service.endpoints.submit(LATER, ()).await.unwrap().job.id;
    let html = page(&service, &format!("/dashboard/jobs/{id}")).await;
    assert!(html.contains("no live worker takes this type") && html.contains("Cancel the job"), "{html}");
    let response = post(&service, &format!("/dashboard/jobs/{id}/cancel"), "").await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let sent = async |path: &str| service.client.post(service.url(path)).send().await.unwrap().text().await.unwrap();
    let html = sent(&format!("/dashboard/jobs/{id}/cancel")).await;
    assert!(html.contains("had already ended") && html.contains("Retry the job"), "{html}");
    let html = sent(&format!("/dashboard/jobs/{id}/retry")).await;
    assert!(html.contains("This is the new job.") && html.contains("Retry of"), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn filter_is_in_the_address() {
    let service = start().await;
    let id = failed(&service).await;
    service.endpoints.submit(LATER, ()).await.unwrap();
    let html = page(&service, "/dashboard/jobs?status=Failed&name=Refuse").await;
    assert!(
        html.contains(&format!("id=\"job-{id}\""))
            && html.contains("<option value=\"Failed\" selected>Failed</option>"),
        "{html}"
    );
    assert!(!html.contains("no live worker"), "{html}");
    for (query, is_found) in [
        ("status=Completed", false),
        ("code=REFUSED", true),
        ("code=OTHER&since=1h", false),
        ("q=paper&since=1h", true),
        ("q=plastic", false),
        ("since=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z", false),
        ("owner=ada", false),
    ] {
        let html = page(&service, &format!("/dashboard/jobs?{query}")).await;
        assert_eq!(html.contains(&format!("id=\"job-{id}\"")), is_found, "{query}");
        assert_eq!(html.contains("No job matches."), !is_found, "{query}");
    }
    for bad in ["status=x", "name=a%20b", "cursor=x", "since=yesterday", "until=x"] {
        assert_eq!(get(&service, &format!("/dashboard/jobs?{bad}")).await.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    let found = get(&service, &format!("/dashboard/jobs?q={id}")).await;
    assert!(found.url().path().ends_with(&id.to_string()) && found.status() == StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn overview_has_charts_and_types() {
    let service = start().await;
    failed(&service).await;
    service.endpoints.submit(LATER, ()).await.unwrap();
    let html = page(&service, "/dashboard?window=15m").await;
    assert!(
        html.contains(
            "aria-label=\"Arrivals and ends by minute. accepted: last 2, highest 2. ended: last 1, highest 1.\""
        ),
        "{html}"
    );
    assert!(html.contains("id=\"type-Later\"") && html.contains("id=\"type-Refuse\""), "{html}");
    assert_eq!(get(&service, "/dashboard?window=1d").await.status(), StatusCode::BAD_REQUEST);
    service.stop().await;
}

#[tokio::test]
async fn long_list_has_pages() {
    let service = start().await;
    for _ in 0..51 {
        service.endpoints.submit(LATER, ()).await.unwrap();
    }
    let first = page(&service, "/dashboard/jobs").await;
    assert_eq!(first.matches("id=\"job-").count(), 50);
    let next =
        attributes(&first, "href").into_iter().find(|link| link.contains("cursor=")).unwrap().replace("&amp;", "&");
    let second = page(&service, &next.replace("../", "/")).await;
    assert_eq!(second.matches("id=\"job-").count(), 1);
    service.stop().await;
}

#[tokio::test]
async fn preferences_are_kept_in_cookies() {
    let service = start().await;
    let response = post(&service, "/dashboard/preferences", "theme=dark&back=/jobs?status=Failed").await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[header::LOCATION], "../dashboard/jobs?status=Failed");
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    assert_eq!(cookie, "ae_theme=dark; Max-Age=31536000; HttpOnly; SameSite=Strict");
    let request = service.client.get(service.url("/dashboard")).header("cookie", "ae_theme=dark; ae_zone=utc");
    let html = request.send().await.unwrap().text().await.unwrap();
    assert!(html.contains("data-theme=\"dark\" data-zone=\"utc\""), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn known_page_is_not_sent_again() {
    let service = start().await;
    failed(&service).await;
    let first = get(&service, "/dashboard/jobs").await;
    let tag = first.headers()[header::ETAG].to_str().unwrap();
    let status = async |known: &str| {
        let request = service.client.get(service.url("/dashboard/jobs")).header("if-none-match", known);
        request.send().await.unwrap().status()
    };
    // The comparison is weak, of a list, and `*` is any page (RFC 9110, 13.1.2).
    for known in [tag, &format!("W/{tag}"), &format!("\"x\", {tag}"), "*"] {
        assert_eq!(status(known).await, StatusCode::NOT_MODIFIED, "{known}");
    }
    assert_eq!(status("\"x\"").await, StatusCode::OK);
    failed(&service).await;
    assert_eq!(status(tag).await, StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn outage_is_shown_as_an_error_and_not_as_an_empty_list() {
    let (inner, flaky) = flaky_store();
    let endpoints =
        declare(AsyncEndpoints::builder(flaky.clone()).options(quick()).access(Access::loopback())).build().unwrap();
    let service = serve(inner, endpoints, "").await;
    flaky.outage(true);
    for path in ["/dashboard", "/dashboard/jobs", &format!("/dashboard/jobs/{}", JobId::random())] {
        let response = get(&service, path).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(response.headers()[header::RETRY_AFTER], "5", "{path}");
        let html = response.text().await.unwrap();
        assert!(html.contains("The job store did not answer") && !html.contains("No job matches"), "{html}");
    }
    flaky.outage(false);
    service.stop().await;
}

#[tokio::test]
async fn installation_has_a_name_and_traces_have_a_link() {
    let dashboard = DashboardOptions {
        name: Some("<eu-1>".to_owned()),
        color: InstanceColor::Red,
        trace_url: Some("https://traces.example.com/{trace_id}".to_owned()),
    };
    let service = start_with(|builder| declare(builder).options(Options { dashboard, ..quick() })).await;
    let id = failed(&service).await;
    let html = page(&service, &format!("/dashboard/jobs/{id}")).await;
    assert!(html.contains("&lt;eu-1&gt;") && html.contains("class=\"top red\""), "{html}");
    assert!(
        attributes(&html, "href")
            .iter()
            .any(|link| link.starts_with("https://traces.example.com/") && link.len() == 59),
        "{html}"
    );
    service.stop().await;
}

#[tokio::test]
async fn stream_sends_changed_regions() {
    let service = start().await;
    let id = service.endpoints.submit(LATER, ()).await.unwrap().job.id;
    let mut stream = get(&service, &format!("/dashboard/live?at=/jobs/{id}")).await;
    assert_eq!(stream.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut text = String::new();
    let mut read_until = async |wanted: &str| {
        while !text.contains(wanted) {
            let chunk = tokio::time::timeout(Duration::from_secs(20), stream.chunk()).await.expect("an event").unwrap();
            text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap());
        }
    };
    read_until("no live worker takes this type").await;
    service.endpoints.cancel(id).await.unwrap();
    read_until("Retry the job").await;
    drop(stream);
    service.stop().await;
}

#[tokio::test]
async fn stream_of_a_missing_page_is_refused() {
    let service = start().await;
    let job = format!("/jobs/{}", JobId::random());
    for (at, status) in [("/none", 404), (&*job, 404), ("/types/None", 404), ("/jobs%3Fstatus=x", 400)] {
        let response = get(&service, &format!("/dashboard/live?at={at}")).await;
        assert_eq!(response.status(), status, "{at}");
        assert!(!response.text().await.unwrap().is_empty(), "{at}");
    }
    service.stop().await;
}

#[tokio::test]
async fn streams_are_limited() {
    let service = start().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(get(&service, "/dashboard/live?at=").await);
    }
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    let refused = get(&service, "/dashboard/live?at=").await;
    assert_eq!(
        (refused.status(), &refused.headers()[header::RETRY_AFTER]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    drop(streams);
    support::until(async || get(&service, "/dashboard/live?at=").await.status() == StatusCode::OK).await;
    service.stop().await;
}
