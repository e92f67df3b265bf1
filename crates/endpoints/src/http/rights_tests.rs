//! Every route refuses callers that lack its level. Made from the list of routes.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
    response::Response,
};
use tower_service::Service;

use super::route::{Audience, Route};
use crate::{Access, AccessLevel, AsyncEndpoints, Builder, MemoryStore, alerts::Alerts};

const ID: &str = "01a223eb-b302-7739-bca5-0f11dafdb5e4";

struct Fixture {
    endpoints: AsyncEndpoints,
    app: Router,
}

impl Fixture {
    fn new() -> Self {
        Self::of(|builder| builder.alerts(Alerts::new()))
    }

    fn of(build: impl FnOnce(Builder) -> Builder) -> Self {
        let tokens = Access::tokens([("read", AccessLevel::View), ("write", AccessLevel::Operate)]);
        let builder = AsyncEndpoints::builder(MemoryStore::new()).access(tokens);
        let endpoints = build(builder).build().expect("valid endpoints");
        let app = endpoints.job_routes().merge(endpoints.monitoring_routes());
        Self { endpoints, app }
    }

    fn routes(&self) -> impl Iterator<Item = Route> {
        Route::JOBS.into_iter().chain(Route::MONITORING).filter(|route| route.exists(&self.endpoints))
    }

    /// Sends a request to a path that no route has.
    async fn send_to(&self, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        self.app.clone().call(request).await.expect("an answer")
    }

    /// Sends a request with these headers. The job, silence or type in its path does not exist.
    async fn send(&self, route: Route, headers: &[(&str, &str)]) -> Response {
        self.send_query(route, "", headers).await
    }

    async fn send_query(&self, route: Route, query: &str, headers: &[(&str, &str)]) -> Response {
        let path = route.path().replace("{id}", ID).replace("{name}", "Unknown");
        let request =
            Request::builder().method(route.method()).uri(path + query).header(header::HOST, "jobs.example.com");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Body::empty()).expect("a request");
        self.app.clone().call(request).await.expect("an answer")
    }
}

fn is_refused(response: &Response) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status())
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn operator_route_without_token_is_401() {
    let fixture = Fixture::new();
    for route in fixture.routes() {
        for headers in [&[] as &[_], &[("authorization", "Bearer other")], &[("cookie", "async_endpoints=7.7.7")]] {
            let response = fixture.send(route, headers).await;
            let is_for_all = matches!(route.audience(fixture.endpoints.options()), Audience::Callers);
            assert_eq!(response.status() == StatusCode::UNAUTHORIZED, !is_for_all, "{route:?} {headers:?}");
            let body = text(response).await;
            assert!(is_for_all || body.contains(&format!("needs the level {}", route.level())), "{route:?} {body}");
        }
    }
    assert_eq!(fixture.endpoints.audit().await.expect("memory answers"), [], "unknown callers are not recorded");
}

#[tokio::test]
async fn view_level_reads_everything_and_changes_nothing() {
    let fixture = Fixture::new();
    let mut changes = 0;
    for route in fixture.routes() {
        let response = fixture.send(route, &[("authorization", "Bearer read")]).await;
        let is_change = !route.method().is_safe();
        changes += usize::from(is_change);
        assert_eq!(response.status() == StatusCode::FORBIDDEN, is_change, "{route:?} {}", response.status());
        let body = text(response).await;
        assert!(!is_change || body.contains("needs the level operate, and the caller has the level view"), "{body}");
    }
    while fixture.endpoints.audit().await.expect("memory answers").len() < changes {
        tokio::task::yield_now().await;
    }
    let entries = fixture.endpoints.audit().await.expect("memory answers");
    assert!(entries.iter().all(|entry| entry.outcome == "FORBIDDEN" && entry.who.starts_with("token:")), "{entries:?}");
}

#[tokio::test]
async fn operate_level_changes_and_is_recorded() {
    let fixture = Fixture::new();
    for route in fixture.routes() {
        let response = fixture.send(route, &[("authorization", "Bearer write")]).await;
        assert!(!is_refused(&response), "{route:?} {}", response.status());
        let Some(action) = route.action() else { continue };
        let last = fixture.endpoints.audit().await.expect("memory answers").swap_remove(0);
        assert_eq!((last.action.as_str(), last.outcome == "ok"), (action, response.status().is_success()), "{last:?}");
        assert_eq!(last.target.as_deref() == Some(ID), route.path().contains("{id}"), "{last:?}");
        assert!(last.outcome != "started" && last.who.starts_with("token:"), "{last:?}");
    }
}

#[cfg(feature = "dashboard")]
#[tokio::test]
async fn session_is_for_this_site_alone() {
    let fixture = Fixture::new();
    let access = Access::token("write");
    let login = Request::post("/dashboard/login").header("host", "jobs.example.com").body(()).expect("a request");
    let (_, cookie) = access.sign_in("write", &login.into_parts().0, "").expect("the token is right");
    let cookie = ("cookie", cookie.to_str().expect("ASCII").split(';').next().expect("a pair"));
    let (own, other) = (("origin", "https://jobs.example.com"), ("origin", "https://evil.example"));
    let site = |site| ("sec-fetch-site", site);
    for route in fixture.routes() {
        let is_read = route.method().is_safe();
        for (headers, is_allowed) in [
            (vec![cookie, site("same-origin")], true),
            (vec![cookie, site("none")], true),
            (vec![cookie, own], true),
            (vec![cookie, site("cross-site"), own], false),
            (vec![cookie, site("same-site"), own], false),
            (vec![cookie, other], is_read),
            (vec![cookie, ("origin", "null")], is_read),
            (vec![cookie], is_read),
        ] {
            let response = fixture.send(route, &headers).await;
            assert_eq!(is_refused(&response), !is_allowed, "{route:?} {headers:?} {}", response.status());
            assert!(response.headers().get_all("vary").iter().any(|vary| vary == "Cookie"), "{route:?}");
            assert!(is_allowed || text(response).await.contains("CROSS_SITE_REQUEST"), "{route:?} {headers:?}");
        }
    }
}

#[tokio::test]
async fn unknown_query_parameter_of_an_operator_is_named() {
    let fixture = Fixture::new();
    for route in fixture.routes() {
        for query in ["?windw=60", "?limit=1&windw=60"] {
            let response = fixture.send_query(route, query, &[("authorization", "Bearer write")]).await;
            let is_for_all = matches!(route.audience(fixture.endpoints.options()), Audience::Callers);
            assert_eq!(response.status() == StatusCode::BAD_REQUEST, !is_for_all, "{route:?} {}", response.status());
            let body = text(response).await;
            let names_it = body.contains("is unknown: expected") && body.contains("INVALID_QUERY");
            assert_eq!(names_it, !is_for_all, "{route:?} {body}");
        }
    }
}

#[tokio::test]
async fn unknown_path_is_a_problem() {
    let fixture = Fixture::new();
    let job = format!("/jobs/{ID}/nothing");
    for path in ["/ops", "/ops/", "/ops/nothing", "/ops/types/Export/nothing", "/alerts/silences/7/x", &*job] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let response = fixture.send_to(method.clone(), path).await;
            let headers = [header::CONTENT_TYPE, header::CACHE_CONTROL].map(|name| response.headers()[name].clone());
            assert_eq!(headers, ["application/problem+json", "no-store"], "{method} {path}");
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {path}");
            let body = text(response).await;
            assert!(body.contains("\"ROUTE_NOT_FOUND\"") && body.contains(path), "{body}");
        }
    }
    let without_alerts = Fixture::of(|builder| builder);
    for (fixture, path) in [(fixture, "/health/nothing"), (without_alerts, "/alerts/nothing")] {
        let response = fixture.send_to(Method::GET, path).await;
        assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::NOT_FOUND, ""), "{path}");
    }
}
